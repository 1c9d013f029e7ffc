/** Where frames come from: a video file or a folder of images. Pictures must be closed as soon as they are used. */

import {
  ALL_FORMATS,
  BlobSource,
  EncodedPacketSink,
  Input,
  UnsupportedInputFormatError,
  VideoSampleSink,
  type InputVideoTrack,
  type VideoSample,
} from "mediabunny";
import { UserError } from "../core/errors";
import type { Frame } from "../core/frames";

export interface Picture {
  /** Its pixels, in memory that the next call for any picture of the same source uses again. */
  frame(): Promise<Frame>;
  close(): void;
}

export interface Source {
  readonly name: string;
  readonly width: number;
  readonly height: number;
  readonly count: number;
  /** Seconds of every frame from the first. */
  readonly times: Float64Array;
  readonly fps: number;
  /** Width over height as it is shown. */
  readonly aspect: number;
  /** Something that the person should know of it. */
  readonly note: string;
  /** Name of a frame's file without folder and ending, for the files made of it. */
  frameName(index: number): string;
  /** Frames [from, to), in order. Only a few are decoded ahead. */
  range(from: number, to: number): AsyncGenerator<Picture, void, unknown>;
  at(index: number): Promise<Picture>;
  close(): void;
}

const MIN_SIDE = 16;
const MAX_SIDE = 8192;

function checkSize(name: string, width: number, height: number): void {
  if (Math.min(width, height) < MIN_SIDE) {
    throw new UserError(`“${name}” is ${width} × ${height} pixels: too small to find an object in.`);
  }
  if (Math.max(width, height) > MAX_SIDE) {
    throw new UserError(`“${name}” is ${width} × ${height} pixels: larger than the ${MAX_SIDE} that this page takes.`);
  }
}

/** Pixels of anything that can be drawn, through one canvas that stays. */
class Pixels {
  private context: OffscreenCanvasRenderingContext2D | null = null;
  private buffer = new Uint8Array();

  of(width: number, height: number, draw: (context: OffscreenCanvasRenderingContext2D) => void): Frame {
    if (!this.context) {
      const canvas = new OffscreenCanvas(width, height);
      this.context = canvas.getContext("2d", { willReadFrequently: true, alpha: false })!;
    }
    draw(this.context);
    return { width, height, data: this.context.getImageData(0, 0, width, height).data };
  }

  room(bytes: number): Uint8Array<ArrayBuffer> {
    if (this.buffer.length < bytes) this.buffer = new Uint8Array(bytes);
    return this.buffer as Uint8Array<ArrayBuffer>;
  }
}

// Video ------------------------------------------------------------------------------------------------------------

class VideoPicture implements Picture {
  constructor(
    private readonly sample: VideoSample,
    private readonly source: VideoFile,
  ) {}

  async frame(): Promise<Frame> {
    const { width, height } = this.source;
    const { sample } = this;
    if (sample.rotation === 0 && !sample.flip && this.source.copies) {
      const data = this.source.pixels.room(width * height * 4).subarray(0, width * height * 4);
      try {
        await sample.copyTo(data, {
          format: "RGBA",
          colorSpace: "srgb",
          layout: [{ offset: 0, stride: width * 4 }],
        });
        return { width, height, data };
      } catch {
        this.source.copies = false; // this browser does not convert: through a canvas, then
      }
    }
    // Where it can be helped, frames are not drawn: Chromium without a graphics card keeps memory of every one that was.
    return this.source.pixels.of(width, height, (context) => sample.draw(context, 0, 0, width, height));
  }

  close(): void {
    this.sample.close();
  }
}

const CODEC_NAMES: Record<string, string> = {
  hevc: "HEVC (H.265)",
  avc: "H.264",
  av1: "AV1",
  vp8: "VP8",
  vp9: "VP9",
  prores: "ProRes",
};

class VideoFile implements Source {
  readonly pixels = new Pixels();
  copies = true;
  note = "";
  private readonly sink: VideoSampleSink;

  constructor(
    readonly name: string,
    private readonly input: Input,
    track: InputVideoTrack,
    readonly width: number,
    readonly height: number,
    readonly aspect: number,
    private readonly stamps: Float64Array,
    readonly fps: number,
  ) {
    this.sink = new VideoSampleSink(track);
  }

