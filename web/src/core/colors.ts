/** The colours of labels: the palette of PASCAL VOC in files, others on the screen. */

/** uint8 [256 * 3] RGB: the bits of the index, dealt in turn to red, green and blue. */
export const PALETTE = new Uint8Array(256 * 3);
for (let index = 0; index < 256; index++) {
  for (let bit = 0; bit < 8; bit++) {
    for (let channel = 0; channel < 3; channel++) {
      const position = 3 * bit + channel;
      if (position < 8) PALETTE[3 * index + channel]! |= ((index >> position) & 1) << (7 - bit);
    }
  }
}

/** On the screen the first labels have colours that few things in videos have, and that differ for the colour-blind. */
const VIVID: readonly [number, number, number][] = [
  [30, 136, 255],
  [255, 64, 156],
  [255, 193, 7],
  [0, 200, 120],
  [170, 90, 255],
  [255, 120, 30],
  [0, 205, 225],
  [190, 225, 40],
];

/** RGB of a label on the screen and in the overlay video. */
export function screenColor(label: number): [number, number, number] {
  if (!label) return [0, 0, 0];
  const vivid = VIVID[label - 1];
  if (vivid) return [...vivid];
  // The palette is dark, half of full brightness for many labels.
  const brighten = (value: number) => Math.min(255, Math.round(255 * (value / 205) ** 0.75));
  return [0, 1, 2].map((channel) => brighten(PALETTE[3 * label + channel]!)) as [number, number, number];
}
