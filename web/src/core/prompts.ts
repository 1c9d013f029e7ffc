/** From a box or a click to a mask: a rough shape first, then the network itself, a few times, on the same frame. */

import { UserError } from "./errors";
import { emptyMask, resizePlane, type Frame, type Mask } from "./frames";
import type { Segmenter } from "./segmenter";

export interface Box {
  x: number;
  y: number;
  width: number;
  height: number;
}

const PASSES = 3;
const BOX_MARGIN = 0.05; // an object may stick out of its box by so much of the box's sides
const CLICK_RADIUS = 0.04; // of the frame's height: what surely belongs to the object that was clicked
const MIN_SHARE = 0.05; // of the box: a smaller answer is none, and the mask before it is kept

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

/** Keeps of label 1 what is connected (by edges) to a pixel; returns the number of its pixels, 0 if it has not label 1. */
export function keepComponent(mask: Mask, x: number, y: number): number {
  const { width, height, data } = mask;
  const start = y * width + x;
  if (data[start] !== 1) return 0;
  const stack = [start];
  data[start] = 2;
  let count = 0;
  while (stack.length) {
    const at = stack.pop()!;
    count++;
    const column = at % width;
    for (const next of [
      column > 0 ? at - 1 : -1,
      column < width - 1 ? at + 1 : -1,
      at - width,
      at + width < width * height ? at + width : -1,
    ]) {
      if (next >= 0 && data[next] === 1) {
        data[next] = 2;
        stack.push(next);
      }
    }
  }
  for (let i = 0; i < data.length; i++) data[i] = data[i] === 2 ? 1 : 0;
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
  const mask = ellipse(frame.width, frame.height, inside);
  const [dx, dy] = [inside.width * BOX_MARGIN, inside.height * BOX_MARGIN];
  return refine(segmenter, frame, mask, MIN_SHARE * inside.width * inside.height, (answer) => {
    for (let y = 0; y < answer.height; y++) {
      const row = y * answer.width;
      if (y < Math.floor(inside.y - dy) || y > Math.floor(inside.y + inside.height + dy)) {
        answer.data.fill(0, row, row + answer.width);
        continue;
      }
      const left = Math.max(0, Math.floor(inside.x - dx));
      const right = Math.min(answer.width, Math.floor(inside.x + inside.width + dx) + 1);
      answer.data.fill(0, row, row + left);
      answer.data.fill(0, row + right, row + answer.width);
    }
  });
}

/** @throws UserError the click is outside of the frame. */
export async function maskFromClick(segmenter: Segmenter, frame: Frame, x: number, y: number): Promise<Prompted> {
  if (x < 0 || y < 0 || x >= frame.width || y >= frame.height) {
    throw new UserError("The click is outside of the picture. Click on the object.");
  }
  const radius = Math.max(2, CLICK_RADIUS * frame.height);
  const disc = { x: x - radius, y: y - radius, width: 2 * radius, height: 2 * radius };
  const [column, row] = [Math.floor(x), Math.floor(y)];
  return refine(segmenter, frame, ellipse(frame.width, frame.height, disc), 1, (answer) => {
    // What is not connected to the click is another object, unless the network says nothing of the click itself.
    const kept = { ...answer, data: answer.data.slice() };
    if (keepComponent(kept, column, row)) answer.data.set(kept.data);
  });
}

async function refine(
  segmenter: Segmenter,
  frame: Frame,
  rough: Mask,
  least: number,
  limit: (answer: Mask) => void,
): Promise<Prompted> {
  const [h, w] = segmenter.network.metadata.networkSize;
  let mask = rough;
  for (let pass = 0; pass < PASSES; pass++) {
    const logits = resizePlane(await segmenter.probe(frame, mask, 1), h, w, frame.height, frame.width);
    const answer = emptyMask(frame.width, frame.height);
    for (let i = 0; i < logits.length; i++) if (logits[i]! > 0) answer.data[i] = 1;
    limit(answer);
    let count = 0;
    for (let i = 0; i < answer.data.length; i++) count += answer.data[i]!;
    if (count >= Math.max(1, least)) mask = answer;
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
