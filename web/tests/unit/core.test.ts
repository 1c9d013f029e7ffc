/** The page's arithmetic beside that of the Python runtime. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { paint } from "../../src/core/brush";
import { PALETTE, screenColor } from "../../src/core/colors";
import { writeTracks } from "../../src/core/coco";
import { sentence, UserError } from "../../src/core/errors";
import { emptyMask, mergeLogits, resizeFrame, resizePlane, type Mask } from "../../src/core/frames";
import { networkMask, searchNear, spatialGuide, visualGuide } from "../../src/core/guides";
import { fitted, readMetadata } from "../../src/core/metadata";
import { ellipse, keepConnected, maskFromBox, maskFromClick } from "../../src/core/prompts";
import { packMask, unpackMask } from "../../src/core/rle";
import { labelsIn, Segmenter, type Held, type Network } from "../../src/core/segmenter";
import { BACKGROUND, FRAME, golden, GUIDE_SIZE, labels, logits, NETWORK, picture, values } from "./inputs";

function close(found: ArrayLike<number>, expected: ArrayLike<number>, tolerance: number): void {
  assert.equal(found.length, expected.length);
  let worst = 0;
  for (let i = 0; i < found.length; i++) worst = Math.max(worst, Math.abs(found[i]! - expected[i]!));
  assert.ok(worst <= tolerance, `differs by ${worst}, at most ${tolerance} expected`);
}

const same = (found: ArrayLike<number>, expected: ArrayLike<number>) => close(found, expected, 0);

test("frames are resized as in Python", () => {
  const frame = picture(...FRAME, 0);
  // OpenCV computes in float32, this in float64: a value that is half an integer for one may not be for the other.
  close(resizeFrame(frame, ...NETWORK), values(golden.resize_frame_smaller), 1);
  close(resizeFrame(frame, 50, 70), values(golden.resize_frame_larger), 1);
  const different = resizeFrame(frame, 50, 70).filter((value, i) => value !== values(golden.resize_frame_larger)[i]);
  assert.ok(different.length <= 0.001 * 50 * 70 * 3, `${different.length} values differ`);
});

test("a frame of the network's size stays as it is", () => {
  const frame = picture(...NETWORK, 1);
  const rgb = resizeFrame(frame, ...NETWORK);
  assert.deepEqual(Array.from(rgb.subarray(0, 6)), [...frame.data.subarray(0, 3), ...frame.data.subarray(4, 7)]);
});

test("logits are resized as in Python", () => {
  // OpenCV has coordinates of up to 32 in 24 bits; between neighbours the logits differ by 11.
  close(resizePlane(logits(0, 0), ...NETWORK, ...FRAME), values(golden.resize_plane), 32 * 2 ** -23 * 11);
});

test("masks at network size are those of Python", () => {
  const mask = labels(...FRAME);
  for (const label of [1, 2]) same(networkMask(mask, label, ...NETWORK), values(golden.network_mask[label]));
  const lonely = emptyMask(300, 200);
  lonely.data[101 * 300 + 203] = 2;
  same(networkMask(lonely, 2, ...NETWORK), values(golden.network_mask_of_a_lost_pixel));
});

test("spatial guides are those of Python", () => {
  const mask = labels(...FRAME);
  const point = new Uint8Array(NETWORK[0] * NETWORK[1]);
  point[5 * NETWORK[1] + 30] = 1;
  const masks: Record<string, Uint8Array> = {
    1: networkMask(mask, 1, ...NETWORK),
    2: networkMask(mask, 2, ...NETWORK),
    empty: new Uint8Array(NETWORK[0] * NETWORK[1]),
    point,
  };
  for (const [name, small] of Object.entries(masks)) {
    close(spatialGuide(small, ...NETWORK), values(golden.spatial_guide[name]), 1e-6);
  }
});

test("a second channel of the spatial guide is the mask", () => {
  const small = networkMask(labels(...FRAME), 1, ...NETWORK);
  const one = spatialGuide(small, ...NETWORK);
  const two = spatialGuide(small, ...NETWORK, 2);
  same(two.filter((_, i) => i % 2 === 0), one);
  same(two.filter((_, i) => i % 2 === 1), small);
});

test("visual guides are those of Python", () => {
  const frame = picture(...FRAME, 0);
  for (const label of [1, 2]) {
    const guide = visualGuide(frame, labels(...FRAME), label, GUIDE_SIZE, BACKGROUND);
    close(guide, values(golden.visual_guide[label]), 255 * 2 ** -20);
  }
});

class MadeUpNetwork implements Network<Held> {
  guides: Float32Array[] = [];
  alive = 0;
  readonly guideChannels = 1;
  readonly networkSize = NETWORK;
  readonly metadata = {
    networkSize: NETWORK,
    guideSize: GUIDE_SIZE,
    guideBackground: BACKGROUND,
    state: new Map([["memory", [2, 2, 1]]]),
  } as Network["metadata"];

  constructor(private readonly objects: number, matches = false) {
    this.metadata.matches = matches;
  }

  fit(): void {}

  async modulate(): Promise<Float32Array> {
    return new Float32Array(3);
  }

  async encode(): Promise<void> {}

  async step(guide: Float32Array): Promise<{ logits: Float32Array; state: Held }> {
    const call = this.guides.length;
    this.guides.push(guide);
    this.alive++;
    const state = { delete: () => void this.alive-- };
    return { logits: logits(Math.floor(call / this.objects), call % this.objects), state };
  }
}

test("a video is tracked as in Python, with an object that is lost", async () => {
  const network = new MadeUpNetwork(2);
  const segmenter = new Segmenter(network);
  const masks: Mask[] = [await segmenter.add(picture(...FRAME, 0), labels(...FRAME))];
  for (let step = 1; step < golden.track.masks.length; step++) masks.push(await segmenter.step(picture(...FRAME, step)));
  for (const [step, mask] of masks.entries()) {
    same(mask.data, values(golden.track.masks[step]));
    for (const index of [0, 1]) close(network.guides[2 * step + index]!, values(golden.track.guides[step][index]), 1e-6);
  }
  segmenter.reset();
  assert.equal(network.alive, 0, "states that nobody freed");
});

test("a network that matches is looked at near the objects only, as in Python", async () => {
  const segmenter = new Segmenter(new MadeUpNetwork(2, true));
  const masks: Mask[] = [await segmenter.add(picture(...FRAME, 0), labels(...FRAME))];
  for (let step = 1; step < golden.track_near.masks.length; step++) {
    masks.push(await segmenter.step(picture(...FRAME, step)));
  }
  for (const [step, mask] of masks.entries()) same(mask.data, values(golden.track_near.masks[step]));
  assert.notDeepEqual(masks[2]!.data, values(golden.track.masks[2]));
});

test("what is far counts where nothing is near", () => {
  const [h, w] = [20, 30]; // the window: half the side and two pixels on each side
  const mask = new Uint8Array(h * w);
  for (let y = 8; y < 12; y++) mask.fill(1, y * w + 6, y * w + 12);
  const said = (...places: [number, number][]) => {
    const logits = new Float32Array(h * w).fill(-1);
    for (const [y, x] of places) logits[y * w + x] = 3;
    return logits;
  };
  const far: [number, number][] = [[3, 9], [9, 0], [9, 17], [16, 29]];
  const near: [number, number][] = [[4, 1], [15, 16]];
  const found = said(...far, ...near);
  searchNear(found, mask, h, w);
  for (const [y, x] of near) assert.equal(found[y * w + x], 3);
  for (const [y, x] of far) assert.equal(found[y * w + x], -8);
  assert.deepEqual([found[5 * w + 3], found[9 * w + 20]], [-1, -8]);
  for (const unseen of [mask, new Uint8Array(h * w)]) {
    const alone = unseen === mask ? said(...far) : found.slice();
    const before = alone.slice();
    searchNear(alone, unseen, h, w);
    same(alone, before);
  }
});

test("ties go to the background, and between objects to the first", () => {
  const planes = [Float32Array.of(0, 1, 1, -1), Float32Array.of(0, 1, 2, 3)];
  assert.deepEqual(Array.from(mergeLogits(planes, [4, 9], 1, 4, 1, 4)), [0, 4, 9, 9]);
});

test("a box and a click become what the network says, inside the box and around the click", async () => {
  const frame = picture(...FRAME, 0);
  const segmenter = new Segmenter(new MadeUpNetwork(1));
  const boxed = await maskFromBox(segmenter, frame, { x: 10, y: 10, width: 20, height: 15 });
  assert.equal(boxed.rough, false);
  for (let at = 0; at < boxed.mask.data.length; at++) {
    const [x, y] = [at % FRAME[1], Math.floor(at / FRAME[1])];
    if (boxed.mask.data[at]) assert.ok(x >= 9 && x <= 31 && y >= 9 && y <= 25, `${x}, ${y}`);
  }
  const clicked = await maskFromClick(segmenter, frame, 20.4, 18.7);
  assert.ok(clicked.mask.data.some((value) => value === 1));
  await assert.rejects(maskFromBox(segmenter, frame, { x: 60, y: 5, width: 9, height: 9 }), /outside of the picture/);
  await assert.rejects(maskFromBox(segmenter, frame, { x: 5, y: 5, width: 1, height: 9 }), /too small/);
  await assert.rejects(maskFromClick(segmenter, frame, -1, 5), /outside of the picture/);
});

test("a click adds to what is marked", async () => {
  const two = new MadeUpNetwork(1);
  const said = new Float32Array(NETWORK[0] * NETWORK[1]).fill(-1);
  const put = (x: number) => {
    for (let row = 4; row < 20; row++) said.fill(1, row * NETWORK[1] + x, row * NETWORK[1] + x + 5);
  };
  put(4);
  put(20);
  two.step = async () => ({ logits: said, state: { delete() {} } });
  const segmenter = new Segmenter(two);
  const frame = picture(...FRAME, 0);
  const at = (x: number, y: number) => Math.floor((y * FRAME[0]) / NETWORK[0]) * FRAME[1] + Math.floor((x * FRAME[1]) / NETWORK[1]);
  const click = (x: number, y: number, before?: Mask) =>
    maskFromClick(segmenter, frame, (x * FRAME[1]) / NETWORK[1], (y * FRAME[0]) / NETWORK[0], before);
  const left = (await click(6.5, 11)).mask;
  assert.deepEqual([left.data[at(6.5, 11)], left.data[at(22.5, 11)]], [1, 0]);
  const both = (await click(22.5, 11, left)).mask;
  assert.deepEqual([both.data[at(6.5, 11)], both.data[at(22.5, 11)]], [1, 1]);
  same((await click(6.5, 11, both)).mask.data, both.data);
});

/** Of a picture in which every pixel's colour is its place, what lies in an area: as exactly as the network's size allows. */
class Seeing extends MadeUpNetwork {
  private small: Uint8Array = new Uint8Array();

