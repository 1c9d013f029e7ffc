/** Correcting a mask by hand. */

import type { Mask } from "./frames";

/** Paints a stroke from one point to another with a round brush; label 0 erases, but only `only` where that is given. */
export function paint(
  mask: Mask,
  from: { x: number; y: number },
  to: { x: number; y: number },
  radius: number,
  label: number,
  only = 0,
): void {
  const { width, height, data } = mask;
  const [dx, dy] = [to.x - from.x, to.y - from.y];
  const length = dx * dx + dy * dy;
  const top = Math.max(0, Math.floor(Math.min(from.y, to.y) - radius));
  const bottom = Math.min(height - 1, Math.ceil(Math.max(from.y, to.y) + radius));
  const left = Math.max(0, Math.floor(Math.min(from.x, to.x) - radius));
  const right = Math.min(width - 1, Math.ceil(Math.max(from.x, to.x) + radius));
  for (let y = top; y <= bottom; y++) {
    for (let x = left; x <= right; x++) {
      const [px, py] = [x + 0.5 - from.x, y + 0.5 - from.y];
      const along = length ? Math.min(1, Math.max(0, (px * dx + py * dy) / length)) : 0;
      if ((px - along * dx) ** 2 + (py - along * dy) ** 2 > radius * radius) continue;
      const at = y * width + x;
      if (!only || data[at] === only) data[at] = label;
    }
  }
}
