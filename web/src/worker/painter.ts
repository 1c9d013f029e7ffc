/** Draws frames with their objects coloured in, as `osmn segment` draws its overlay. */

import { screenColor } from "../core/colors";
import { surroundings, type Frame, type Mask } from "../core/frames";

const OPACITY = 0.45;

type Context = OffscreenCanvasRenderingContext2D;

export class Painter {
  private layer: OffscreenCanvas | null = null;
  private stage: OffscreenCanvas | null = null;

  /** Draws a frame over the whole canvas. */
  frame(context: Context, frame: Frame): void {
    this.image(context, pixelsOf(frame));
  }

  /** Draws uint8 RGB [h, w, 3] over the whole canvas. */
  small(context: Context, rgb: Uint8Array, h: number, w: number): void {
    const image = new ImageData(w, h);
    for (let i = 0; i < h * w; i++) {
      image.data[4 * i] = rgb[3 * i]!;
      image.data[4 * i + 1] = rgb[3 * i + 1]!;
      image.data[4 * i + 2] = rgb[3 * i + 2]!;
      image.data[4 * i + 3] = 255;
    }
    this.image(context, image);
  }

  private image(context: Context, image: ImageData): void {
    const { width, height } = context.canvas;
    if (image.width === width && image.height === height) return context.putImageData(image, 0, 0);
    if (this.stage?.width !== image.width || this.stage.height !== image.height) {
      this.stage = new OffscreenCanvas(image.width, image.height);
    }
    this.stage.getContext("2d", { willReadFrequently: true })!.putImageData(image, 0, 0);
    context.drawImage(this.stage, 0, 0, width, height);
  }

  /** Lays the objects over what is drawn already, in the colours of the labels. Only their surroundings are worked on. */
  overlay(context: Context, mask: Mask, hidden: ReadonlySet<number>): void {
    const { width, height } = context.canvas;
    const labels = scaled(mask, width, height, hidden);
    const reach = Math.max(1, Math.round(Math.min(width, height) / 300));
    const region = surroundings(labels, width, height, reach);
    if (!region) return;
    if (this.layer?.width !== width || this.layer.height !== height) this.layer = new OffscreenCanvas(width, height);
    const layer = this.layer.getContext("2d")!;
    const image = layer.createImageData(region.width, region.height);
    const pixels = new Uint32Array(image.data.buffer);
    const fills = new Uint32Array(256);
    const lines = new Uint32Array(256);
    for (let label = 1; label < 255; label++) {
      const [r, g, b] = screenColor(label);
      fills[label] = rgba(r, g, b, 255 * OPACITY);
      lines[label] = rgba(0.75 * r + 64, 0.75 * g + 64, 0.75 * b + 64, 255);
    }
    const dark = rgba(0, 0, 0, 150);
    for (let y = region.y, at = 0; y < region.y + region.height; y++) {
      const up = Math.max(0, y - reach) * width;
      const down = Math.min(height - 1, y + reach) * width;
      const row = y * width;
      for (let x = region.x; x < region.x + region.width; x++, at++) {
        const label = labels[row + x]!;
        const left = labels[row + Math.max(0, x - reach)]!;
        const right = labels[row + Math.min(width - 1, x + reach)]!;
        const above = labels[up + x]!;
        const below = labels[down + x]!;
        const edge = label !== left || label !== right || label !== above || label !== below;
        if (label) pixels[at] = edge ? lines[label]! : fills[label]!;
        else if (edge) pixels[at] = dark;
      }
    }
    layer.putImageData(image, region.x, region.y);
    const { x, y } = region;
    context.drawImage(this.layer, x, y, region.width, region.height, x, y, region.width, region.height);
  }
}

/** The frame's own memory as an image. */
export function pixelsOf({ width, height, data }: Frame): ImageData {
  return new ImageData(new Uint8ClampedArray(data.buffer as ArrayBuffer, data.byteOffset, 4 * width * height), width, height);
}

/** The labels of a mask that are not hidden, at another size. */
function scaled(mask: Mask, width: number, height: number, hidden: ReadonlySet<number>): Uint8Array {
  const result = new Uint8Array(width * height);
  const shown = Uint8Array.from({ length: 256 }, (_, label) => (label === 255 || hidden.has(label) ? 0 : label));
  const columns = Int32Array.from({ length: width }, (_, x) => Math.floor(((x + 0.5) * mask.width) / width));
  for (let y = 0, at = 0; y < height; y++) {
    const row = Math.floor(((y + 0.5) * mask.height) / height) * mask.width;
    for (let x = 0; x < width; x++, at++) result[at] = shown[mask.data[row + columns[x]!]!]!;
  }
  return result;
}

function rgba(r: number, g: number, b: number, a: number): number {
  // Canvas pixels lie in memory as R, G, B, A, and all machines that run browsers are little-endian.
  return ((Math.round(a) << 24) | (Math.round(b) << 16) | (Math.round(g) << 8) | Math.round(r)) >>> 0;
}
