/** One video with its objects: what the worker does for the page. */

import { UserError } from "../core/errors";
import { paint } from "../core/brush";
import { emptyMask, type Frame, type Mask, type SmallFrame } from "../core/frames";
import { maskFromBox, maskFromClick, type Box, type Prompted } from "../core/prompts";
import { labelsIn, Segmenter } from "../core/segmenter";
import { packMask } from "../core/rle";
import type { Busy, Direction, Finished, ObjectState, Progress, ResultKind, State, TrackReport } from "../messages";
import { HeldState, LiteRtNetwork, fetchNetwork, startRuntime, type NetworkFiles } from "./litert";
import { Painter } from "./painter";
import { saveAlpha, saveCutouts, saveMasks, saveOverlay, saveTracks, type ResultInput } from "./results";
import { openImages, openVideo, type Picture, type Source } from "./source";
import { MaskStore, ScratchFile } from "./storage";

const MAX_CANVAS = 1280; // of the longer side: what is shown, not what is tracked
const MAX_UNDO = 30;
const MAX_OBJECTS = 20;
const DRAW_EVERY = 200; // milliseconds between pictures that are shown while tracking: drawing takes time from the network
const REVERSE_CHUNK = 24; // frames at network size that wait in memory on the way back

export class Cancelled extends UserError {
  override name = "Cancelled";
}

export interface SessionOptions {
  canvas: OffscreenCanvas;
  networkUrl: string;
  /** Folder of the network that makes masks of boxes and clicks; null: the one that tracks does. */
  promptsUrl: string | null;
  litertUrl: string;
  threads: number;
  webgpu: boolean;
  /** The network that tracks sees the frames larger. */
  finer: boolean;
}

interface Undo {
  frame: number;
  given: Uint8Array | null;
  mask: Uint8Array | null;
  objects: ObjectState[];
}

interface Listener {
  state(state: State): void;
  progress(progress: Progress): void;
  note(text: string): void;
  keep(urls: string[]): void;
}

/** A pause until everything that the page said meanwhile was heard. Timers would wait for four milliseconds or more. */
const channel = new MessageChannel();
const waiting: (() => void)[] = [];
channel.port1.onmessage = () => waiting.shift()?.();
function breathe(): Promise<void> {
  return new Promise((resolve) => {
    waiting.push(resolve);
    channel.port2.postMessage(null);
  });
}

export class Session {
  private readonly context: OffscreenCanvasRenderingContext2D;
  private readonly painter = new Painter();
  private source: Source | null = null;
  private scratch: ScratchFile | null = null;
  private masks!: MaskStore;
  private given!: MaskStore;
  private objects: ObjectState[] = [];
  private frame = 0;
  private picture: Picture | null = null;
  private readonly background = new OffscreenCanvas(1, 1).getContext("2d")!; // the frame that is shown, without objects
  private showings = 0;
  private current: Mask | null = null; // of the frame that is shown, while a stroke is painted
  private undos: Undo[] = [];
  private playing = false;
  private playRun = 0;
  private paused = false;
  private cancelled = false;
  private resume: (() => void) | null = null;
  private busy: Busy = null;
  private work: Promise<unknown> | null = null;
  private loading: Promise<Segmenter<HeldState>> | null = null;
  private loadingMarker: Promise<Segmenter<HeldState>> | null = null;
  private device = "";
  private tracker: LiteRtNetwork | null = null;
  private results: ScratchFile[] = [];
  private lastPoint = { x: 0, y: 0 };
  private seekTarget: number | null = null;
  private seeking: Promise<void> | null = null;

  constructor(
    private readonly options: SessionOptions,
    private readonly listener: Listener,
  ) {
    this.context = options.canvas.getContext("2d", { alpha: false })!;
  }

  // What the page shows -------------------------------------------------------------------------------------------

  private tell(): void {
    const { source } = this;
    this.listener.state({
      video: source && {
        name: source.name,
        width: source.width,
        height: source.height,
        count: source.count,
        fps: source.fps,
        aspect: source.aspect,
      },
      frame: this.frame,
      playing: this.playing,
      paused: this.paused,
      busy: this.busy,
      objects: this.objects.map((object) => ({ ...object })),
      marked: source ? this.given.indices() : [],
      done: source ? this.masks.indices().length : 0,
      canUndo: this.undos.length > 0,
      network: { ready: this.tracker !== null, size: this.tracker?.networkSize.join(" × ") ?? "", device: this.device },
    });
  }

