/** Files that are made of a tracked video. Each is written to a scratch file while the video passes by. */

import {
  CanvasSource,
  getFirstEncodableVideoCodec,
  Mp4OutputFormat,
  Output,
  QUALITY_HIGH,
  StreamTarget,
  WebMOutputFormat,
  type StreamTargetChunk,
  type VideoCodec,
} from "mediabunny";
import { writeTracks } from "../core/coco";
import { UserError } from "../core/errors";
import { emptyMask, type Frame, type Mask } from "../core/frames";
import { maskPng, rgbaPng } from "../core/png";
import { ZipWriter } from "../core/zip";
import type { ObjectState } from "../messages";
import { Painter, pixelsOf } from "./painter";
import type { Picture, Source } from "./source";
import { ScratchFile } from "./storage";

export interface ResultInput {
  source: Source;
  objects: readonly ObjectState[];
  maskAt: (index: number) => Mask | null;
  /** Called after every frame; throws where the person cancels. */
  step: (done: number) => Promise<void>;
}

export interface Result {
  name: string;
  type: string;
  file: ScratchFile;
}

/** A name for files: what is not letter, digit, dot, dash or underscore becomes an underscore. */
export function stem(name: string): string {
  const base = name.replace(/\.[A-Za-z0-9]{1,5}$/, "").replace(/[^\p{L}\p{N}._-]+/gu, "_");
  return base.replace(/^[._]+/, "") || "video";
}

async function written(kind: string, write: (file: ScratchFile) => Promise<void>): Promise<ScratchFile> {
  const file = await ScratchFile.create(kind);
  try {
    await write(file);
  } catch (error) {
    await file.dispose();
    throw error;
  }
  return file;
}

/** Palette PNGs in a folder named after the video, as DAVIS has them. */
export async function saveMasks({ source, maskAt, step }: ResultInput): Promise<Result> {
  const folder = stem(source.name);
  const file = await written("zip", async (target) => {
    const zip = new ZipWriter((bytes) => void target.append(bytes));
    for (let index = 0; index < source.count; index++) {
      const mask = maskAt(index) ?? emptyMask(source.width, source.height);
      await zip.add(`${folder}/${source.frameName(index)}.png`, await maskPng(mask));
      await step(index + 1);
    }
    await zip.close();
  });
  return { name: `${folder}_masks.zip`, type: "application/zip", file };
}

/** COCO run lengths, a track an object. */
export async function saveTracks({ source, objects, maskAt, step }: ResultInput): Promise<Result> {
  const folder = stem(source.name);
  const encoder = new TextEncoder();
  const file = await written("json", async (target) => {
    let done = 0;
    await writeTracks(
      {
        name: source.name,
        width: source.width,
        height: source.height,
        length: source.count,
        objects,
        maskAt,
        fileName: (index) => source.frameName(index),
      },
      async (text) => {
        target.append(encoder.encode(text));
        done = Math.min(done + 1, source.count * objects.length);
        await step(Math.floor(done / Math.max(1, objects.length)));
      },
    );
  });
  return { name: `${folder}.json`, type: "application/json", file };
}

/** RGBA PNGs of the visible objects on a transparent ground. */
export async function saveCutouts({ source, objects, maskAt, step }: ResultInput): Promise<Result> {
  const folder = stem(source.name);
  const hidden = new Set(objects.filter((object) => !object.visible).map((object) => object.label));
  const file = await written("zip", async (target) => {
    const zip = new ZipWriter((bytes) => void target.append(bytes));
    await eachFrame(source, async (picture, index) => {
      const frame = await picture.frame();
      cutOut(frame, maskAt(index), hidden);
      await zip.add(`${folder}_cutouts/${source.frameName(index)}.png`, await rgbaPng(frame.width, frame.height, frame.data));
      await step(index + 1);
    });
    await zip.close();
  });
  return { name: `${folder}_cutouts.zip`, type: "application/zip", file };
}

/** Makes everything but the objects transparent and black, so that nothing of it is in the file. */
function cutOut(frame: Frame, mask: Mask | null, hidden: ReadonlySet<number>): void {
  const { data } = frame;
  for (let i = 0; i < frame.width * frame.height; i++) {
    const label = mask?.data[i] ?? 0;
    if (label && !hidden.has(label)) data[4 * i + 3] = 255;
    else data.fill(0, 4 * i, 4 * i + 4);
  }
}