  constructor(private readonly area: { x: number; y: number; width: number; height: number }) {
    super(1);
  }

  override async encode(small: Uint8Array = new Uint8Array()): Promise<void> {
    this.small = small;
  }

  override async step(): Promise<{ logits: Float32Array; state: Held }> {
    const { x, y, width, height } = this.area;
    const result = new Float32Array(NETWORK[0] * NETWORK[1]).map((_, at) => {
      const [column, row] = [this.small[3 * at]!, this.small[3 * at + 1]!];
      return column >= x && column < x + width && row >= y && row < y + height ? 1 : -1;
    });
    return { logits: result, state: { delete() {} } };
  }
}

test("a box's surroundings and a small object that was clicked are seen at the frame's own resolution", async () => {
  const [height, width] = [160, 240];
  const frame = { width, height, data: new Uint8Array(width * height * 4) };
  for (let at = 0; at < width * height; at++) frame.data.set([at % width, Math.floor(at / width)], 4 * at);
  const overlap = (mask: Mask, area: { x: number; y: number; width: number; height: number }) => {
    let [both, either] = [0, 0];
    for (let at = 0; at < mask.data.length; at++) {
      const [x, y] = [(at % width) - area.x, Math.floor(at / width) - area.y];
      const inside = x >= 0 && x < area.width && y >= 0 && y < area.height;
      both += Number(inside && mask.data[at] === 1);
      either += Number(inside || mask.data[at] === 1);
    }
    return both / either;
  };
  // The network has 32 x 24 pixels: one is 7.5 x 6.7 of the frame's, and 2.2 x 2.2 of those around the small object.
  for (const area of [{ x: 171, y: 93, width: 43, height: 29 }, { x: 3, y: 2, width: 37, height: 31 }]) {
    const segmenter = new Segmenter(new Seeing(area));
    const boxed = await maskFromBox(segmenter, frame, area);
    const clicked = await maskFromClick(segmenter, frame, area.x + 20, area.y + 14);
    for (const { mask, rough } of [boxed, clicked]) {
      assert.deepEqual([mask.width, mask.height, rough], [width, height, false]);
      assert.ok(overlap(mask, area) > 0.9, `${overlap(mask, area)}`);
    }
  }
  const large = { x: 11, y: 13, width: 200, height: 130 };
  assert.ok(overlap((await maskFromClick(new Segmenter(new Seeing(large)), frame, 100, 80)).mask, large) > 0.9);
});