  /** Runs one thing at a time; everything that changes masks goes through here. */
  private async exclusively<T>(busy: Exclude<Busy, null>, work: () => Promise<T>): Promise<T> {
    if (this.busy) throw new UserError("Wait until the work that is going on is done, or cancel it.");
    this.stopPlaying();
    await this.seeking;
    this.busy = busy;
    this.cancelled = false;
    this.paused = false;
    this.tell();
    try {
      const going = work();
      this.work = going;
      return await going;
    } finally {
      this.work = null;
      this.busy = null;
      this.paused = false;
      this.tell();
    }
  }

  private video(): Source {
    if (!this.source) throw new UserError("Open a video first.");
    return this.source;
  }

  // The network ---------------------------------------------------------------------------------------------------

  /** The network, loaded when it is first needed. */
  private network(): Promise<Segmenter<HeldState>> {
    this.loading ??= this.load();
    this.loading.catch(() => (this.loading = null));
    return this.loading;
  }

  /** The network that makes masks of boxes and clicks, loaded when it is first needed. */
  private marker(): Promise<Segmenter<HeldState>> {
    this.loadingMarker ??= this.loadMarker();
    this.loadingMarker.catch(() => (this.loadingMarker = null));
    return this.loadingMarker;
  }

  private async loadMarker(): Promise<Segmenter<HeldState>> {
    const tracker = await this.network();
    const { promptsUrl, litertUrl, threads } = this.options;
    if (!promptsUrl) return tracker;
    const load = { networkUrl: promptsUrl, litertUrl, threads, webgpu: false, onProgress: () => {} };
    const [runtime, files] = await Promise.all([startRuntime(load), fetchNetwork(load)]);
    this.listener.keep(files.urls);
    return new Segmenter(await LiteRtNetwork.compile(files, "wasm", runtime.threads));
  }

  /** Begins to load the networks, so that they are there when the first object is marked. */
  async preload(): Promise<void> {
    await this.marker();
    this.tell();
  }

  private async load(): Promise<Segmenter<HeldState>> {
    const { networkUrl, litertUrl, threads, webgpu, finer } = this.options;
    const adapter = webgpu ? await (navigator as any).gpu?.requestAdapter().catch(() => null) : null;
    const load = {
      networkUrl,
      litertUrl,
      threads,
      webgpu: Boolean(adapter),
      onProgress: (done: number, total: number) =>
        this.listener.progress({ busy: "loading", done, total, fps: 0, secondsLeft: 0 }),
    };
    const [runtime, files] = await Promise.all([startRuntime(load), fetchNetwork(load)]);
    const onProcessor = await LiteRtNetwork.compile(files, "wasm", runtime.threads, finer);
    this.device = runtime.threads === 1 ? "1 thread" : `${runtime.threads} threads`;
    const network = (webgpu && (await this.onGraphics(files, onProcessor, Boolean(adapter)))) || onProcessor;
    this.tracker = network;
    if (this.source) network.fit(this.source.width, this.source.height);
    // What this worker has loaded, LiteRT's files among it: the page does not know of them.
    this.listener.keep([...files.urls, ...performance.getEntriesByType("resource").map((entry) => entry.name)]);
    this.tell();
    return new Segmenter(network);
  }

  /** The network on the graphics card, if that gives the same masks as the processor on a test frame. */
  private async onGraphics(
    files: NetworkFiles,
    reference: LiteRtNetwork,
    offered: boolean,
  ): Promise<LiteRtNetwork | null> {
    let candidate: LiteRtNetwork | null = null;
    try {
      if (!offered) throw new Error("the browser offers none");
      candidate = await LiteRtNetwork.compile(files, "webgpu", 1, this.options.finer);
      const agreement = await agree(reference, candidate);
      if (agreement < 0.99) throw new Error(`its masks agree with the processor's by ${Math.round(100 * agreement)}% only`);
      this.device = "graphics card";
      reference.delete();
      return candidate;
    } catch (error) {
      const reason = error instanceof Error ? error.message.split("\n")[0] : String(error);
      this.listener.note(`The graphics card is not used (${reason}); the processor does the work.`);
      candidate?.delete();
      return null;
    }
  }

