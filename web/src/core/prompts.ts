/**
 * From a box or a click to a mask: a rough shape first, then the network itself, a few times, on the same frame. Of a box it
 * sees what is around it, at that part's full resolution, and so of a small object that it has found where the click was.
 */

import { UserError } from "./errors";
import { emptyMask, resizePlane, surroundings, type Frame, type Mask } from "./frames";
import type { Segmenter } from "./segmenter";

export interface Box {
  x: number;
  y: number;
  width: number;
  height: number;
}

const PASSES = 3;
const SETTLED = 0.002; // of the mask: fewer pixels than this change, and another pass would change nothing
const BOX_MARGIN = 0.05; // an object may stick out of its box by so much of the box's sides
const CLICK_RADIUS = 0.04; // of the frame's height: what surely belongs to the object that was clicked
const MIN_SHARE = 0.05; // of the rough shape: a smaller answer is none, and the mask before it is kept
const SURROUNDINGS = 1.6; // sides of the part of the frame that the network sees, in sides of the box
const SMALL_PART = 0.5; // of the frame's area: a part that is larger would hardly have more pixels

/** The ellipse inside a box, as label 1. */
export function ellipse(width: number, height: number, box: Box): Mask {
  const mask = emptyMask(width, height);
  const [rx, ry] = [box.width / 2, box.height / 2];
  const [cx, cy] = [box.x + rx, box.y + ry];
  const bottom = Math.min(height - 1, Math.ceil(box.y + box.height));
  for (let y = Math.max(0, Math.floor(box.y)); y <= bottom; y++) {
    const span = 1 - ((y + 0.5 - cy) / ry) ** 2;
    if (span < 0) continue;
    const half = rx * Math.sqrt(span);
    const from = Math.max(0, Math.ceil(cx - half - 0.5));
    const to = Math.min(width - 1, Math.floor(cx + half - 0.5));
    if (from <= to) mask.data.fill(1, y * width + from, y * width + to + 1);
  }
  return mask;
}

/** Keeps of label 1 what is connected (by edges) to any of these pixels; returns how much that is, 0 if none has label 1. */
export function keepConnected(mask: Mask, seeds: readonly number[]): number {
  const { width, height, data } = mask;
  const stack: number[] = [];
  const take = (at: number) => {
    if (data[at] !== 1) return;
    data[at] = 2;
    stack.push(at);
  };
  for (const seed of seeds) take(seed);
  let count = 0;
  while (stack.length) {
    const at = stack.pop()!;
    count++;
    const column = at % width;
    if (column > 0) take(at - 1);
    if (column < width - 1) take(at + 1);
    if (at >= width) take(at - width);
    if (at + width < width * height) take(at + width);
  }
  if (count) for (let i = 0; i < data.length; i++) data[i] = data[i] === 2 ? 1 : 0;
  return count;
}

export interface Prompted {
  /** Label 1 is the object. */
  mask: Mask;
  /** The network found nothing: the mask is the rough shape. */
  rough: boolean;
}

/** @throws UserError the box lies outside of the frame, or is smaller than two pixels. */
export async function maskFromBox(segmenter: Segmenter, frame: Frame, box: Box): Promise<Prompted> {
  const inside = clip(box, frame);
  if (!inside) throw new UserError("The box lies outside of the picture, or is too small. Draw it around the object.");
  const part = around(inside, frame, segmenter.network.networkSize);
  const here = { ...inside, x: inside.x - part.x, y: inside.y - part.y };
  const rough = ellipse(part.width, part.height, here);
  const [dx, dy] = [here.width * BOX_MARGIN, here.height * BOX_MARGIN];
  const found = await refine(segmenter, cut(frame, part, 4), rough, (answer) => {
    for (let y = 0; y < answer.height; y++) {
      const row = y * answer.width;
      if (y < Math.floor(here.y - dy) || y > Math.floor(here.y + here.height + dy)) {
        answer.data.fill(0, row, row + answer.width);
        continue;
      }
      const left = Math.max(0, Math.floor(here.x - dx));
      const right = Math.min(answer.width, Math.floor(here.x + here.width + dx) + 1);
      answer.data.fill(0, row, row + left);
      answer.data.fill(0, row + right, row + answer.width);
    }
  });
  return { ...found, mask: whole(found.mask, part, frame) };
}

/**
 * @param before - label 1 is what the person has marked of the object in this frame: every click adds to it.
 * @throws UserError the click is outside of the frame.
 */
