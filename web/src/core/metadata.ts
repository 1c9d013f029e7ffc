/** `metadata.json` of an exported network: what has to be known to run its files. Mirrors `osmn_tf/runtime/network.py`. */

import { UserError } from "./errors";

export const FORMAT = "osmn_tf.litert";
export const FORMAT_VERSION = 1;
export const GRAPHS = ["modulator", "encoder", "step"] as const;
export type Graph = (typeof GRAPHS)[number];

/** What depends on the size of the frames that go into the network. */
export interface Sized {
  /** [h, w] of these frames. */
  networkSize: [number, number];
  /** Name -> shape of what goes from the encoder to the step. */
  features: Map<string, number[]>;
  /** Name -> shape [h, w, c] of an object's recurrent state. */
  state: Map<string, number[]>;
}

export interface Metadata extends Sized {
  /** Of the graphs for videos that are not wide, in the same files; null where these have none. */
  square: Sized | null;
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
      square: json.square ? sized(json.square) : null,
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

function sized(json: Record<string, any>): Sized {
  return {
    networkSize: numbers(json["network_size"], 2) as [number, number],
    features: shapes(json["features"]),
    state: shapes(json["state"]),
  };
}

/** Narrower than this share of the network's width to height, a video is seen as a square. */
const LEAST_SHAPE = 0.8;

/** What suits a video: `fitted_size` of `osmn_tf/resampling.py`. */
export function fitted(metadata: Metadata, width: number, height: number): Sized {
  const [h, w] = metadata.networkSize;
  return metadata.square && w > h && width / height < LEAST_SHAPE * (w / h) ? metadata.square : metadata;
}

function numbers(value: unknown, count?: number): number[] {
  if (!Array.isArray(value) || (count !== undefined && value.length !== count)) throw new Error("numbers");
  if (!value.every((item) => typeof item === "number" && Number.isFinite(item))) throw new Error("numbers");
  return value;
}

function shapes(value: unknown): Map<string, number[]> {
  return new Map(Object.entries(value as object).map(([name, shape]) => [name, numbers(shape)]));
}