test("a network that says nothing leaves the rough shape, and says so", async () => {
  const silent = new MadeUpNetwork(1);
  silent.step = async () => ({ logits: new Float32Array(NETWORK[0] * NETWORK[1]).fill(-1), state: { delete() {} } });
  const box = { x: 10, y: 10, width: 20, height: 15 };
  const { mask, rough } = await maskFromBox(new Segmenter(silent), picture(...FRAME, 0), box);
  assert.equal(rough, true);
  same(mask.data, ellipse(FRAME[1], FRAME[0], box).data);
});

test("an ellipse fills pi / 4 of its box, and what is not connected is cut off", () => {
  const mask = ellipse(200, 100, { x: 20, y: 10, width: 100, height: 60 });
  const area = mask.data.reduce((sum, value) => sum + value, 0);
  assert.ok(Math.abs(area / (100 * 60) - Math.PI / 4) < 0.01);
  mask.data[99 * 200 + 199] = 1;
  const corner = 99 * 200 + 199;
  assert.equal(keepConnected({ ...mask, data: mask.data.slice() }, [40 * 200 + 70, corner]), area + 1);
  assert.equal(keepConnected(mask, [40 * 200 + 70]), area);
  assert.equal(mask.data[corner], 0);
  assert.equal(keepConnected(mask, [corner]), 0);
  assert.equal(mask.data.reduce((sum, value) => sum + value, 0), area);
});