  get count(): number {
    return this.stamps.length;
  }

  get times(): Float64Array {
    return this.stamps.map((stamp) => stamp - this.stamps[0]!);
  }

  frameName(index: number): string {
    return String(index).padStart(5, "0");
  }

  async *range(from: number, to: number): AsyncGenerator<Picture, void, unknown> {
    let index = from;
    const end = to < this.stamps.length ? this.stamps[to]! : Infinity;
    const samples = this.sink.samples(this.stamps[from]!, end);
    try {
      for await (const sample of samples) {
        if (index >= to) {
          sample.close();
          break;
        }
        index++;
        yield new VideoPicture(sample, this);
      }
    } catch (error) {
      if (error instanceof UserError || (error as Error)?.name === "Cancelled") throw error;
      throw this.damaged(index);
    }
    if (index < to) throw this.damaged(index);
  }

  async at(index: number): Promise<Picture> {
    let sample: VideoSample | null = null;
    try {
      sample = await this.sink.getSample(this.stamps[index]!);
    } catch {
      // said below
    }
    if (!sample) throw this.damaged(index);
    return new VideoPicture(sample, this);
  }

  private damaged(index: number): UserError {
    return new UserError(
      `Frame ${index} of “${this.name}” cannot be decoded: the file is damaged, or was cut off while it was copied.`,
    );
  }

  close(): void {
    this.input.dispose();
  }
}

/** @throws UserError it is no video that this browser decodes. */
export async function openVideo(file: File): Promise<Source> {
  if (typeof VideoDecoder === "undefined") {
    throw new UserError(
      self.isSecureContext
        ? "This browser cannot decode videos frame by frame (it has no WebCodecs). Take a newer one, or a folder of images."
        : "Browsers decode videos only on pages that come over https or from this computer (localhost).",
    );
  }
  if (!file.size) throw new UserError(`“${file.name}” is empty.`);
  const input = new Input({ source: new BlobSource(file), formats: ALL_FORMATS });
  try {
    return await openInput(file.name, input);
  } catch (error) {
    input.dispose();
    if (error instanceof UserError) throw error;
    if (error instanceof UnsupportedInputFormatError) {
      throw new UserError(`“${file.name}” is no video that this page can read. It takes MP4, MOV, WebM and MKV files.`);
    }
    throw new UserError(`“${file.name}” cannot be read as a video: it is damaged, or was cut off while it was copied.`);
  }
}

async function openInput(name: string, input: Input): Promise<Source> {
  await input.getFormat();
  const track = await input.getPrimaryVideoTrack();
  if (!track) {
    throw new UserError(`“${name}” has no picture in it: it holds sound only, or was cut off while it was copied.`);
  }
  const codec = await track.getCodec();
  if (!(await track.canDecode())) {
    const known = codec ? (CODEC_NAMES[codec] ?? codec) : "a codec that this page does not know";
    const advice =
      codec === "hevc"
        ? "Save it as H.264 (on a phone: camera settings, “most compatible”), or open the page in a browser that has HEVC."
        : "Convert it to H.264, VP9 or AV1.";
    throw new UserError(`“${name}” is encoded as ${known}, which this browser cannot decode. ${advice}`);
  }
  const stamps: number[] = [];
  for await (const packet of new EncodedPacketSink(track).packets(undefined, undefined, { metadataOnly: true })) {
    // What ends before 0 is cut away by the file's edit list.
    if (packet.timestamp + packet.duration > 0) stamps.push(packet.timestamp);
  }
  if (!stamps.length) throw new UserError(`“${name}” has no frames.`);
  const sorted = Float64Array.from(stamps).sort();
  const rotation = await track.getRotation();
  const sink = new VideoSampleSink(track);
  const first = await sink.getSample(sorted[0]!);
  if (!first) throw new UserError(`The first frame of “${name}” cannot be decoded: the file is damaged.`);
  const { visibleRect } = first;
  first.close();
  const turned = rotation % 180 !== 0;
  const width = turned ? visibleRect.height : visibleRect.width;
  const height = turned ? visibleRect.width : visibleRect.height;
  checkSize(name, width, height);
  const aspect = (await track.getDisplayWidth()) / (await track.getDisplayHeight());
  const span = sorted[sorted.length - 1]! - sorted[0]!;
  const fps = span > 0 ? (sorted.length - 1) / span : 25;
  const usable = await readable(track, sorted);
  const source = new VideoFile(name, input, track, width, height, aspect, sorted.subarray(0, usable), fps);
  if (usable < sorted.length) {
    source.note = `“${name}” was cut off: only the first ${usable} of its ${sorted.length} frames are there.`;
  }
  return source;
}

