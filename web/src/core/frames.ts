/** Frames and masks of the page, and resizing as the Python runtime does it. */

/** RGBA pixels of a video frame, row by row; the alpha is not looked at. */
export interface Frame {
  width: number;
  height: number;
  data: Uint8ClampedArray | Uint8Array;
}

/** A frame of which only the network's own size is kept: uint8 RGB [h, w, 3]. */
export interface SmallFrame {
  width: number;
  height: number;
  small: Uint8Array;
}

/** A label mask: 0 is background, the value k is object k. */
export interface Mask {
  width: number;
  height: number;
  data: Uint8Array;
}

export function emptyMask(width: number, height: number): Mask {
  return { width, height, data: new Uint8Array(width * height) };
}

/** The box around all labels and what is so near; null if there is no label. */
export function surroundings(
  labels: Uint8Array,
  width: number,
  height: number,
  reach: number,
): { x: number; y: number; width: number; height: number } | null {
  const [first, final] = [labels.findIndex((label) => label > 0), labels.findLastIndex((label) => label > 0)];
  if (first < 0) return null;
  const top = Math.floor(first / width);
  const bottom = Math.floor(final / width);
  let [left, right] = [width, -1];
  for (let y = top; y <= bottom; y++) {
    const row = y * width;
    let x = 0;
    while (x < left && !labels[row + x]) x++;
    left = Math.min(left, x);
    x = width - 1;
    while (x > right && !labels[row + x]) x--;
    right = Math.max(right, x);
  }
  const [x, y] = [Math.max(0, left - reach), Math.max(0, top - reach)];
  return {
    x,
    y,
    width: Math.min(width, right + reach + 1) - x,
    height: Math.min(height, bottom + reach + 1) - y,
  };
}

/** For every target coordinate the two source coordinates and the weight of the second. */
export interface Taps {
  first: Int32Array;
  second: Int32Array;
  weight: Float32Array;
}

export function taps(length: number, target: number): Taps {
  const first = new Int32Array(target);
  const second = new Int32Array(target);
  const weight = new Float32Array(target);
  const scale = length / target;
  for (let i = 0; i < target; i++) {
    const position = Math.min(Math.max(Math.fround((i + 0.5) * scale - 0.5), 0), length - 1);
    const floor = Math.min(Math.floor(position), length - 1);
    first[i] = floor;
    second[i] = Math.min(floor + 1, length - 1);
    weight[i] = position - floor;
  }
  return { first, second, weight };
}

/** For every target coordinate the source coordinates from `first` to `last`, and how much of each lies in its area. */
export interface Shares {
  first: Int32Array;
  last: Int32Array;
  /** The shares of all targets, one after the other; each target's add up to 1. */
  share: Float32Array;
  /** Where a target's begin. */
  start: Int32Array;
}

export function shares(length: number, target: number): Shares {
  const first = new Int32Array(target);
  const last = new Int32Array(target);
  const start = new Int32Array(target);
  const share: number[] = [];
  const scale = length / target;
  for (let i = 0; i < target; i++) {
    const begin = i * scale;
    const end = Math.min(begin + scale, length);
    first[i] = Math.floor(begin + 1e-6);
    last[i] = Math.min(Math.ceil(end - 1e-6), length) - 1;
    start[i] = share.length;
    for (let k = first[i]!; k <= last[i]!; k++) {
      share.push((Math.min(k + 1, end) - Math.max(k, begin)) / scale);
    }
  }
  return { first, last, share: Float32Array.from(share), start };
}

/** RGB uint8 [h, w, 3] of a frame at network size: `resize_frame` of `osmn_tf/resampling.py`. */
export function resizeFrame(frame: Frame, height: number, width: number): Uint8Array {
  const result = new Uint8Array(height * width * 3);
  // Half of the values lie between two integers more often than one thinks: NumPy rounds those to the even one, and so
  // does what is stored in an array of this type.
  const rounded = new Uint8ClampedArray(result.buffer);
  if (height <= frame.height && width <= frame.width) averageFrame(frame, height, width, rounded);
  else interpolateFrame(frame, height, width, rounded);
  return result;
}

