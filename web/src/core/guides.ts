/** The guides of an object, as `osmn_tf/runtime/guides.py` makes them: the same numbers. */

import { resizePlane, shares, type Frame, type Mask } from "./frames";

const f32 = Math.fround;
const GUIDE_MARGIN = f32(0.03); // of the box's side, on each side
const MAD_TO_SIGMA = f32(1.4826); // the standard deviation of a normal distribution, per median absolute deviation
const MIN_SIGMA = f32(5); // pixels
const SEARCH_SHARE = 2; // on each side of the box, one part in so many of its own side
const SEARCH_MARGIN = 0.08; // of the frame's longer side, on each side, in addition
const FAR_LOGIT = -8; // at most, outside of the search window

/** Median of integers 0..n-1 that occur so often. Even numbers average the two middle ones. */
function median(counts: ArrayLike<number>): number {
  let total = 0;
  for (let i = 0; i < counts.length; i++) total += counts[i]!;
  const ranks = [Math.floor((total - 1) / 2), Math.floor(total / 2)];
  const found: number[] = [];
  let seen = 0;
  for (let i = 0; i < counts.length && found.length < 2; i++) {
    seen += counts[i]!;
    while (found.length < 2 && seen > ranks[found.length]!) found.push(i);
  }
  return (found[0]! + found[1]!) / 2;
}

/** The Gaussian along one axis, from the number of the object's pixels at every coordinate. */
function profile(counts: Int32Array): Float32Array {
  const centre = median(counts);
  const distances = new Int32Array(2 * counts.length); // twice the distances are integers
  for (let i = 0; i < counts.length; i++) distances[Math.abs(2 * i - 2 * centre)]! += counts[i]!;
  const mad = median(distances) / 2;
  const sigma = Math.max(f32(MAD_TO_SIGMA * mad), MIN_SIGMA);
  const result = new Float32Array(counts.length);
  for (let i = 0; i < counts.length; i++) result[i] = Math.exp(-((i - centre) ** 2) / (2 * sigma * sigma));
  return result;
}

/**
 * Says where the object was: float32 [h, w, channels]. The first channel is a Gaussian, all zeros for an empty mask; a
 * second one, where the network has it, is the mask itself.
 *
 * @param mask - at network resolution; non-zero is the object.
 */
export function spatialGuide(mask: Uint8Array, h: number, w: number, channels = 1): Float32Array {
  const rows = new Int32Array(h);
  const columns = new Int32Array(w);
  let any = false;
  for (let y = 0; y < h; y++) {
    for (let x = 0; x < w; x++) {
      if (mask[y * w + x]) {
        rows[y]!++;
        columns[x]!++;
        any = true;
      }
    }
  }
  const result = new Float32Array(h * w * channels);
  if (!any) return result;
  const vertical = profile(rows);
  const horizontal = profile(columns);
  for (let y = 0; y < h; y++) {
    for (let x = 0; x < w; x++) {
      const place = (y * w + x) * channels;
      result[place] = vertical[y]! * horizontal[x]!;
      if (channels > 1) result[place + 1] = mask[y * w + x] ? 1 : 0;
    }
  }
  return result;
}

/** First and last coordinate, within 0..length-1, where an object is looked for; null if it was nowhere. */
function searched(occupied: Uint8Array, margin: number): [number, number] | null {
  const first = occupied.indexOf(1);
  if (first < 0) return null;
  const final = occupied.lastIndexOf(1);
  const grown = Math.floor((final - first + 1) / SEARCH_SHARE) + margin;
  return [Math.max(first - grown, 0), Math.min(final + grown, occupied.length - 1)];
}

/**
 * Takes out of logits float32 [h, w], in place, what was found far from where the object was last, if anything was found
 * near: what looks like it and is far away is another one.
 *
 * @param mask - where it was last; non-zero is the object.
 */
export function searchNear(logits: Float32Array, mask: Uint8Array, h: number, w: number): void {
  const occupied = [new Uint8Array(h), new Uint8Array(w)] as const;
  for (let y = 0; y < h; y++) for (let x = 0; x < w; x++) if (mask[y * w + x]) occupied[0][y] = occupied[1][x] = 1;
  const margin = Math.round(SEARCH_MARGIN * Math.max(h, w));
  const rows = searched(occupied[0], margin);
  const columns = searched(occupied[1], margin);
  if (!rows || !columns) return;
  const isNear = (y: number, x: number) => y >= rows[0] && y <= rows[1] && x >= columns[0] && x <= columns[1];
  let found = false;
  for (let y = rows[0]; y <= rows[1] && !found; y++) {
    for (let x = columns[0]; x <= columns[1] && !found; x++) found = logits[y * w + x]! > 0;
  }
  if (!found) return;
  for (let y = 0; y < h; y++) {
    for (let x = 0; x < w; x++) if (!isNear(y, x)) logits[y * w + x] = Math.min(logits[y * w + x]!, FAR_LOGIT);
  }
}