test("masks survive packing", () => {
  const mask = labels(480, 854);
  const packed = packMask(mask);
  assert.ok(packed.length < 10_000);
  same(unpackMask(packed, 854, 480).data, mask.data);
  const single = { width: 1, height: 1, data: Uint8Array.of(254) };
  same(unpackMask(packMask(single), 1, 1).data, single.data);
});

test("COCO JSON is that of `osmn segment --coco`", async () => {
  const mask = labels(...FRAME);
  const second = { ...mask, data: mask.data.map((value) => (value === 2 ? 2 : 0)) };
  const masks = [mask, second, emptyMask(FRAME[1], FRAME[0])];
  let text = "";
  await writeTracks(
    {
      name: "made up",
      width: FRAME[1],
      height: FRAME[0],
      length: 3,
      objects: [{ label: 1, name: "car" }, { label: 2, name: "</script>" }, { label: 3, name: "unseen" }],
      maskAt: (index) => masks[index]!,
      fileName: (index) => String(index).padStart(5, "0"),
    },
    (piece) => void (text += piece),
  );
  const found = JSON.parse(text);
  for (const annotation of found.annotations) delete annotation.object_name;
  assert.deepEqual(found, golden.coco);
});

test("the palette is that of the masks' files", () => {
  same(PALETTE, golden.palette);
  assert.deepEqual(screenColor(9), [243, 0, 0]);
  assert.equal(new Set(Array.from({ length: 20 }, (_, label) => screenColor(label).join())).size, 20);
});

