/** Draws frames with their objects coloured in, as `osmn segment` draws its overlay. */

import { screenColor } from "../core/colors";
import type { Mask } from "../core/frames";

const OPACITY = 0.45;

type Context = OffscreenCanvasRenderingContext2D;

export class Painter {
  private layer: OffscreenCanvas | null = null;

  /** Lays the objects over what is drawn already, in the colours of the labels. */
  overlay(context: Context, mask: Mask, hidden: ReadonlySet<number>): void {
    const { width, height } = context.canvas;
    if (this.layer?.width !== width || this.layer.height !== height) this.layer = new OffscreenCanvas(width, height);
    const layer = this.layer.getContext("2d")!;
    const image = layer.createImageData(width, height);
    const pixels = new Uint32Array(image.data.buffer);
    const fills = new Uint32Array(256);
    const lines = new Uint32Array(256);
    for (let label = 1; label < 255; label++) {
      if (hidden.has(label)) continue;
      const [r, g, b] = screenColor(label);
      fills[label] = rgba(r, g, b, 255 * OPACITY);
      lines[label] = rgba(0.75 * r + 64, 0.75 * g + 64, 0.75 * b + 64, 255);
    }
    const dark = rgba(0, 0, 0, 150);
    const labels = this.scaled(mask, width, height, hidden);
    const reach = Math.max(1, Math.round(Math.min(width, height) / 300));
    for (let y = 0; y < height; y++) {
      const up = Math.max(0, y - reach) * width;
      const down = Math.min(height - 1, y + reach) * width;
      const row = y * width;
      for (let x = 0; x < width; x++) {
        const label = labels[row + x]!;
        const left = labels[row + Math.max(0, x - reach)]!;
        const right = labels[row + Math.min(width - 1, x + reach)]!;
        const above = labels[up + x]!;
        const below = labels[down + x]!;
        const edge = label !== left || label !== right || label !== above || label !== below;
        if (label) pixels[row + x] = edge ? lines[label]! : fills[label]!;
        else if (edge) pixels[row + x] = dark;
      }
    }
    layer.putImageData(image, 0, 0);
    context.drawImage(this.layer, 0, 0);
  }

  private scaled(mask: Mask, width: number, height: number, hidden: ReadonlySet<number>): Uint8Array {
    const result = new Uint8Array(width * height);
    const columns = Int32Array.from({ length: width }, (_, x) => Math.floor(((x + 0.5) * mask.width) / width));
    for (let y = 0; y < height; y++) {
      const row = Math.floor(((y + 0.5) * mask.height) / height) * mask.width;
      for (let x = 0; x < width; x++) {
        const label = mask.data[row + columns[x]!]!;
        if (label && !hidden.has(label)) result[y * width + x] = label;
      }
    }
    return result;
  }
}

function rgba(r: number, g: number, b: number, a: number): number {
  // Canvas pixels lie in memory as R, G, B, A, and all machines that run browsers are little-endian.
  return ((Math.round(a) << 24) | (Math.round(b) << 16) | (Math.round(g) << 8) | Math.round(r)) >>> 0;
}
