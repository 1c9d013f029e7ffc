/** Label masks as runs, row by row: what the page keeps of every frame, and COCO's run lengths of one object. */

import type { Mask } from "./frames";

/** Label and length of every run, lengths as LEB128: some kilobytes a frame at 480 lines. */
export function packMask(mask: Mask): Uint8Array<ArrayBuffer> {
  const { data } = mask;
  let bytes = new Uint8Array(1024);
  let used = 0;
  for (let i = 0; i < data.length; ) {
    const label = data[i]!;
    let end = i + 1;
    while (end < data.length && data[end] === label) end++;
    if (used + 6 > bytes.length) {
      const larger = new Uint8Array(bytes.length * 2);
      larger.set(bytes);
      bytes = larger;
    }
    bytes[used++] = label;
    let length = end - i;
    while (length >= 128) {
      bytes[used++] = (length & 127) | 128;
      length = Math.floor(length / 128);
    }
    bytes[used++] = length;
    i = end;
  }
  return bytes.slice(0, used);
}

export function unpackMask(bytes: Uint8Array, width: number, height: number): Mask {
  const data = new Uint8Array(width * height);
  let at = 0;
  let place = 0;
  while (at < bytes.length) {
    const label = bytes[at++]!;
    let length = 0;
    let scale = 1;
    for (;;) {
      const byte = bytes[at++]!;
      length += (byte & 127) * scale;
      if (byte < 128) break;
      scale *= 128;
    }
    if (label) data.fill(label, place, place + length);
    place += length;
  }
  return { width, height, data };
}

export interface CocoRle {
  size: [number, number];
  counts: string;
}

/** One object as COCO's compressed run lengths, as pycocotools writes them, with its box and area; null if invisible. */
export function cocoRle(
  mask: Mask,
  label: number,
): { rle: CocoRle; box: [number, number, number, number]; area: number } | null {
  const { width, height, data } = mask;
  const runs: number[] = [];
  let value = false;
  let length = 0;
  let area = 0;
  let [left, top, right, bottom] = [width, height, -1, -1];
  for (let x = 0; x < width; x++) {
    for (let y = 0, at = x; y < height; y++, at += width) {
      const inside = data[at] === label;
      if (inside) {
        area++;
        if (x < left) left = x;
        if (x > right) right = x;
        if (y < top) top = y;
        if (y > bottom) bottom = y;
      }
      if (inside !== value) {
        runs.push(length);
        length = 0;
        value = inside;
      }
      length++;
    }
  }
  if (!area) return null;
  runs.push(length);
  return {
    rle: { size: [height, width], counts: compress(runs) },
    box: [left, top, right - left + 1, bottom - top + 1],
    area,
  };
}

/** pycocotools' text form: differences to the run before the last, five bits a character. */
function compress(runs: readonly number[]): string {
  const codes: number[] = [];
  for (let i = 0; i < runs.length; i++) {
    let value = i > 2 ? runs[i]! - runs[i - 2]! : runs[i]!;
    for (let more = true; more; ) {
      let code = value & 31;
      value >>= 5;
      more = code & 16 ? value !== -1 : value !== 0;
      if (more) code |= 32;
      codes.push(code + 48);
    }
  }
  let text = "";
  for (let i = 0; i < codes.length; i += 8192) text += String.fromCharCode(...codes.slice(i, i + 8192));
  return text;
}
