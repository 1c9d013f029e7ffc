/** Masks of a video as COCO run lengths in one JSON file, as YouTube-VIS has them and `osmn segment --coco` writes. */

import type { Mask } from "./frames";
import { cocoRle } from "./rle";

export interface TrackOptions {
  name: string;
  width: number;
  height: number;
  length: number;
  /** Label and name of every object. */
  objects: readonly { label: number; name: string }[];
  maskAt: (index: number) => Mask | null;
  fileName: (index: number) => string;
}

/** Writes the file in pieces: run lengths of one frame at a time are in memory, and boxes and areas of one object. */
export async function writeTracks(options: TrackOptions, write: (text: string) => void | Promise<void>): Promise<void> {
  const { name, width, height, length } = options;
  const video = { id: 1, name, width, height, length };
  const names = Array.from({ length }, (_, index) => options.fileName(index));
  await write(
    `{"info":${JSON.stringify({ description: `masks of the objects in ${name}` })},` +
      `"videos":[${JSON.stringify({ ...video, file_names: names })}],` +
      `"categories":[{"id":1,"name":"object","supercategory":"object"}],"annotations":[`,
  );
  let id = 0;
  for (const object of options.objects) {
    const boxes: (number[] | null)[] = [];
    const areas: (number | null)[] = [];
    let begun = false;
    for (let index = 0; index < length; index++) {
      const mask = options.maskAt(index);
      const found = mask && cocoRle(mask, object.label);
      if (found && !begun) {
        begun = true;
        const head = JSON.stringify({
          id: ++id, video_id: 1, category_id: 1, label: object.label, object_name: object.name, score: 1,
          // How sure the network was of every frame is not kept.
          frame_scores: Array<null>(length).fill(null),
          iscrowd: 0, height, width, length,
        });
        await write(`${id > 1 ? "," : ""}${head.slice(0, -1)},"segmentations":[${"null,".repeat(index)}`);
        await write(JSON.stringify(found.rle));
      } else if (begun) {
        await write(`,${found ? JSON.stringify(found.rle) : "null"}`);
      }
      boxes.push(found ? found.box : null);
      areas.push(found ? found.area : null);
    }
    if (begun) await write(`],"bboxes":${JSON.stringify(boxes)},"areas":${JSON.stringify(areas)}}`);
  }
  await write("]}");
}