export async function maskFromClick(
  segmenter: Segmenter,
  frame: Frame,
  x: number,
  y: number,
  before: Mask | null = null,
): Promise<Prompted> {
  const { width, height } = frame;
  if (x < 0 || y < 0 || x >= width || y >= height) {
    throw new UserError("The click is outside of the picture. Click on the object.");
  }
  const radius = Math.max(2, CLICK_RADIUS * height);
  const rough = ellipse(width, height, { x: x - radius, y: y - radius, width: 2 * radius, height: 2 * radius });
  const clicked = before ? { ...before, data: before.data.slice() } : emptyMask(width, height);
  for (let at = 0; at < clicked.data.length; at++) if (clicked.data[at] === 1) rough.data[at] = 1;
  clicked.data[Math.floor(y) * width + Math.floor(x)] = 1;
  // What is not connected to what was clicked is another object, unless the network says nothing of the clicks themselves.
  const keep = (seeds: Mask) => {
    const places = [...seeds.data.keys()].filter((at) => seeds.data[at] === 1);
    return (answer: Mask) => void keepConnected(answer, places);
  };
  const found = await refine(segmenter, frame, rough, keep(clicked));
  const box = found.rough ? null : surroundings(found.mask.data, width, height, 0);
  const part = box && around(box, frame, segmenter.network.networkSize);
  if (!part || part.width * part.height > SMALL_PART * width * height) return found;
  const closer = await refine(segmenter, cut(frame, part, 4), cut(found.mask, part, 1), keep(cut(clicked, part, 1)));
  return { mask: whole(closer.mask, part, frame), rough: false };
}

/** The part of a frame around a box, of the network's proportions if the frame has room; whole pixels. */
function around(box: Box, frame: { width: number; height: number }, [h, w]: readonly [number, number]): Box {
  let [rows, columns] = [SURROUNDINGS * box.height, SURROUNDINGS * box.width];
  [rows, columns] = [Math.max(rows, (columns * h) / w), Math.max(columns, (rows * w) / h)];
  const [height, width] = [Math.min(frame.height, Math.round(rows)), Math.min(frame.width, Math.round(columns))];
  const top = Math.round(box.y + box.height / 2 - height / 2);
  const left = Math.round(box.x + box.width / 2 - width / 2);
  return {
    x: Math.min(Math.max(left, 0), frame.width - width),
    y: Math.min(Math.max(top, 0), frame.height - height),
    width,
    height,
  };
}

function cut({ width, data }: Frame | Mask, part: Box, channels: number): Frame & Mask {
  const result = new Uint8Array(part.width * part.height * channels);
  for (let row = 0; row < part.height; row++) {
    const from = ((part.y + row) * width + part.x) * channels;
    result.set(data.subarray(from, from + part.width * channels), row * part.width * channels);
  }
  return { width: part.width, height: part.height, data: result };
}

/** A part's mask in the size of the frame. */
function whole(mask: Mask, part: Box, { width, height }: { width: number; height: number }): Mask {
  const result = emptyMask(width, height);
  for (let row = 0; row < part.height; row++) {
    result.data.set(mask.data.subarray(row * part.width, (row + 1) * part.width), (part.y + row) * width + part.x);
  }
  return result;
}

async function refine(
  segmenter: Segmenter,
  frame: Frame,
  rough: Mask,
  limit: (answer: Mask) => void,
): Promise<Prompted> {
  const [h, w] = segmenter.network.networkSize;
  const least = MIN_SHARE * rough.data.reduce((sum, value) => sum + value, 0);
  let mask = rough;
  for (let pass = 0; pass < PASSES; pass++) {
    const logits = resizePlane(await segmenter.probe(frame, mask, 1), h, w, frame.height, frame.width);
    const answer = emptyMask(frame.width, frame.height);
    for (let i = 0; i < logits.length; i++) if (logits[i]! > 0) answer.data[i] = 1;
    limit(answer);
    let [count, different] = [0, 0];
    for (let i = 0; i < answer.data.length; i++) {
      count += answer.data[i]!;
      if (answer.data[i] !== mask.data[i]) different++;
    }
    if (count < Math.max(1, least)) break;
    mask = answer;
    if (different < SETTLED * count) break;
  }
  return { mask, rough: mask === rough };
}

function clip(box: Box, frame: Frame): Box | null {
  const left = Math.max(0, Math.min(box.x, box.x + box.width));
  const top = Math.max(0, Math.min(box.y, box.y + box.height));
  const right = Math.min(frame.width, Math.max(box.x, box.x + box.width));
  const bottom = Math.min(frame.height, Math.max(box.y, box.y + box.height));
  return right - left >= 2 && bottom - top >= 2
    ? { x: left, y: top, width: right - left, height: bottom - top }
    : null;
}
