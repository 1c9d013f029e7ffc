/** An exported network under LiteRT.js. What goes from one graph to the next stays in LiteRT's memory. */

import { getGlobalLiteRt, loadAndCompile, loadLiteRt, Tensor, type CompiledModel, type SignatureRunner } from "@litertjs/core";
import { UserError } from "../core/errors";
import { fitted, GRAPHS, readMetadata, type Graph, type Metadata, type Sized, type Sizes } from "../core/metadata";
import type { Held, Network } from "../core/segmenter";

const SIGNATURES: Record<Graph, string> = { modulator: "modulate", encoder: "encode", step: "step" };

export type Accelerator = "wasm" | "webgpu";

/** The state of an object: tensors by name. */
export class HeldState implements Held {
  constructor(readonly tensors: Record<string, Tensor>) {}

  delete(): void {
    for (const tensor of Object.values(this.tensors)) tensor.delete();
  }
}

export interface LoadOptions {
  /** Folder of the exported network, ends in a slash. */
  networkUrl: string;
  /** Folder of LiteRT's own files, ends in a slash. */
  litertUrl: string;
  threads: number;
  /** The network may also run on the graphics card. */
  webgpu: boolean;
  onProgress: (loaded: number, total: number) => void;
}

/** The files of an exported network, checked. */
export interface NetworkFiles {
  metadata: Metadata;
  graphs: Record<Graph, Uint8Array<ArrayBuffer>>;
  urls: string[];
}

async function fetched(url: string, what: string): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(url);
  } catch {
    throw new UserError(`${what} could not be loaded: there is no connection to the server that this page came from.`);
  }
  if (!response.ok) {
    throw new UserError(
      `${what} is missing on the server that this page came from (${new URL(url, location.href).pathname}: ` +
        `${response.status}). Whoever hosts the page has to add the network's files.`,
    );
  }
  return response;
}

/**
 * Fetches the network's files and compares them with the checksums in its metadata.
 *
 * @throws UserError a file is missing, damaged, or of another version.
 */
export async function fetchNetwork(options: LoadOptions): Promise<NetworkFiles> {
  const metadataUrl = `${options.networkUrl}metadata.json`;
  const response = await fetched(metadataUrl, "The network's description");
  let content: unknown;
  try {
    content = await response.json();
  } catch {
    throw new UserError("The network's description (metadata.json) is damaged: it is not readable JSON.");
  }
  const metadata = readMetadata(content);
  const total = GRAPHS.reduce((sum, graph) => sum + metadata.files[graph].bytes, 0);
  const urls = [metadataUrl];
  const graphs = {} as NetworkFiles["graphs"];
  let loaded = 0;
  for (const graph of GRAPHS) {
    const { name, sha256 } = metadata.files[graph];
    // The checksum in the address keeps caches from giving out a file of another export.
    const url = `${options.networkUrl}${name}?${sha256.slice(0, 16)}`;
    urls.push(url);
    const body = (await fetched(url, `The network's file ${name}`)).body!.getReader();
    const parts: Uint8Array<ArrayBuffer>[] = [];
    for (;;) {
      const { done, value } = await body.read();
      if (done) break;
      parts.push(value as Uint8Array<ArrayBuffer>);
      loaded += value.length;
      options.onProgress(loaded, total);
    }
    const bytes = new Uint8Array(await new Blob(parts).arrayBuffer());
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
    if (Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("") !== sha256) {
      throw new UserError(
        `The network's file ${name} is damaged or of another version than its description. Reload the page; if that ` +
          "does not help, whoever hosts it has to export the network again.",
      );
    }
    graphs[graph] = bytes;
  }
  return { metadata, graphs, urls };
}

let runtime: Promise<{ threads: number }> | null = null;

/** Starts LiteRT once. Threads need a page that is isolated from other origins, and SIMD that all new browsers have. */
export function startRuntime(options: Pick<LoadOptions, "litertUrl" | "threads" | "webgpu">): Promise<{ threads: number }> {
  runtime ??= begin(options);
  runtime.catch(() => (runtime = null));
  return runtime;
}

async function begin(options: Pick<LoadOptions, "litertUrl" | "threads" | "webgpu">): Promise<{ threads: number }> {
  const { litertUrl } = options;
  const scope = self as unknown as { Module?: object; ModuleFactory?: unknown };
  const attempts: [number, boolean][] = [[1, false]];
  if (options.threads > 1 && self.crossOriginIsolated) attempts.unshift([options.threads, false]);
  // With JSPI the graphics card may leave operations to the processor. LiteRT has it without threads only.
  if (options.webgpu && "Suspending" in WebAssembly) attempts.unshift([1, true]);
  let failure: unknown;
  for (const [threads, jspi] of attempts) {
    scope.Module = {
      // In a worker Emscripten looks for its files beside the worker's script.
      locateFile: (path: string) => litertUrl + path,
      mainScriptUrlOrBlob: `${litertUrl}litert_wasm_threaded_internal.js`,
    };
    // Emscripten starts as many threads as this says, each with memory of its own. Every graph has its own, beside this.
    const pool = Math.max(1, GRAPHS.length * (threads - 1));
    Object.defineProperty(navigator, "hardwareConcurrency", { value: pool, configurable: true });
    try {
      await loadLiteRt(litertUrl, { threads: threads > 1, jspi });
      return { threads };
    } catch (error) {
      failure = error;
    }
  }
  const reason = failure instanceof Error ? failure.message.split("\n")[0] : String(failure);
  throw new UserError(`The part that runs networks (LiteRT) could not be started in this browser (${reason}).`);
}

function otherVersion(metadata: Metadata, graph: Graph): UserError {
  const { name } = metadata.files[graph];
  return new UserError(`The network's file ${name} is of another version than its description (metadata.json).`);
}