/** How many frames at the start have their data in the file; a copy that was cut off promises more. */
async function readable(track: InputVideoTrack, stamps: Float64Array): Promise<number> {
  const sink = new EncodedPacketSink(track);
  const isThere = async (index: number): Promise<boolean> => {
    try {
      const packet = await sink.getPacket(stamps[index]!);
      return packet !== null && packet.data.byteLength > 0;
    } catch {
      return false;
    }
  };
  // Frames that are shown earlier may be stored later: of the last few any may be missing.
  let complete = true;
  for (let index = Math.max(0, stamps.length - 4); index < stamps.length && complete; index++) complete = await isThere(index);
  if (complete) return stamps.length;
  let count = 1;
  while (count < stamps.length && (await isThere(count))) count++;
  return count;
}

// Folder of images ---------------------------------------------------------------------------------------------------

const IMAGE_NAME = /\.(jpe?g|png|webp|bmp|gif|avif)$/i;

class ImagePicture implements Picture {
  constructor(
    private readonly bitmap: ImageBitmap,
    private readonly pixels: Pixels,
  ) {}

  async frame(): Promise<Frame> {
    const { width, height } = this.bitmap;
    return this.pixels.of(width, height, (context) => {
      context.fillRect(0, 0, width, height); // transparent pixels are black
      context.drawImage(this.bitmap, 0, 0);
    });
  }

  close(): void {
    this.bitmap.close();
  }
}

const IMAGE_FPS = 24;

class ImageFolder implements Source {
  readonly fps = IMAGE_FPS;
  readonly note = "";
  private readonly pixels = new Pixels();

  constructor(
    readonly name: string,
    private readonly files: readonly File[],
    readonly width: number,
    readonly height: number,
  ) {}

  get count(): number {
    return this.files.length;
  }

  get times(): Float64Array {
    return Float64Array.from(this.files, (_, index) => index / IMAGE_FPS);
  }

  get aspect(): number {
    return this.width / this.height;
  }

  frameName(index: number): string {
    return this.files[index]!.name.replace(/\.[^.]*$/, "");
  }

  async *range(from: number, to: number): AsyncGenerator<Picture, void, unknown> {
    for (let index = from; index < to; index++) yield await this.at(index);
  }

  async at(index: number): Promise<Picture> {
    const file = this.files[index]!;
    const bitmap = await decodeImage(file);
    if (bitmap.width !== this.width || bitmap.height !== this.height) {
      const found = `${bitmap.width} × ${bitmap.height}`;
      bitmap.close();
      throw new UserError(
        `“${file.name}” is ${found} pixels, but the first image is ${this.width} × ${this.height}: all must have one size.`,
      );
    }
    return new ImagePicture(bitmap, this.pixels);
  }

  close(): void {
    // The browser frees the files.
  }
}

async function decodeImage(file: File): Promise<ImageBitmap> {
  try {
    return await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  } catch {
    throw new UserError(`“${file.name}” cannot be decoded as an image.`);
  }
}

/** @throws UserError there is no image, one is damaged, or their sizes differ. */
export async function openImages(files: readonly File[]): Promise<Source> {
  const images = files.filter((file) => IMAGE_NAME.test(file.name) && !file.name.startsWith("."));
  if (!images.length) throw new UserError("There is no image (JPEG, PNG, WebP) in that folder.");
  const path = (file: File) => file.webkitRelativePath || file.name;
  // Frame 10 comes after frame 9.
  images.sort((a, b) => path(a).localeCompare(path(b), "en", { numeric: true }));
  const folder = images[0]!.webkitRelativePath.split("/").slice(-2)[0];
  const first = await decodeImage(images[0]!);
  const { width, height } = first;
  first.close();
  checkSize(images[0]!.name, width, height);
  return new ImageFolder(folder || "images", images, width, height);
}