function averageFrame(frame: Frame, height: number, width: number, result: Uint8ClampedArray): void {
  const { data } = frame;
  const rows = shares(frame.height, height);
  const columns = shares(frame.width, width);
  const length = frame.width * 3;
  const line = new Float64Array(length);
  let target = 0;
  for (let y = 0; y < height; y++) {
    const firstRow = rows.first[y]!;
    for (let row = firstRow, at = rows.start[y]!; row <= rows.last[y]!; row++, at++) {
      const weight = rows.share[at]!;
      let source = row * frame.width * 4;
      if (row === firstRow) {
        for (let i = 0; i < length; i += 3, source += 4) {
          line[i] = weight * data[source]!;
          line[i + 1] = weight * data[source + 1]!;
          line[i + 2] = weight * data[source + 2]!;
        }
      } else {
        for (let i = 0; i < length; i += 3, source += 4) {
          line[i]! += weight * data[source]!;
          line[i + 1]! += weight * data[source + 1]!;
          line[i + 2]! += weight * data[source + 2]!;
        }
      }
    }
    for (let x = 0; x < width; x++) {
      let red = 0;
      let green = 0;
      let blue = 0;
      const last = columns.last[x]!;
      let at = columns.start[x]!;
      for (let column = columns.first[x]!, i = column * 3; column <= last; column++, at++, i += 3) {
        const weight = columns.share[at]!;
        red += weight * line[i]!;
        green += weight * line[i + 1]!;
        blue += weight * line[i + 2]!;
      }
      result[target++] = red;
      result[target++] = green;
      result[target++] = blue;
    }
  }
}

function interpolateFrame(frame: Frame, height: number, width: number, result: Uint8ClampedArray): void {
  const { data } = frame;
  const stride = frame.width * 4;
  const rows = taps(frame.height, height);
  const columns = taps(frame.width, width);
  let target = 0;
  for (let y = 0; y < height; y++) {
    const top = rows.first[y]! * stride;
    const bottom = rows.second[y]! * stride;
    const wy = rows.weight[y]!;
    for (let x = 0; x < width; x++) {
      const left = columns.first[x]! * 4;
      const right = columns.second[x]! * 4;
      const wx = columns.weight[x]!;
      for (let c = 0; c < 3; c++) {
        const a = data[top + left + c]!;
        const b = data[bottom + left + c]!;
        const upper = a + wx * (data[top + right + c]! - a);
        const lower = b + wx * (data[bottom + right + c]! - b);
        result[target++] = upper + wy * (lower - upper);
      }
    }
  }
}

/** float32 [h, w] -> [height, width]. */
export function resizePlane(plane: Float32Array, h: number, w: number, height: number, width: number): Float32Array {
  if (h === height && w === width) return plane;
  const result = new Float32Array(height * width);
  const line = new Float32Array(w);
  const rows = taps(h, height);
  const columns = taps(w, width);
  for (let y = 0; y < height; y++) {
    blend(plane, rows, y, w, line);
    const start = y * width;
    for (let x = 0; x < width; x++) {
      const left = line[columns.first[x]!]!;
      result[start + x] = left + columns.weight[x]! * (line[columns.second[x]!]! - left);
    }
  }
  return result;
}

function blend(plane: Float32Array, rows: Taps, y: number, w: number, line: Float32Array): void {
  const top = rows.first[y]! * w;
  const bottom = rows.second[y]! * w;
  const weight = rows.weight[y]!;
  for (let x = 0; x < w; x++) {
    const upper = plane[top + x]!;
    line[x] = upper + weight * (plane[bottom + x]! - upper);
  }
}

/**
 * The labels that win: every pixel goes to the object with the largest logit, if that is above 0. Ties go to the first.
 * Whole planes at video size are never made.
 *
 * @param logits - float32 [h, w] of every object.
 * @param labels - of every object.
 */
export function mergeLogits(
  logits: readonly Float32Array[],
  labels: readonly number[],
  h: number,
  w: number,
  height: number,
  width: number,
): Uint8Array {
  const result = new Uint8Array(height * width);
  const best = new Float32Array(width);
  const line = new Float32Array(w);
  const rows = taps(h, height);
  const columns = taps(w, width);
  for (let y = 0; y < height; y++) {
    const start = y * width;
    best.fill(0);
    for (let object = 0; object < logits.length; object++) {
      const label = labels[object]!;
      blend(logits[object]!, rows, y, w, line);
      for (let x = 0; x < width; x++) {
        const left = line[columns.first[x]!]!;
        const value = left + columns.weight[x]! * (line[columns.second[x]!]! - left);
        if (value > best[x]!) {
          best[x] = value;
          result[start + x] = label;
        }
      }
    }
  }
  return result;
}