export class LiteRtNetwork implements Network<HeldState> {
  readonly guideChannels: number;
  private features: Record<string, Tensor> = {};
  private readonly inputs = new Map<string, Tensor>();
  private readonly zeros = new Map<Sized, HeldState>();
  private sized: Sized;
  private readonly sizes: Sizes;

  private constructor(
    readonly metadata: Metadata,
    private readonly models: Record<Graph, CompiledModel>,
    readonly accelerator: Accelerator,
    finer: boolean,
  ) {
    this.sizes = (finer && metadata.larger) || { wide: metadata, square: metadata.square };
    this.sized = this.sizes.wide;
    this.guideChannels = this.shapeOf("step", "spatial_guide")[3] ?? 0;
    if (this.guideChannels !== 1 && this.guideChannels !== 2) throw otherVersion(metadata, "step");
    for (const sized of [this.sizes.square, this.sizes.wide]) {
      if (!sized) continue;
      this.sized = sized;
      const [h, w] = sized.networkSize;
      const expected = new Map([...sized.state].map(([name, size]) => [name, [metadata.objects, ...size]]));
      for (const [name, shape] of expected.set("spatial_guide", [metadata.objects, h, w, this.guideChannels])) {
        if (this.shapeOf("step", name).join() !== shape.join()) throw otherVersion(metadata, "step");
      }
      const zeros = [...sized.state.keys()].map((name) => {
        const full = this.shapeOf("step", name);
        return [name, new Tensor(new Float32Array(full.reduce((a, b) => a * b, 1)), full)];
      });
      this.zeros.set(sized, new HeldState(Object.fromEntries(zeros)));
    }
  }

  get networkSize(): readonly [number, number] {
    return this.sized.networkSize;
  }

  fit(width: number, height: number): void {
    this.sized = fitted(this.sizes, width, height);
  }

  /** @param finer - with the graphs for larger frames, where there are any. */
  static async compile(files: NetworkFiles, accelerator: Accelerator, threads: number, finer = false): Promise<LiteRtNetwork> {
    const models = {} as Record<Graph, CompiledModel>;
    for (const graph of GRAPHS) {
      try {
        models[graph] = await loadAndCompile(files.graphs[graph], { accelerator, cpuOptions: { numThreads: threads } });
      } catch (error) {
        const reason = error instanceof Error ? error.message.split("\n")[0] : String(error);
        throw new UserError(`The network's file ${files.metadata.files[graph].name} cannot be run here (${reason}).`);
      }
    }
    return new LiteRtNetwork(files.metadata, models, accelerator, finer);
  }

  /** A graph at the present size. */
  private runner(graph: Graph): SignatureRunner {
    const found = this.models[graph].signatures[SIGNATURES[graph] + (graph === "modulator" ? "" : this.sized.suffix)];
    if (!found) throw otherVersion(this.metadata, graph);
    return found;
  }

  private shapeOf(graph: Graph, input: string): number[] {
    const details = this.runner(graph).getInputDetails().find((detail) => detail.name === input);
    return details ? Array.from(details.shape) : [];
  }

  /** The input's tensor, which is made once, with new content at its beginning; the rest, of other objects, stays 0. */
  private fill(graph: Graph, name: string, content: Float32Array | Uint8Array): Tensor {
    const key = `${graph}/${name}/${this.networkSize}`;
    let tensor = this.inputs.get(key);
    if (!tensor) {
      const shape = this.shapeOf(graph, name);
      const length = shape.reduce((a, b) => a * b, 1);
      const array = content instanceof Uint8Array ? new Uint8Array(length) : new Float32Array(length);
      tensor = new Tensor(array, shape);
      this.inputs.set(key, tensor);
    }
    const wasm = getGlobalLiteRt().liteRtWasm as unknown as { HEAPU8: Uint8Array; LiteRtTensorBufferLockMode: any };
    const buffer = (tensor as any).liteRtTensorBuffer;
    const pointer = buffer.lock(wasm.LiteRtTensorBufferLockMode.WRITE);
    try {
      wasm.HEAPU8.set(new Uint8Array(content.buffer, content.byteOffset, content.byteLength), pointer);
    } finally {
      buffer.unlock();
    }
    return tensor;
  }

  async modulate(guide: Float32Array): Promise<Float32Array> {
    const outputs = await this.runner("modulator").run({ visual_guide: this.fill("modulator", "visual_guide", guide) });
    const modulation = (await outputs["modulation"]!.data()) as Float32Array;
    for (const tensor of Object.values(outputs)) tensor.delete();
    return modulation.slice(0, this.metadata.modulationSize);
  }

  async encode(frame: Uint8Array): Promise<void> {
    for (const tensor of Object.values(this.features)) tensor.delete();
    this.features = {};
    this.features = await this.runner("encoder").run({ frame: this.fill("encoder", "frame", frame) });
  }

  async step(
    guide: Float32Array,
    modulation: Float32Array,
    state: HeldState | null,
  ): Promise<{ logits: Float32Array; state: HeldState }> {
    const outputs = await this.runner("step").run({
      ...this.features,
      ...(state ?? this.zeros.get(this.sized)!).tensors,
      spatial_guide: this.fill("step", "spatial_guide", guide),
      modulation: this.fill("step", "modulation", modulation),
    });
    const { logits, ...rest } = outputs;
    const [h, w] = this.networkSize;
    const plane = ((await logits!.data()) as Float32Array).subarray(0, h * w);
    logits!.delete();
    return { logits: plane, state: new HeldState(rest) };
  }

  delete(): void {
    for (const tensor of [...Object.values(this.features), ...this.inputs.values()]) tensor.delete();
    for (const zeros of this.zeros.values()) zeros.delete();
    for (const graph of GRAPHS) this.models[graph].delete();
  }
}