  // Opening and moving --------------------------------------------------------------------------------------------

  async open(files: File[], folder: boolean): Promise<void> {
    await this.exclusively("opening", async () => {
      const source = folder || files.length > 1 ? await openImages(files) : await openVideo(files[0]!);
      try {
        await this.takeUp(source);
      } catch (error) {
        source.close();
        throw error;
      }
      if (source.note) this.listener.note(source.note);
    });
    // A failure is said when the network is needed.
    void this.preload().catch(() => {});
  }

  private async takeUp(source: Source): Promise<void> {
    const picture = await source.at(0);
    await this.closeVideo();
    this.scratch = await ScratchFile.create("masks");
    this.masks = new MaskStore(this.scratch, source.count, source.width, source.height);
    this.given = new MaskStore(this.scratch, source.count, source.width, source.height);
    this.source = source;
    this.tracker?.fit(source.width, source.height);
    this.objects = [{ label: 1, name: "Object 1", visible: true }];
    this.undos = [];
    const scale = Math.min(1, MAX_CANVAS / Math.max(source.width, source.height));
    for (const canvas of [this.options.canvas, this.background.canvas]) {
      canvas.width = Math.round(source.width * scale);
      canvas.height = Math.round(source.height * scale);
    }
    await this.show(0, picture);
  }

  async close(): Promise<void> {
    this.cancel();
    await this.work?.catch(() => {});
    this.stopPlaying();
    await this.seeking;
    await this.closeVideo();
    this.tell();
  }

  private async closeVideo(): Promise<void> {
    this.showings++;
    this.picture?.close();
    this.picture = null;
    this.current = null;
    this.source?.close();
    this.source = null;
    await this.scratch?.dispose();
    this.scratch = null;
    for (const file of this.results.splice(0)) await file.dispose();
  }

  private draw(mask = this.current ?? this.masks.get(this.frame)): void {
    this.context.drawImage(this.background.canvas, 0, 0);
    if (mask) this.painter.overlay(this.context, mask, this.hidden());
  }

  private hidden(): Set<number> {
    return new Set(this.objects.filter((object) => !object.visible).map((object) => object.label));
  }

  /** Shows a frame. While one is being decoded, only the last one asked for is kept in mind. */
  async seek(frame: number): Promise<void> {
    if (this.busy && !(this.busy === "tracking" && this.paused)) return;
    this.stopPlaying();
    this.seekTarget = Math.min(Math.max(0, Math.round(frame)), this.video().count - 1);
    this.seeking ??= this.seekOn().finally(() => (this.seeking = null));
    await this.seeking;
  }

  private async seekOn(): Promise<void> {
    while (this.seekTarget !== null && this.source) {
      const target: number = this.seekTarget;
      this.seekTarget = null;
      await this.show(target, await this.source.at(target));
    }
  }

  private async show(frame: number, picture: Picture): Promise<void> {
    const showing = ++this.showings;
    let pixels: Frame | null = null;
    try {
      pixels = await picture.frame();
    } finally {
      // Meanwhile another one was asked for, or the video was closed.
      if (!pixels || showing !== this.showings) picture.close();
    }
    if (showing !== this.showings) return;
    this.painter.frame(this.background, pixels);
    this.picture?.close();
    this.picture = picture;
    this.frame = frame;
    this.current = null;
    this.draw();
    this.tell();
  }

