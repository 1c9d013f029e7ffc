/** Tracks objects through a video: `osmn_tf/runtime/predictor.py` with its default rules, in TypeScript. */

import { UserError } from "./errors";
import { mergeLogits, resizeFrame, type Frame, type Mask, type SmallFrame } from "./frames";
import { networkMask, searchNear, spatialGuide, visualGuide } from "./guides";
import type { Metadata } from "./metadata";

/** Something that the network gave and takes back as it is: it may lie in memory that has to be freed by hand. */
export interface Held {
  delete(): void;
}

/** The three graphs of an exported network, for one object at a time. */
export interface Network<S extends Held = Held> {
  readonly metadata: Metadata;
  /** Channels of the spatial guide: 1, or 2 where the network also takes the previous mask. */
  readonly guideChannels: number;
  /** [h, w] of the frames that go into it: one of those in the metadata. */
  readonly networkSize: readonly [number, number];
  /** Goes on with the graphs that suit a video. What was encoded and the states are of no use to others. */
  fit(width: number, height: number): void;
  /** Modulation of an object from its visual guide, float32 [S, S, 3]. */
  modulate(guide: Float32Array): Promise<Float32Array>;
  /** Prepares a frame, uint8 [h, w, 3] of the network's size, for `step`. */
  encode(frame: Uint8Array): Promise<void>;
  /** One step of one object on the frame that was encoded last. `state`: null before the object's first frame. */
  step(guide: Float32Array, modulation: Float32Array, state: S | null): Promise<{ logits: Float32Array; state: S }>;
}

interface TrackedObject<S> {
  label: number;
  modulation: Float32Array;
  guideMask: Uint8Array; // [h, w], what the next spatial guide is made of
  state: S | null;
}

export class Segmenter<S extends Held = Held> {
  private objects: TrackedObject<S>[] = [];
  private encoded: Frame | SmallFrame | null = null;
  /** Milliseconds spent in the parts since the last `takeTimes`. */
  private times = { resize: 0, encode: 0, guides: 0, step: 0, merge: 0 };

  constructor(readonly network: Network<S>) {}

  get labels(): number[] {
    return this.objects.map((object) => object.label);
  }

  takeTimes(): Record<string, number> {
    const times = this.times;
    this.times = { resize: 0, encode: 0, guides: 0, step: 0, merge: 0 };
    return times;
  }

  /** Forgets the video and all its objects. */
  reset(): void {
    for (const object of this.objects) object.state?.delete();
    this.objects = [];
    this.encoded = null;
  }

  /** Forgets all, and takes up a video of this size. */
  begin(video: { width: number; height: number }): void {
    this.reset();
    this.network.fit(video.width, video.height);
  }

  remove(labels: readonly number[]): void {
    for (const object of this.objects) if (labels.includes(object.label)) object.state?.delete();
    this.objects = this.objects.filter((object) => !labels.includes(object.label));
  }

  /** The modulation of an object that is seen in this frame. */
  modulation(frame: Frame, mask: Mask, label: number): Promise<Float32Array> {
    const { guideSize, guideBackground } = this.network.metadata;
    return this.network.modulate(visualGuide(frame, mask, label, guideSize, guideBackground));
  }

  /**
   * Takes up the objects of a mask instead of stepping them; labels that are tracked already start again from it.
   *
   * @param known - modulations that are known already; the others are made of this frame.
   * @returns the given mask on top of the other objects' predictions.
   * @throws UserError no object is in the mask, or it has another size than the frame.
   */
  async add(frame: Frame, mask: Mask, known: ReadonlyMap<number, Float32Array> = new Map()): Promise<Mask> {
    if (mask.width !== frame.width || mask.height !== frame.height) {
      throw new UserError("The mask has another size than the frame.");
    }
    const labels = labelsIn(mask);
    if (!labels.length) throw new UserError("No object is marked in this frame.");
    this.remove(labels);
    const result = this.objects.length ? await this.step(frame) : { ...mask, data: new Uint8Array(mask.data.length) };
    for (const label of labels) {
      const modulation = known.get(label) ?? (await this.modulation(frame, mask, label));
      const [h, w] = this.network.networkSize;
      const guideMask = networkMask(mask, label, h, w);
      const object: TrackedObject<S> = { label, modulation, guideMask, state: null };
      if (this.network.metadata.state.size) {
        // The first frame, with the guide of the given mask, starts the recurrent state.
        object.state = (await this.run(frame, object)).state;
      }
      this.objects.push(object);
    }
    for (let i = 0; i < mask.data.length; i++) if (mask.data[i]) result.data[i] = mask.data[i]!;
    return result;
  }