/** Start and length of the padded crop along one axis, from whether any pixel of the object is there. */
function crop(occupied: Uint8Array): [number, number] {
  const first = occupied.indexOf(1);
  const final = occupied.lastIndexOf(1);
  // The release crops [first, final): the last row and column of the box are lost.
  const side = Math.max(final - first, 1);
  const margin = Math.floor(f32(GUIDE_MARGIN * side));
  return [first - margin, side + 2 * margin];
}

interface CropTaps {
  index: [Int32Array, Int32Array];
  weight: [Float32Array, Float32Array];
  nearest: Int32Array; // -1 beyond the frame
}

function cropTaps(start: number, side: number, size: number, length: number): CropTaps {
  const index: [Int32Array, Int32Array] = [new Int32Array(size), new Int32Array(size)];
  const weight: [Float32Array, Float32Array] = [new Float32Array(size), new Float32Array(size)];
  const nearest = new Int32Array(size);
  for (let i = 0; i < size; i++) {
    const position = f32(f32((i + 0.5) * side) / size);
    const source = f32(Math.min(Math.max(f32(position - 0.5), 0), side - 1) + start);
    for (const tap of [0, 1] as const) {
      const pixel = Math.floor(source) + tap;
      weight[tap][i] = pixel >= 0 && pixel < length ? 1 - Math.abs(source - pixel) : 0;
      index[tap][i] = Math.min(Math.max(pixel, 0), length - 1);
    }
    const at = Math.floor(f32(position + start));
    nearest[i] = at >= 0 && at < length ? at : -1;
  }
  return { index, weight, nearest };
}

/**
 * The object cut out of its frame: float32 RGB [size, size, 3], 0..255.
 *
 * @param mask - of the frame's size.
 * @param label - the object's value in it.
 */
export function visualGuide(
  frame: Frame,
  mask: Mask,
  label: number,
  size: number,
  background: readonly [number, number, number],
): Float32Array {
  const { width, height, data } = frame;
  const rowUsed = new Uint8Array(height);
  const columnUsed = new Uint8Array(width);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (mask.data[y * width + x] === label) rowUsed[y] = columnUsed[x] = 1;
    }
  }
  const rows = cropTaps(...crop(rowUsed), size, height);
  const columns = cropTaps(...crop(columnUsed), size, width);
  const result = new Float32Array(size * size * 3);
  for (let y = 0; y < size; y++) {
    const row = rows.nearest[y]!;
    for (let x = 0; x < size; x++) {
      const target = (y * size + x) * 3;
      const column = columns.nearest[x]!;
      const own = row >= 0 && column >= 0 && mask.data[row * width + column] === label;
      for (let c = 0; c < 3; c++) {
        if (!own) {
          result[target + c] = background[c]!;
          continue;
        }
        let value = 0;
        for (const j of [0, 1] as const) {
          const wx = columns.weight[j][x]!;
          const at = columns.index[j][x]! * 4 + c;
          const upper = data[rows.index[0][y]! * width * 4 + at]! * rows.weight[0][y]!;
          const lower = data[rows.index[1][y]! * width * 4 + at]! * rows.weight[1][y]!;
          value += (upper + lower) * wx;
        }
        result[target + c] = value;
      }
    }
  }
  return result;
}

/**
 * An object's mask at network resolution: `resize_mask` of `osmn_tf/resampling.py`. A pixel is set where the object
 * covers at least half of it; what covers none by half keeps the pixels that it touches.
 *
 * @returns uint8 [h, w] of 0 and 1; empty only where the object has no pixel.
 */
export function networkMask(mask: Mask, label: number, h: number, w: number): Uint8Array {
  const covered = coverage(mask, label, h, w);
  const result = new Uint8Array(h * w);
  let any = false;
  for (let i = 0; i < covered.length; i++) if (covered[i]! >= 0.5) any = !!(result[i] = 1);
  if (!any) for (let i = 0; i < covered.length; i++) if (covered[i]! > 0) result[i] = 1;
  return result;
}

/** How much of every pixel an object covers, float32 [h, w]. */
function coverage(mask: Mask, label: number, h: number, w: number): Float32Array {
  const { width, height } = mask;
  const occupied = new Float32Array(width * height);
  for (let i = 0; i < occupied.length; i++) occupied[i] = mask.data[i] === label ? 1 : 0;
  if (h > height || w > width) return resizePlane(occupied, height, width, h, w);
  const rows = shares(height, h);
  const columns = shares(width, w);
  const result = new Float32Array(h * w);
  const line = new Float32Array(width);
  for (let y = 0; y < h; y++) {
    line.fill(0);
    for (let row = rows.first[y]!, at = rows.start[y]!; row <= rows.last[y]!; row++, at++) {
      for (let x = 0; x < width; x++) line[x]! += rows.share[at]! * occupied[row * width + x]!;
    }
    for (let x = 0; x < w; x++) {
      let sum = 0;
      for (let column = columns.first[x]!, at = columns.start[x]!; column <= columns.last[x]!; column++, at++) {
        sum += columns.share[at]! * line[column]!;
      }
      result[y * w + x] = f32(sum);
    }
  }
  return result;
}