  /** Plays from the frame that is shown, or from the start if that is the last. */
  async play(on: boolean): Promise<void> {
    if (!on) return this.stopPlaying();
    const source = this.video();
    if (this.playing || this.busy) return;
    await this.seeking;
    const run = ++this.playRun;
    const stopped = () => !this.playing || run !== this.playRun;
    this.playing = true;
    this.tell();
    const from = this.frame >= source.count - 1 ? 0 : this.frame;
    const { times } = source;
    const began = performance.now() - times[from]! * 1000;
    let index = from;
    try {
      for await (const picture of source.range(from, source.count)) {
        const wait = began + times[index]! * 1000 - performance.now();
        if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait));
        else await breathe();
        if (stopped()) {
          picture.close();
          break;
        }
        await this.show(index++, picture);
      }
    } finally {
      if (!stopped()) this.stopPlaying();
    }
  }

  private stopPlaying(): void {
    if (!this.playing) return;
    this.playing = false;
    this.tell();
  }

  // Marking -------------------------------------------------------------------------------------------------------

  async box(label: number, box: Box): Promise<boolean> {
    return this.mark(label, (segmenter, frame) => maskFromBox(segmenter, frame, box));
  }

  async click(label: number, x: number, y: number): Promise<boolean> {
    // What the person has marked in this frame grows with every click; what was tracked is marked anew.
    const given = this.given?.get(this.frame);
    const before = given && { ...given, data: given.data.map((value) => (value === label ? 1 : 0)) };
    return this.mark(label, (segmenter, frame) => maskFromClick(segmenter, frame, x, y, before));
  }

  /** Gives an object the mask that the network makes; false if it made none and the mask is a rough shape. */
  private async mark(
    label: number,
    make: (segmenter: Segmenter<HeldState>, frame: Frame) => Promise<Prompted>,
  ): Promise<boolean> {
    return this.exclusively("marking", async () => {
      this.video();
      this.object(label);
      const segmenter = await this.marker();
      const { mask, rough } = await make(segmenter, await this.picture!.frame());
      const edited = this.editable();
      for (let i = 0; i < edited.data.length; i++) {
        if (mask.data[i]) edited.data[i] = label;
        else if (edited.data[i] === label) edited.data[i] = 0;
      }
      this.remember();
      this.edit(label, edited);
      return !rough;
    });
  }

  private object(label: number): ObjectState {
    const found = this.objects.find((object) => object.label === label);
    if (!found) throw new UserError("That object does not exist any more.");
    return found;
  }

  /** The mask of the frame that is shown, to be changed. */
  private editable(): Mask {
    const { width, height } = this.video();
    return this.masks.get(this.frame) ?? emptyMask(width, height);
  }

  private remember(): void {
    this.undos.push({
      frame: this.frame,
      given: this.given.packed(this.frame)?.slice() ?? null,
      mask: this.masks.packed(this.frame)?.slice() ?? null,
      objects: this.objects.map((object) => ({ ...object })),
    });
    if (this.undos.length > MAX_UNDO) this.undos.shift();
  }

  /** Takes a changed mask for the frame's, and `label`'s part of it for what the person has given. */
  private edit(label: number, mask: Mask): void {
    const given = this.given.get(this.frame) ?? emptyMask(mask.width, mask.height);
    let any = false;
    for (let i = 0; i < mask.data.length; i++) {
      const value = mask.data[i] === label || given.data[i] === label ? (mask.data[i] === label ? label : 0) : given.data[i]!;
      given.data[i] = value;
      if (value) any = true;
    }
    this.given.setPacked(this.frame, any ? packMask(given) : null);
    this.masks.set(this.frame, mask);
    this.current = null;
    this.draw();
    this.tell();
  }

  stroke(label: number, x: number, y: number, radius: number, erase: boolean, phase: "down" | "move" | "up"): void {
    if (this.busy || !this.picture) return;
    const point = { x, y };
    if (phase === "down") {
      this.stopPlaying();
      this.object(label);
      this.current = this.editable();
    }
    if (!this.current) return;
    if (phase === "up") {
      this.remember();
      this.edit(label, this.current);
      return;
    }
    paint(this.current, phase === "down" ? point : this.lastPoint, point, radius, erase ? 0 : label, erase ? label : 0);
    this.lastPoint = point;
    this.draw();
  }

  async undo(): Promise<number> {
    return this.exclusively("marking", async () => {
      const last = this.undos.pop();
      if (!last) throw new UserError("There is nothing to undo.");
      this.given.setPacked(last.frame, last.given);
      this.masks.setPacked(last.frame, last.mask);
      // Names and switches stay as they are now.
      this.objects = last.objects.map((old) => this.objects.find((object) => object.label === old.label) ?? old);
      if (last.frame !== this.frame) await this.show(last.frame, await this.video().at(last.frame));
      else this.draw();
      return last.frame;
    });
  }

  // Objects -------------------------------------------------------------------------------------------------------

  addObject(): number {
    this.video();
    if (this.objects.length >= MAX_OBJECTS) throw new UserError(`There can be at most ${MAX_OBJECTS} objects.`);
    let label = 1;
    while (this.objects.some((object) => object.label === label)) label++;
    this.objects.push({ label, name: `Object ${label}`, visible: true });
    this.objects.sort((a, b) => a.label - b.label);
    this.tell();
    return label;
  }

  async removeObject(label: number): Promise<void> {
    await this.exclusively("marking", async () => {
      this.object(label);
      for (const store of [this.given, this.masks]) {
        for (const index of store.indices()) {
          const mask = store.get(index)!;
          if (!mask.data.includes(label)) continue;
          let any = false;
          for (let i = 0; i < mask.data.length; i++) {
            if (mask.data[i] === label) mask.data[i] = 0;
            else if (mask.data[i]) any = true;
          }
          store.setPacked(index, any || store === this.masks ? packMask(mask) : null);
        }
      }
      this.objects = this.objects.filter((object) => object.label !== label);
      if (!this.objects.length) this.objects = [{ label: 1, name: "Object 1", visible: true }];
      this.undos = [];
      this.draw();
    });
  }

  renameObject(label: number, name: string): void {
    this.object(label).name = name.slice(0, 60).trim() || `Object ${label}`;
    this.tell();
  }

  showObject(label: number, visible: boolean): void {
    this.object(label).visible = visible;
    if (this.source && !this.playing) this.draw();
    this.tell();
  }

  // Tracking ------------------------------------------------------------------------------------------------------

  pause(on: boolean): void {
    if (this.busy !== "tracking" && this.busy !== "saving") return;
    this.paused = on;
    if (!on) this.release();
    this.tell();
  }

  cancel(): void {
    this.cancelled = true;
    this.release();
  }

  private release(): void {
    this.resume?.();
    this.resume = null;
  }

  /** Lets the page speak, and waits while it wants to pause. Returns the milliseconds waited. */
  private async checkpoint(): Promise<number> {
    await breathe();
    const start = performance.now();
    while (this.paused && !this.cancelled) await new Promise<void>((resolve) => (this.resume = resolve));
    await this.seeking;
    if (this.cancelled) throw new Cancelled("Cancelled. The frames that were done before are kept.");
    return performance.now() - start;
  }

  /**
   * Tracks the objects that are marked. `both`: through the whole video, forward from each object's first mark and
   * backward before it. `forward`: from the first mark on. `backward`: from the last mark to the start. `onward`: from
   * the frame that is shown on, with all that is coloured in it.
   */
  async track(direction: Direction): Promise<TrackReport> {
    return this.exclusively("tracking", async () => {
      const { count } = this.video();
      const marked = this.given.indices();
      if (direction === "onward" ? !labelsIn(this.editable()).length : !marked.length) {
        throw new UserError(
          direction === "onward"
            ? "Nothing is coloured in this frame. Mark the object here first, with a box or a click."
            : "No object is marked yet. Draw a box around it, or click on it.",
        );
      }
      const segmenter = await this.network();
      segmenter.takeTimes();
      const run = new Run(this.listener);
      try {
        if (direction === "both") {
          const first = this.firstMarks(marked);
          const [start, last] = [Math.min(...first.values()), Math.max(...first.values())];
          run.total = (last ? last + 1 : 0) + count - start;
          const earlier = await this.trackBack(segmenter, run, last, (index) => this.startingAt(first, index), true);
          await this.trackOn(segmenter, run, start, earlier);
        } else if (direction === "backward") {
          const last = marked[marked.length - 1]!;
          run.total = last + 1;
          await this.trackBack(segmenter, run, last, (index) => this.given.get(index), false);
        } else {
          const start = direction === "onward" ? this.frame : marked[0]!;
          run.total = count - start;
          await this.trackOn(segmenter, run, start, -1, direction === "onward");
        }
      } finally {
        segmenter.reset();
        await this.showAgain();
      }
      return run.report(segmenter.takeTimes(), labelsIn(this.editable()).length);
    });
  }

  /** Shows the frame that tracking came to, from the file: what is drawn meanwhile may be small. */
  private async showAgain(): Promise<void> {
    if (this.source) await this.show(this.frame, await this.source.at(this.frame));
  }

  /** Label -> first frame in which it is marked. */
  private firstMarks(marked: readonly number[]): Map<number, number> {
    const first = new Map<number, number>();
    for (const index of marked) {
      for (const label of labelsIn(this.given.get(index)!)) if (!first.has(label)) first.set(label, index);
    }
    return first;
  }

  private startingAt(first: ReadonlyMap<number, number>, index: number): Mask | null {
    const given = this.given.get(index);
    if (!given) return null;
    let any = false;
    for (let i = 0; i < given.data.length; i++) {
      if (given.data[i] && first.get(given.data[i]!) === index) any = true;
      else given.data[i] = 0;
    }
    return any ? given : null;
  }

  /** Frames [start, count). Masks before `earlier` that a backward pass has left show where no object is. */
  private async trackOn(
    segmenter: Segmenter<HeldState>,
    run: Run,
    start: number,
    earlier: number,
    continued = false,
  ): Promise<void> {
    const source = this.video();
    segmenter.begin(source);
    let index = start;
    for await (const picture of source.range(start, source.count)) {
      try {
        const frame = await picture.frame();
        let mask: Mask;
        if (continued && index === start) {
          mask = this.editable();
          await segmenter.add(frame, mask, await this.knownModulations(segmenter, mask, index, frame));
        } else {
          const given = this.given.get(index);
          mask = given ? await segmenter.add(frame, given) : await segmenter.step(frame);
        }
        if (index < earlier) {
          const before = this.masks.get(index);
          if (before) for (let i = 0; i < mask.data.length; i++) mask.data[i] ||= before.data[i]!;
        }
        this.finishFrame(run, index, mask, frame);
      } finally {
        picture.close();
      }
      index++;
      run.waited += await this.checkpoint();
    }
  }

  /** Objects that were not marked in this frame keep the look that they had where they were. */
  private async knownModulations(
    segmenter: Segmenter<HeldState>,
    mask: Mask,
    index: number,
    frame: Frame,
  ): Promise<Map<number, Float32Array>> {
    const known = new Map<number, Float32Array>();
    const here = this.given.get(index);
    const own = here ? labelsIn(here) : [];
    const pixels = frame.data.slice();
    for (const label of labelsIn(mask)) {
      if (own.includes(label)) continue;
      const before = this.given.indices().filter((at) => at !== index && labelsIn(this.given.get(at)!).includes(label));
      const nearest = before.filter((at) => at < index).pop() ?? before[0];
      if (nearest === undefined) continue;
      const picture = await this.video().at(nearest);
      try {
        known.set(label, await segmenter.modulation(await picture.frame(), this.given.get(nearest)!, label));
      } finally {
        picture.close();
      }
    }
    frame.data.set(pixels); // the other pictures were unpacked into the same memory
    return known;
  }

  /**
   * Frames `last` to 0, backward.
   *
   * @param startingAt - the objects that start in a frame.
   * @param keepStarts - leave the masks of those frames, which a forward pass makes.
   * @returns the frame before which masks of this pass lie.
   */
  private async trackBack(
    segmenter: Segmenter<HeldState>,
    run: Run,
    last: number,
    startingAt: (index: number) => Mask | null,
    keepStarts: boolean,
  ): Promise<number> {
    const source = this.video();
    segmenter.begin(source);
    if (keepStarts && last === 0) return 0;
    for (let end = last + 1; end > 0; end -= REVERSE_CHUNK) {
      const begin = Math.max(0, end - REVERSE_CHUNK);
      // A video is decoded forward only. What waits is at network size: a few megabytes, whatever the video's size.
      const small: SmallFrame[] = [];
      for await (const picture of source.range(begin, end)) {
        try {
          small.push(segmenter.shrink(await picture.frame()));
        } finally {
          picture.close();
        }
        run.waited += await this.checkpoint();
      }
      for (let index = end - 1; index >= begin; index--) {
        const starting = startingAt(index);
        let mask: Mask;
        if (starting) {
          const picture = await source.at(index);
          try {
            const frame = await picture.frame();
            mask = await segmenter.add(frame, starting);
            if (keepStarts) for (let i = 0; i < mask.data.length; i++) if (starting.data[i]) mask.data[i] = 0;
            this.finishFrame(run, index, mask, frame);
          } finally {
            picture.close();
          }
        } else {
          mask = await segmenter.step(small[index - begin]!);
          this.finishFrame(run, index, mask, small[index - begin]!);
        }
        run.waited += await this.checkpoint();
      }
    }
    return last;
  }

  private finishFrame(run: Run, index: number, mask: Mask, frame: Frame | SmallFrame): void {
    const start = performance.now();
    this.masks.set(index, mask);
    this.frame = index;
    if (run.frameDone()) {
      if ("small" in frame) this.painter.small(this.background, frame.small, ...this.tracker!.networkSize);
      else this.painter.frame(this.background, frame);
      this.draw(mask);
      this.tell();
    }
    run.own += performance.now() - start;
  }

  // Results -------------------------------------------------------------------------------------------------------

  async save(kind: ResultKind): Promise<Finished> {
    return this.exclusively("saving", async () => {
      const source = this.video();
      if (!this.masks.indices().length) throw new UserError("There is nothing to save yet: mark an object and track it.");
      // What was saved before is on the disk by now.
      for (const file of this.results.splice(0)) await file.dispose();
      const run = new Run(this.listener, "saving");
      run.total = source.count;
      const input: ResultInput = {
        source,
        objects: this.objects,
        maskAt: (index) => this.masks.get(index),
        step: async (done) => {
          run.reached(done);
          await this.checkpoint();
        },
      };
      const makers = { masks: saveMasks, overlay: saveOverlay, alpha: saveAlpha, cutouts: saveCutouts, coco: saveTracks };
      const result = await makers[kind](input);
      this.results.push(result.file);
      return { name: result.name, blob: await result.file.finish(result.type) };
    });
  }
}