  /** A frame at network size, as `step` takes it too. */
  shrink(frame: Frame): SmallFrame {
    const [h, w] = this.network.networkSize;
    const start = performance.now();
    const small = resizeFrame(frame, h, w);
    this.times.resize += performance.now() - start;
    return { width: frame.width, height: frame.height, small };
  }

  /** Segments the next frame. */
  async step(frame: Frame | SmallFrame): Promise<Mask> {
    const [h, w] = this.network.networkSize;
    if (!this.objects.length) {
      return { width: frame.width, height: frame.height, data: new Uint8Array(frame.width * frame.height) };
    }
    const logits: Float32Array[] = [];
    for (const object of this.objects) {
      const result = await this.run(frame, object);
      object.state?.delete();
      object.state = result.state;
      logits.push(result.logits);
    }
    const start = performance.now();
    if (this.network.metadata.matches) {
      for (const [index, object] of this.objects.entries()) searchNear(logits[index]!, object.guideMask, h, w);
    }
    this.takeGuideMasks(logits);
    const data = mergeLogits(logits, this.labels, h, w, frame.height, frame.width);
    this.times.merge += performance.now() - start;
    return { width: frame.width, height: frame.height, data };
  }

  /**
   * Logits float32 [h, w] of what is in `mask`, in the same frame: what the next frame's would be if nothing moved. The
   * first step shows the network the mask, which it may remember, and only the second one answers.
   */
  async probe(frame: Frame, mask: Mask, label: number): Promise<Float32Array> {
    const [h, w] = this.network.networkSize;
    const modulation = await this.modulation(frame, mask, label);
    const object: TrackedObject<S> = { label, modulation, guideMask: networkMask(mask, label, h, w), state: null };
    if (this.network.metadata.state.size) object.state = (await this.run(frame, object)).state;
    const { logits, state } = await this.run(frame, object);
    state.delete();
    object.state?.delete();
    return logits;
  }

  private async run(frame: Frame | SmallFrame, object: TrackedObject<S>): Promise<{ logits: Float32Array; state: S }> {
    const [h, w] = this.network.networkSize;
    if (this.encoded !== frame) {
      const { small } = "small" in frame ? frame : this.shrink(frame);
      const before = performance.now();
      await this.network.encode(small);
      this.encoded = frame;
      this.times.encode += performance.now() - before;
    }
    const before = performance.now();
    const guide = spatialGuide(object.guideMask, h, w, this.network.guideChannels);
    const ready = performance.now();
    this.times.guides += ready - before;
    const result = await this.network.step(guide, object.modulation, object.state);
    this.times.step += performance.now() - ready;
    return result;
  }

  /** An object's next guide is made only of the pixels where it beats the others; one that is lost keeps its last. */
  private takeGuideMasks(logits: readonly Float32Array[]): void {
    for (const [index, object] of this.objects.entries()) {
      const own = logits[index]!;
      const won = new Uint8Array(own.length);
      let any = false;
      for (let i = 0; i < own.length; i++) {
        if (!(own[i]! > 0)) continue;
        if (logits.every((other) => own[i]! >= other[i]!)) {
          won[i] = 1;
          any = true;
        }
      }
      if (any) object.guideMask = won;
    }
  }
}

/** The labels in a mask, ascending, without background (0) and void (255). */
export function labelsIn(mask: Mask): number[] {
  const seen = new Uint8Array(256);
  for (let i = 0; i < mask.data.length; i++) seen[mask.data[i]!] = 1;
  const labels: number[] = [];
  for (let label = 1; label < 255; label++) if (seen[label]) labels.push(label);
  return labels;
}