test("the brush paints round strokes and erases one object only", () => {
  const mask = emptyMask(40, 30);
  paint(mask, { x: 5, y: 5 }, { x: 30, y: 5 }, 3, 1);
  const area = mask.data.reduce((sum, value) => sum + value, 0);
  assert.ok(Math.abs(area - (25 * 6 + Math.PI * 9)) < 15, `${area}`);
  mask.data[5 * 40 + 20] = 2;
  paint(mask, { x: 20, y: 5 }, { x: 20, y: 5 }, 10, 0, 1);
  assert.deepEqual(labelsIn({ ...mask, data: mask.data.filter((_, at) => at % 40 > 15 && at % 40 < 25) }), [2]);
  paint(mask, { x: -50, y: -50 }, { x: -40, y: -40 }, 3, 1); // outside: nothing
});

test("videos that are not wide are seen as squares, as in Python", () => {
  const square = { networkSize: [464, 464] };
  const sizes = { wide: { networkSize: [352, 608] }, square } as Parameters<typeof fitted>[0];
  for (const [width, height, expected] of golden.squares as [number, number, boolean][])
    assert.equal(fitted(sizes, width, height) === square, expected, `${width} x ${height}`);
  assert.equal(fitted({ ...sizes, square: null }, 480, 854).networkSize[1], 608);
});

test("metadata of other formats and versions is refused with a sentence", () => {
  const file = { name: "step.tflite", sha256: "00", bytes: 1 };
  const valid = {
    format: "osmn_tf.litert",
    format_version: 1,
    network_size: [24, 32],
    objects: 1,
    guide_size: 40,
    guide_background: [1, 2, 3],
    modulation_size: 3,
    features: {},
    state: { memory: [2, 2, 1] },
    quantization: "int8",
    files: { modulator: file, encoder: file, step: file },
  };
  assert.deepEqual(readMetadata(valid).state, new Map([["memory", [2, 2, 1]]]));
  assert.equal(readMetadata(valid).square, null);
  assert.equal(readMetadata({ ...valid, larger: [] }).larger, null);
  const size = (height: number, width: number) => ({ network_size: [height, width], features: {}, state: {} });
  const { wide, square } = readMetadata({ ...valid, larger: [size(32, 48), size(40, 40), size(64, 96)] }).larger!;
  assert.deepEqual([wide.networkSize, wide.suffix, square!.suffix], [[32, 48], "_32x48", "_40x40"]);
  assert.equal(readMetadata({ ...valid, larger: [size(32, 48)] }).larger!.square, null);
  const refused: [unknown, RegExp][] = [
    [null, /not that of an exported network/],
    [{ ...valid, format: "other" }, /not that of an exported network/],
    [{ ...valid, format_version: 2 }, /format version 2/],
    [{ ...valid, network_size: "24" }, /damaged or incomplete/],
    [{ ...valid, files: {} }, /damaged or incomplete/],
    [{ ...valid, square: { network_size: [28, 28] } }, /damaged or incomplete/],
    [{ ...valid, larger: [{ network_size: [32, 48] }] }, /damaged or incomplete/],
    [{ ...valid, files: { ...valid.files, step: { ...file, name: "../secret" } } }, /damaged or incomplete/],
  ];
  for (const [content, message] of refused) {
    assert.throws(() => readMetadata(content), (error) => error instanceof UserError && message.test(error.message));
  }
});

test("whatever is thrown becomes a sentence", () => {
  assert.equal(sentence(new UserError("So it is.")), "So it is.");
  assert.match(sentence(new DOMException("no room", "QuotaExceededError")), /storage is full/);
  assert.match(sentence(new RangeError("Array buffer allocation failed")), /out of memory/);
  assert.match(sentence(new TypeError("x is not a function\nat y")), /does not know \(x is not a function\)/);
});