/** The clock of something that goes through many frames. */
class Run {
  total = 0;
  waited = 0; // milliseconds in which the person paused
  own = 0; // milliseconds for drawing and storing
  private done = 0;
  private readonly start = performance.now();
  private shown = 0;

  constructor(
    private readonly listener: Listener,
    private readonly busy: Busy = "tracking",
  ) {}

  /** Counts a frame; true if it is time to show one. */
  frameDone(): boolean {
    return this.reached(this.done + 1);
  }

  reached(done: number): boolean {
    this.done = done;
    const now = performance.now();
    const last = this.done >= this.total;
    if (now - this.shown < DRAW_EVERY && !last) return false;
    this.shown = now;
    const seconds = Math.max(0.001, (now - this.start - this.waited) / 1000);
    const fps = this.done / seconds;
    this.listener.progress({
      busy: this.busy,
      done: this.done,
      total: this.total,
      fps,
      secondsLeft: (this.total - this.done) / fps,
    });
    return true;
  }

  report(times: Record<string, number>, objects: number): TrackReport {
    const frames = Math.max(1, this.done);
    const total = performance.now() - this.start - this.waited;
    const parts: Record<string, number> = {};
    for (const [name, value] of Object.entries({ ...times, show: this.own })) parts[name] = value / frames;
    parts["decode"] = Math.max(0, total / frames - Object.values(parts).reduce((a, b) => a + b, 0));
    return { frames: this.done, objects, seconds: total / 1000, parts };
  }
}

/** Mean IoU of two networks' masks on a made-up frame with a disc in it. */
async function agree(first: LiteRtNetwork, second: LiteRtNetwork): Promise<number> {
  const [h, w] = first.networkSize;
  const frame: Frame = { width: w, height: h, data: new Uint8Array(h * w * 4) };
  const mask = emptyMask(w, h);
  for (let y = 0; y < h; y++) {
    for (let x = 0; x < w; x++) {
      const inside = (x - w / 2) ** 2 + (y - h / 2) ** 2 < (h / 4) ** 2;
      const at = 4 * (y * w + x);
      frame.data[at] = inside ? 220 : (x * 255) / w;
      frame.data[at + 1] = inside ? 60 : (y * 255) / h;
      frame.data[at + 2] = inside ? 40 : 128;
      mask.data[y * w + x] = inside ? 1 : 0;
    }
  }
  const [a, b] = [await new Segmenter(first).probe(frame, mask, 1), await new Segmenter(second).probe(frame, mask, 1)];
  let [both, either] = [0, 0];
  for (let i = 0; i < a.length; i++) {
    if (a[i]! > 0 && b[i]! > 0) both++;
    if (a[i]! > 0 || b[i]! > 0) either++;
  }
  return either ? both / either : 0;
}