async function eachFrame(source: Source, use: (picture: Picture, index: number) => Promise<void>): Promise<void> {
  let index = 0;
  for await (const picture of source.range(0, source.count)) {
    try {
      await use(picture, index++);
    } finally {
      picture.close();
    }
  }
}

/** The video with the objects coloured in: MP4 with H.264 where the browser encodes it, else WebM. */
export async function saveOverlay(input: ResultInput): Promise<Result> {
  const { source, objects, maskAt } = input;
  const hidden = new Set(objects.filter((object) => !object.visible).map((object) => object.label));
  const painter = new Painter();
  const encoded = await encode(input, ["avc", "vp9", "vp8"], false, async (context, picture, index) => {
    painter.frame(context, await picture.frame());
    const mask = maskAt(index);
    if (mask) painter.overlay(context, mask, hidden);
  });
  return { ...encoded, name: `${stem(source.name)}_overlay.${encoded.ending}` };
}

/** The objects on a transparent ground: WebM with VP9 and alpha. */
export async function saveAlpha(input: ResultInput): Promise<Result> {
  const { source, objects, maskAt } = input;
  const hidden = new Set(objects.filter((object) => !object.visible).map((object) => object.label));
  const encoded = await encode(input, ["vp9", "vp8"], true, async (context, picture, index) => {
    const frame = await picture.frame();
    cutOut(frame, maskAt(index), hidden);
    context.clearRect(0, 0, context.canvas.width, context.canvas.height);
    context.putImageData(pixelsOf(frame), 0, 0);
  });
  return { ...encoded, name: `${stem(source.name)}_alpha.${encoded.ending}` };
}

async function encode(
  { source, step }: ResultInput,
  codecs: VideoCodec[],
  alpha: boolean,
  draw: (context: OffscreenCanvasRenderingContext2D, picture: Picture, index: number) => Promise<void>,
): Promise<{ file: ScratchFile; type: string; ending: string }> {
  // H.264 and VP9 in their common form have half as many colour samples: even sides.
  const width = source.width - (source.width % 2);
  const height = source.height - (source.height % 2);
  const codec = await getFirstEncodableVideoCodec(codecs, { width, height, bitrate: QUALITY_HIGH });
  if (!codec) throw new UserError("This browser cannot encode videos. Save the masks or the cut-outs as images instead.");
  const format = codec === "avc" ? new Mp4OutputFormat({ fastStart: false }) : new WebMOutputFormat();
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { alpha, willReadFrequently: true })!;
  const file = await written("video", async (target) => {
    let fail: (reason: unknown) => void = () => {};
    const failed = new Promise<never>((_, reject) => (fail = reject));
    failed.catch(() => {});
    const writable = new WritableStream<StreamTargetChunk>({
      write: ({ data, position }) => {
        try {
          target.write(data as Uint8Array<ArrayBuffer>, position);
        } catch (error) {
          fail(error); // mediabunny waits for ever for a stream that fails
          throw error;
        }
      },
    });
    const output = new Output({ format, target: new StreamTarget(writable) });
    const encoder = new CanvasSource(canvas, { codec, bitrate: QUALITY_HIGH, alpha: alpha ? "keep" : "discard" });
    output.addVideoTrack(encoder, { frameRate: source.fps });
    try {
      await Promise.race([output.start(), failed]);
      const { times } = source;
      await eachFrame(source, async (picture, index) => {
        await draw(context, picture, index);
        const next = index + 1 < source.count ? times[index + 1]! : times[index]! + 1 / source.fps;
        await Promise.race([encoder.add(times[index]!, next - times[index]!), failed]);
        await step(index + 1);
      });
      await Promise.race([output.finalize(), failed]);
    } catch (error) {
      void output.cancel().catch(() => {});
      throw error;
    }
  });
  return { file, ...(codec === "avc" ? { type: "video/mp4", ending: "mp4" } : { type: "video/webm", ending: "webm" }) };
}
