/** `metadata.json` of an exported network: what has to be known to run its files. Mirrors `osmn_tf/runtime/network.py`. */

import { UserError } from "./errors";

export const FORMAT = "osmn_tf.litert";
export const FORMAT_VERSION = 1;
export const GRAPHS = ["modulator", "encoder", "step"] as const;
export type Graph = (typeof GRAPHS)[number];

/** What depends on the size of the frames that go into the network. */
export interface Sized {
  /** What the signatures of the graphs of this size end in. */
  suffix: string;
  /** [h, w] of these frames. */
  networkSize: [number, number];
  /** Name -> shape of what goes from the encoder to the step. */
  features: Map<string, number[]>;
  /** Name -> shape [h, w, c] of an object's recurrent state. */
  state: Map<string, number[]>;
}

/** Of wide videos, and of the others; null where these have none of their own. */
export interface Sizes {
  wide: Sized;
  square: Sized | null;
}

export interface Metadata extends Sized {
  /** Of the graphs for videos that are not wide, in the same files; null where these have none. */
  square: Sized | null;
  /** The same of the graphs for larger frames. */
  larger: Sizes | null;
  /** Batch size of the step. */
  objects: number;
  guideSize: number;
  guideBackground: [number, number, number];
  modulationSize: number;
  quantization: string;
  /** The network matches: an object is looked for near where it was. */
  matches: boolean;
  files: Record<Graph, { name: string; sha256: string; bytes: number }>;
  description: string;
  licence: string;
}

/**
 * Checks and reads the content of `metadata.json`.
 *
 * @throws UserError it is of another format or version, or incomplete.
 */
export function readMetadata(content: unknown): Metadata {
  const json = content as Record<string, any> | null;
  if (typeof json !== "object" || json === null || json.format !== FORMAT) {
    throw new UserError("The network's description (metadata.json) is not that of an exported network.");
  }
  if (json.format_version !== FORMAT_VERSION) {
    throw new UserError(
      `The network was exported in format version ${json.format_version}, but this page reads version ` +
        `${FORMAT_VERSION}. Export the network again, or reload the page to get its newest version.`,
    );
  }
  try {
    const files = {} as Metadata["files"];
    for (const graph of GRAPHS) {
      const { name, sha256, bytes } = json.files[graph];
      if (typeof name !== "string" || !/^[\w.-]+$/.test(name) || typeof sha256 !== "string") throw new Error(graph);
      files[graph] = { name, sha256, bytes: Number(bytes) || 0 };
    }
    return {
      ...sized(json),
      square: json.square ? sized(json.square, "_square") : null,
      larger: larger(json.larger),
      objects: numbers([json.objects], 1)[0]!,
      guideSize: numbers([json.guide_size], 1)[0]!,
      guideBackground: numbers(json.guide_background, 3) as [number, number, number],
      modulationSize: numbers([json.modulation_size], 1)[0]!,
      quantization: String(json.quantization),
      matches: json.matches === true,
      files,
      description: String(json.source?.description ?? ""),
      licence: String(json.source?.licence ?? ""),
    };
  } catch {
    throw new UserError("The network's description (metadata.json) is damaged or incomplete.");
  }
}

function sized(json: Record<string, any>, suffix = ""): Sized {
  return {
    suffix,
    networkSize: numbers(json["network_size"], 2) as [number, number],
    features: shapes(json["features"]),
    state: shapes(json["state"]),
  };
}

/** Those at the first of the larger scales; `osmn export` writes its square behind it. */
function larger(json: unknown): Metadata["larger"] {
  if (!Array.isArray(json) || !json.length) return null;
  const [wide, square] = json.map((content) => sized(content, `_${numbers(content.network_size, 2).join("x")}`));
  return { wide: wide!, square: square && square.networkSize[0] === square.networkSize[1] ? square : null };
}

/** Narrower than this share of the network's width to height, a video is seen as a square. */
const LEAST_SHAPE = 0.8;

/** What suits a video: `fitted_size` of `osmn_tf/resampling.py`. */
export function fitted({ wide, square }: Sizes, width: number, height: number): Sized {
  const [h, w] = wide.networkSize;
  return square && w > h && width / height < LEAST_SHAPE * (w / h) ? square : wide;
}

function numbers(value: unknown, count?: number): number[] {
  if (!Array.isArray(value) || (count !== undefined && value.length !== count)) throw new Error("numbers");
  if (!value.every((item) => typeof item === "number" && Number.isFinite(item))) throw new Error("numbers");
  return value;
}

function shapes(value: unknown): Map<string, number[]> {
  return new Map(Object.entries(value as object).map(([name, shape]) => [name, numbers(shape)]));
}
