/** The inputs of golden.json, by the same formulas as in golden.py. */

import { readFileSync } from "node:fs";
import path from "node:path";
import type { Frame, Mask } from "../../src/core/frames";

export const FRAME: [number, number] = [37, 53];
export const NETWORK: [number, number] = [24, 32];
export const GUIDE_SIZE = 40;
export const BACKGROUND: [number, number, number] = [127.5, 100, 90.25];

// The tests are bundled: their own place is not the file's.
const folder = path.join(process.env["OSMN_WEB"] ?? process.cwd(), "tests");
export const golden = JSON.parse(readFileSync(path.join(folder, "golden.json"), "utf8"));

export function picture(height: number, width: number, seed: number): Frame {
  const data = new Uint8Array(height * width * 4);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      for (let c = 0; c < 3; c++) {
        data[4 * (y * width + x) + c] = (x * 7 + y * 13 + c * 29 + ((x * y) % 31) * 5 + seed * 17) % 256;
      }
    }
  }
  return { width, height, data };
}

export function labels(height: number, width: number): Mask {
  const data = new Uint8Array(height * width);
  const centre = Math.floor((2 * width) / 3);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const at = y * width + x;
      if (x * 3 + y * 2 < width && y > Math.floor(height / 3)) data[at] = 1;
      if (Math.abs(x - centre) + Math.abs(y - Math.floor(height / 2)) < Math.floor(height / 4)) data[at] = 2;
      if (y >= height - 3 && y < height - 1 && x >= width - 6 && x < width - 2) data[at] = 2;
    }
  }
  return { width, height, data };
}

export function logits(step: number, index: number): Float32Array {
  const [h, w] = NETWORK;
  const plane = new Float32Array(h * w);
  const lost = index === 1 && (step === 3 || step === 4);
  for (let y = 0; y < h; y++) {
    for (let x = 0; x < w; x++) {
      plane[y * w + x] = (((x * 3 + y * 5 + step * 11 + index * 17) % 23) - 14) / 2 - (lost ? 100 : 0);
    }
  }
  return plane;
}

/** An array of golden.json. */
export function values(entry: { dtype: string; base64: string }): Uint8Array | Float32Array {
  const bytes = Uint8Array.from(Buffer.from(entry.base64, "base64"));
  return entry.dtype === "float32" ? new Float32Array(bytes.buffer) : bytes;
}
