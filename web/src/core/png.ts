/** PNG files: masks with the palette of PASCAL VOC and DAVIS, as `osmn segment` writes them, and cut-outs. */

import { crc32 } from "./crc32";
import type { Mask } from "./frames";
import { PALETTE } from "./colors";

const SIGNATURE = Uint8Array.of(137, 80, 78, 71, 13, 10, 26, 10);

async function deflate(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array> {
  // The format "deflate" is zlib's, which PNG wants.
  const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function chunk(kind: string, content: Uint8Array): Uint8Array[] {
  const name = new TextEncoder().encode(kind);
  const [length, checksum] = [new Uint8Array(4), new Uint8Array(4)];
  new DataView(length.buffer).setUint32(0, content.length);
  new DataView(checksum.buffer).setUint32(0, crc32(name, content));
  return [length, name, content, checksum];
}

function header(width: number, height: number, colorType: number): Uint8Array {
  const bytes = new Uint8Array(13);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  bytes[8] = 8; // bits
  bytes[9] = colorType;
  return bytes;
}

function join(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const result = new Uint8Array(parts.reduce((total, part) => total + part.length, 0));
  let at = 0;
  for (const part of parts) {
    result.set(part, at);
    at += part.length;
  }
  return result;
}

/** A palette PNG: the indices are the labels. */
export async function maskPng(mask: Mask): Promise<Uint8Array<ArrayBuffer>> {
  const rows = new Uint8Array((mask.width + 1) * mask.height); // each row starts with its filter type, 0: none
  for (let y = 0; y < mask.height; y++) {
    rows.set(mask.data.subarray(y * mask.width, (y + 1) * mask.width), y * (mask.width + 1) + 1);
  }
  return join([
    SIGNATURE,
    ...chunk("IHDR", header(mask.width, mask.height, 3)),
    ...chunk("PLTE", PALETTE),
    ...chunk("IDAT", await deflate(rows)),
    ...chunk("IEND", new Uint8Array()),
  ]);
}

/** An RGBA PNG. Each row is stored as differences to the pixel on its left, which compresses photographs better. */
export async function rgbaPng(
  width: number,
  height: number,
  data: Uint8Array | Uint8ClampedArray,
): Promise<Uint8Array<ArrayBuffer>> {
  const stride = width * 4;
  const rows = new Uint8Array((stride + 1) * height);
  for (let y = 0; y < height; y++) {
    const target = y * (stride + 1);
    const source = y * stride;
    rows[target] = 1; // filter type: left
    for (let i = 0; i < stride; i++) {
      rows[target + 1 + i] = data[source + i]! - (i >= 4 ? data[source + i - 4]! : 0);
    }
  }
  return join([
    SIGNATURE,
    ...chunk("IHDR", header(width, height, 6)),
    ...chunk("IDAT", await deflate(rows)),
    ...chunk("IEND", new Uint8Array()),
  ]);
}
