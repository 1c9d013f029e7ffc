/** The page: what is seen and pressed. Pictures, masks and the network are in the worker. */

import { screenColor } from "../core/colors";
import type { Direction, Finished, FromWorker, Progress, ResultKind, State, TrackReport } from "../messages";
import { WorkerClient } from "./client";
import { download, dropped, type Chosen } from "./files";

declare const WORKER_SCRIPT: string;
declare const LITERT_FOLDER: string;
declare const PROMPTS: boolean;

type Tool = "box" | "click" | "paint" | "erase";

const $ = <T extends HTMLElement = HTMLElement>(id: string) => document.getElementById(id) as T;
const stage = $("stage");
const canvas = $<HTMLCanvasElement>("canvas");
const frameInput = $<HTMLInputElement>("frame");
const brush = $<HTMLInputElement>("brush");
const webgpu = $<HTMLInputElement>("webgpu");
const finer = $<HTMLInputElement>("finer");

const HINTS: Record<Tool, string> = {
  box: "Drag a box around the object.",
  click: "Click on the object, and again on what is missing.",
  paint: "Paint over what belongs to the object.",
  erase: "Wipe away what does not belong to the object.",
};

let worker: WorkerClient | null = null;
let state: State | null = null;
let chosen = 1; // label of the object that is being marked
let tool: Tool = "box";
let loading = false; // the network's files
let drag: { x: number; y: number } | null = null; // where the pointer went down, in the video's pixels
let cross: { x: number; y: number } | null = null; // for marking by keyboard
let corner: { x: number; y: number } | null = null; // of a box that is marked by keyboard

// Messages -----------------------------------------------------------------------------------------------------------

function complain(text: string): void {
  $("alert-text").textContent = text;
  $("alert").hidden = false;
}

function say(text: string): void {
  $("status").textContent = text;
}

const quiet = () => ($("alert").hidden = true);

/** Does something that may fail with a sentence. */
async function attempt<T>(work: () => Promise<T>): Promise<T | undefined> {
  quiet();
  try {
    return await work();
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    if (text.startsWith("Cancelled")) say(text);
    else complain(text);
    return undefined;
  }
}

// The worker ---------------------------------------------------------------------------------------------------------

function startWorker(): WorkerClient {
  if (worker) return worker;
  if (!("transferControlToOffscreen" in canvas)) {
    throw new Error("This browser is too old for this page: it cannot draw in the background. Take a newer one.");
  }
  const wanted = Number(new URLSearchParams(location.search).get("threads")) || navigator.hardwareConcurrency || 1;
  const offscreen = canvas.transferControlToOffscreen();
  worker = new WorkerClient(new Worker(WORKER_SCRIPT), hear, (reason) =>
    complain(`The part of the page that does the work has stopped (${reason}). Reload the page to begin again.`),
  );
  const here = new URL(".", location.href).href;
  void worker.request(
    {
      type: "start",
      canvas: offscreen,
      networkUrl: new URL("network/", here).href,
      promptsUrl: PROMPTS ? new URL("prompts/", here).href : null,
      litertUrl: new URL(LITERT_FOLDER, here).href,
      threads: Math.max(1, Math.min(4, Math.floor(wanted))),
      webgpu: webgpu.checked,
      finer: finer.checked,
    },
    [offscreen],
  );
  return worker;
}

function hear(message: FromWorker): void {
  if (message.type === "state") {
    state = message.state;
    show();
  } else if (message.type === "progress") {
    showProgress(message.progress);
  } else if (message.type === "note") {
    say(message.text);
  } else if (message.type === "keep") {
    keepOffline(message.urls);
  }
}

function keepOffline(urls: string[]): void {
  void navigator.serviceWorker?.ready.then((registration) => {
    const files = [...urls, ...performance.getEntriesByType("resource").map((entry) => entry.name)];
    registration.active?.postMessage({ type: "keep", urls: files });
  });
}

async function open({ files, folder }: Chosen): Promise<void> {
  if (!files.length) return;
  say("");
  await attempt(async () => {
    await startWorker().request({ type: "open", files, folder });
    chosen = 1;
    $("report").hidden = true;
    show();
    stage.focus({ preventScroll: true });
  });
}

// Showing ------------------------------------------------------------------------------------------------------------

function show(): void {
  const video = state?.video ?? null;
  $("start").hidden = video !== null;
  $("editor").hidden = video === null;
  $("close").hidden = video === null;
  if (!state || !video) return;
  const { busy, playing, frame } = state;
  document.title = `${video.name} – Track an object in a video`;
  stage.style.setProperty("--aspect", String(video.aspect));
  frameInput.max = String(video.count - 1);
  if (document.activeElement !== frameInput || busy || playing) frameInput.value = String(frame);
  frameInput.setAttribute("aria-valuetext", `frame ${frame + 1} of ${video.count}`);
  $("frame-text").textContent = `${frame + 1} / ${video.count}`;
  canvas.setAttribute("aria-label", `Frame ${frame + 1} of ${video.count} of ${video.name}`);
  const play = $("play");
  play.textContent = playing ? "❚❚" : "▶";
  play.setAttribute("aria-label", playing ? "Stop" : "Play");
  const moving = busy !== null && !state.paused;
  for (const id of ["previous", "next", "play"]) ($(id) as HTMLButtonElement).disabled = moving;
  frameInput.disabled = moving;
  ($("undo") as HTMLButtonElement).disabled = busy !== null || !state.canUndo;
  const marked = state.marked.length > 0;
  for (const [id, usable] of [
    ["track-both", marked],
    ["track-forward", marked && state.marked[0]! < video.count - 1],
    ["track-backward", marked && state.marked[state.marked.length - 1]! > 0],
    ["track-onward", state.done > 0 && frame < video.count - 1],
    ["add-object", true],
  ] as const) {
    ($(id) as HTMLButtonElement).disabled = busy !== null || !usable;
  }
  for (const button of document.querySelectorAll<HTMLButtonElement>("[data-save]")) {
    button.disabled = busy !== null || !state.done;
  }
  const cancellable = busy === "tracking" || busy === "saving";
  $("progress").hidden = !(cancellable || loading);
  $("pause").textContent = state.paused ? "Continue" : "Pause";
  $("cancel").hidden = $("pause").hidden = !cancellable;
  if (busy === "marking") {
    $("hint").textContent = state.network.ready ? "Finding the object …" : "Loading the network …";
  } else {
    $("hint").textContent = HINTS[tool];
  }
  stage.setAttribute("aria-busy", String(busy !== null));
  showObjects();
  showTicks();
  const { network } = state;
  $("network").textContent = network.ready ? `Network at ${network.size} pixels, ${network.device}.` : "";
}

function showTicks(): void {
  const ticks = $("ticks");
  const wanted = state!.marked.join();
  if (ticks.dataset["marks"] === wanted) return;
  ticks.dataset["marks"] = wanted;
  const last = Math.max(1, state!.video!.count - 1);
  ticks.replaceChildren(
    ...state!.marked.map((frame) => {
      const tick = document.createElement("i");
      tick.style.setProperty("left", `${(100 * frame) / last}%`);
      return tick;
    }),
  );
}

function showObjects(): void {
  const list = $("objects");
  const { objects, busy } = state!;
  if (!objects.some((object) => object.label === chosen)) chosen = objects[0]?.label ?? 1;
  const wanted = JSON.stringify([objects, chosen, busy !== null]);
  if (list.dataset["shown"] === wanted || list.contains(document.activeElement?.closest("input[type=text]") ?? null)) return;
  list.dataset["shown"] = wanted;
  const focused = document.activeElement?.id;
  list.replaceChildren(
    ...objects.map(({ label, name, visible }) => {
      const item = document.createElement("li");
      item.classList.toggle("chosen", label === chosen);
      const swatch = document.createElement("button");
      swatch.type = "button";
      swatch.id = `choose-${label}`;
      swatch.className = "swatch";
      swatch.textContent = label === chosen ? "✓" : "";
      swatch.style.setProperty("--color", `rgb(${screenColor(label).join(" ")})`);
      swatch.setAttribute("aria-label", `Mark ${name}`);
      swatch.setAttribute("aria-pressed", String(label === chosen));
      swatch.onclick = () => {
        chosen = label;
        show();
      };
      const text = document.createElement("input");
      text.type = "text";
      text.value = name;
      text.maxLength = 60;
      text.setAttribute("aria-label", `Name of object ${label}`);
      text.onfocus = () => (chosen = label);
      text.onchange = () => void attempt(() => worker!.request({ type: "renameObject", label, name: text.value }));
      text.onblur = show;
      text.onkeydown = (event) => {
        if (event.key === "Enter") text.blur();
      };
      const toggle = document.createElement("label");
      const check = document.createElement("input");
      check.type = "checkbox";
      check.id = `show-${label}`;
      check.checked = visible;
      check.title = "Show it";
      check.setAttribute("aria-label", `Show ${name}`);
      check.onchange = () => void attempt(() => worker!.request({ type: "showObject", label, visible: check.checked }));
      toggle.append(check);
      const remove = document.createElement("button");
      remove.type = "button";
      remove.id = `remove-${label}`;
      remove.className = "quiet";
      remove.textContent = "✕";
      remove.title = "Remove it from all frames";
      remove.disabled = busy !== null;
      remove.setAttribute("aria-label", `Remove ${name}`);
      remove.onclick = () => void attempt(() => worker!.request({ type: "removeObject", label }));
      item.append(swatch, text, toggle, remove);
      return item;
    }),
  );
  if (focused) document.getElementById(focused)?.focus();
}

function duration(seconds: number): string {
  if (!Number.isFinite(seconds)) return "";
  const rounded = Math.ceil(seconds);
  return rounded < 60 ? `${rounded} s` : `${Math.floor(rounded / 60)} min ${String(rounded % 60).padStart(2, "0")} s`;
}

function showProgress({ busy, done, total, fps, secondsLeft }: Progress): void {
  const bar = $<HTMLProgressElement>("progress-bar");
  bar.max = Math.max(1, total);
  bar.value = done;
  if (busy === "loading") {
    loading = done < total;
    if (!state?.busy || state.busy === "marking") $("progress").hidden = !loading;
    $("progress-text").textContent = `Loading the network: ${(done / 1e6).toFixed(1)} of ${(total / 1e6).toFixed(1)} MB`;
    return;
  }
  $("progress-text").textContent =
    `${done} of ${total}` + (fps ? `, ${fps.toFixed(1)} frames a second, ${duration(secondsLeft)} left` : "");
}

function showReport(report: TrackReport): void {
  const rate = report.frames / report.seconds;
  say(
    `Done: ${report.frames} frames in ${duration(report.seconds)}, ${rate.toFixed(1)} frames a second. ` +
      "Play it, correct it where it is wrong and track from there on, or save it.",
  );
  $("report").dataset["fps"] = String(rate);
  $("report").hidden = false;
  $("report-rows").replaceChildren(
    ...Object.entries(report.parts).map(([part, milliseconds]) => {
      const row = document.createElement("tr");
      for (const text of [PARTS[part] ?? part, milliseconds.toFixed(1)]) {
        const cell = document.createElement("td");
        cell.textContent = text;
        row.append(cell);
      }
      return row;
    }),
  );
}

const PARTS: Record<string, string> = {
  decode: "decoding",
  resize: "resizing",
  encode: "network, once a frame",
  guides: "guides",
  step: "network, every object",
  merge: "masks",
  show: "storing and showing",
};

// Marking ------------------------------------------------------------------------------------------------------------

function place(event: { clientX: number; clientY: number }): { x: number; y: number } {
  const area = canvas.getBoundingClientRect();
  const { width, height } = state!.video!;
  return { x: ((event.clientX - area.left) / area.width) * width, y: ((event.clientY - area.top) / area.height) * height };
}

/** Brush radius in the video's pixels. */
const radius = () => (Number(brush.value) / 400) * Math.min(state!.video!.width, state!.video!.height);

function put(element: HTMLElement, x: number, y: number, width?: number, height?: number): void {
  const area = canvas.getBoundingClientRect();
  const outer = stage.getBoundingClientRect();
  const video = state!.video!;
  const [sx, sy] = [area.width / video.width, area.height / video.height];
  const style = element.style;
  style.setProperty("left", `${area.left - outer.left - stage.clientLeft + x * sx}px`);
  style.setProperty("top", `${area.top - outer.top - stage.clientTop + y * sy}px`);
  if (width !== undefined) style.setProperty("width", `${width * sx}px`);
  if (height !== undefined) style.setProperty("height", `${height * sy}px`);
  element.hidden = false;
}

function showRubber(from: { x: number; y: number }, to: { x: number; y: number }): void {
  put($("rubber"), Math.min(from.x, to.x), Math.min(from.y, to.y), Math.abs(to.x - from.x), Math.abs(to.y - from.y));
}

const marking = () => state?.video && !state.busy;

async function markBox(from: { x: number; y: number }, to: { x: number; y: number }): Promise<void> {
  const box = { x: Math.min(from.x, to.x), y: Math.min(from.y, to.y), width: Math.abs(to.x - from.x), height: Math.abs(to.y - from.y) };
  say("");
  const found = await attempt(() => worker!.request<boolean>({ type: "box", label: chosen, box }));
  afterMark(found);
}

async function markClick({ x, y }: { x: number; y: number }): Promise<void> {
  say("");
  const found = await attempt(() => worker!.request<boolean>({ type: "click", label: chosen, x, y }));
  afterMark(found);
}

function afterMark(found: boolean | undefined): void {
  $("rubber").hidden = true;
  if (found === undefined) return;
  say(
    found
      ? "Marked. Click on what is missing or correct it with Paint and Erase, then track it."
      : "The network did not find an object there: this is only a rough shape. Correct it, or undo and mark it again.",
  );
}

function stroke(point: { x: number; y: number }, phase: "down" | "move" | "up"): void {
  const request = { type: "stroke", label: chosen, ...point, radius: radius(), erase: tool === "erase", phase } as const;
  void attempt(() => worker!.request(request));
}

stage.addEventListener("pointerdown", (event) => {
  if (!marking() || event.button !== 0) return;
  stage.focus({ preventScroll: true });
  event.preventDefault();
  hideCross();
  drag = place(event);
  stage.setPointerCapture(event.pointerId);
  if (tool === "paint" || tool === "erase") stroke(drag, "down");
});

stage.addEventListener("pointermove", (event) => {
  if (!state?.video) return;
  const point = place(event);
  if (tool === "paint" || tool === "erase") {
    const size = 2 * radius();
    put($("cursor"), point.x, point.y, size, size);
    if (drag) stroke(point, "move");
  } else if (drag && tool === "box") {
    showRubber(drag, point);
  }
});

stage.addEventListener("pointerleave", () => ($("cursor").hidden = true));

stage.addEventListener("pointercancel", () => {
  if (drag && (tool === "paint" || tool === "erase")) stroke(drag, "up");
  drag = null;
  $("rubber").hidden = true;
});

stage.addEventListener("pointerup", (event) => {
  if (!drag) return;
  const from = drag;
  drag = null;
  const to = place(event);
  if (tool === "box") void markBox(from, to);
  else if (tool === "click") void markClick(to);
  else stroke(to, "up");
});

function chooseTool(name: Tool): void {
  tool = name;
  for (const radio of document.querySelectorAll<HTMLInputElement>("input[name=tool]")) radio.checked = radio.value === name;
  $("cursor").hidden = true;
  hideCross();
  if (state) show();
}

// Marking by keyboard

function hideCross(): void {
  cross = corner = null;
  $("cross").hidden = true;
  $("rubber").hidden = true;
}

function moveCross(event: KeyboardEvent): void {
  const { width, height } = state!.video!;
  const step = (event.shiftKey ? 0.05 : 0.01) * Math.min(width, height);
  cross ??= { x: width / 2, y: height / 2 };
  if (event.key === "ArrowLeft") cross.x -= step;
  if (event.key === "ArrowRight") cross.x += step;
  if (event.key === "ArrowUp") cross.y -= step;
  if (event.key === "ArrowDown") cross.y += step;
  cross = { x: Math.min(width - 1, Math.max(0, cross.x)), y: Math.min(height - 1, Math.max(0, cross.y)) };
  put($("cross"), cross.x, cross.y);
  if (corner) showRubber(corner, cross);
}

function markAtCross(): void {
  if (!cross || !marking()) return;
  if (tool === "click") void markClick(cross);
  else if (tool === "paint" || tool === "erase") for (const phase of ["down", "move", "up"] as const) stroke(cross, phase);
  else if (corner) {
    const from = corner;
    corner = null;
    void markBox(from, cross);
  } else {
    corner = { ...cross };
    say("One corner is set. Move to the opposite corner and press enter.");
  }
}

// Commands -----------------------------------------------------------------------------------------------------------

/** The frame that was asked for last, while the worker is on its way to it: keys are pressed faster than frames decode. */
let wanted: number | null = null;

function seek(frame: number): void {
  if (!state?.video || !worker) return;
  hideCross();
  const target = (wanted = Math.min(Math.max(0, frame), state.video.count - 1));
  void attempt(() => worker!.request({ type: "seek", frame: target })).then(() => {
    if (wanted === target) wanted = null;
  });
}

const move = (frames: number) => seek((wanted ?? state!.frame) + frames);

const playOrStop = () => void attempt(() => worker!.request({ type: "play", on: !state?.playing }));

async function undo(): Promise<void> {
  if (!state?.canUndo || state.busy) return;
  await attempt(() => worker!.request({ type: "undo" }));
  say("Undone.");
}

async function track(direction: Direction): Promise<void> {
  say("");
  $("report").hidden = true;
  $("progress-text").textContent = "Starting …";
  $<HTMLProgressElement>("progress-bar").value = 0;
  hideCross();
  const report = await attempt(() => worker!.request<TrackReport>({ type: "track", direction }));
  if (report) showReport(report);
}

async function save(kind: ResultKind): Promise<void> {
  say("");
  $("progress-text").textContent = "Starting …";
  $<HTMLProgressElement>("progress-bar").value = 0;
  const result = await attempt(() => worker!.request<Finished>({ type: "save", kind }));
  if (!result) return;
  download(result.name, result.blob);
  say(`Saved as ${result.name} (${(result.blob.size / 1e6).toFixed(1)} MB).`);
}

const pause = () => void attempt(() => worker!.request({ type: "pause", on: !state?.paused }));
const cancel = () => void worker?.request({ type: "cancel" });

for (const radio of document.querySelectorAll<HTMLInputElement>("input[name=tool]")) {
  radio.onchange = () => chooseTool(radio.value as Tool);
}
$("undo").onclick = undo;
$("play").onclick = playOrStop;
$("previous").onclick = () => move(-1);
$("next").onclick = () => move(1);
frameInput.oninput = () => seek(Number(frameInput.value));
$("add-object").onclick = async () => {
  const label = await attempt(() => worker!.request<number>({ type: "addObject" }));
  if (label === undefined) return;
  chosen = label;
  show();
  say(`Mark object ${label} in any frame.`);
};
for (const direction of ["both", "forward", "backward", "onward"] as const) {
  $(`track-${direction}`).onclick = () => void track(direction);
}
for (const button of document.querySelectorAll<HTMLButtonElement>("[data-save]")) {
  button.onclick = () => void save(button.dataset["save"] as ResultKind);
}
$("pause").onclick = pause;
$("cancel").onclick = cancel;
$("alert-close").onclick = quiet;
$("close").onclick = async () => {
  await attempt(() => worker!.request({ type: "close" }));
  document.title = "Track an object in a video";
  say("");
};

document.addEventListener("keydown", (event) => {
  if (!state?.video || event.ctrlKey || event.metaKey || event.altKey) return;
  const target = event.target as HTMLElement;
  if (target instanceof HTMLInputElement && target.type === "text") return;
  const arrows = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"];
  const inStage = target === stage;
  // Arrows belong to the tool buttons and sliders while those have the focus, and space to buttons.
  if (target instanceof HTMLInputElement && arrows.includes(event.key)) return;
  const pressesItself = target.matches("button, input, summary");
  if ((event.key === " " || event.key === "Enter") && pressesItself) return;
  const last = state.video.count - 1;
  const step = event.shiftKey ? 10 : 1;
  const size = Number(brush.value);
  const actions: Record<string, () => void> = {
    " ": playOrStop,
    b: () => chooseTool("box"),
    c: () => chooseTool("click"),
    d: () => chooseTool("paint"),
    e: () => chooseTool("erase"),
    z: () => void undo(),
    t: () => !state!.busy && state!.marked.length && void track("both"),
    p: pause,
    "[": () => (brush.value = String(Math.max(1, Math.round(size / 1.3)))),
    "]": () => (brush.value = String(Math.min(100, Math.round(size * 1.3) + 1))),
    Escape: () => (state!.busy ? cancel() : hideCross()),
    Home: () => seek(0),
    End: () => seek(last),
    Enter: () => inStage && markAtCross(),
  };
  // In the picture the arrows move a cross once it is there: enter brings it.
  if (inStage && cross && arrows.includes(event.key)) moveCross(event);
  else if (event.key === "ArrowLeft") move(-step);
  else if (event.key === "ArrowRight") move(step);
  else if (inStage && event.key === "Enter" && !cross) {
    moveCross(event);
    say("Move the cross with the arrows, press enter to mark, escape to leave.");
  } else if (actions[event.key]) actions[event.key]!();
  else return;
  event.preventDefault();
});

// Opening ------------------------------------------------------------------------------------------------------------

const fileInput = $<HTMLInputElement>("file-input");
const folderInput = $<HTMLInputElement>("folder-input");
$("choose-video").onclick = () => fileInput.click();
$("choose-folder").onclick = () => folderInput.click();
for (const input of [fileInput, folderInput]) {
  input.onchange = () => {
    void open({ files: Array.from(input.files ?? []), folder: input === folderInput });
    input.value = "";
  };
}
$("example").onclick = () =>
  void attempt(async () => {
    let blob: Blob;
    try {
      const response = await fetch("example/meadow.mp4");
      if (!response.ok) throw new Error();
      blob = await response.blob();
    } catch {
      throw new Error("The example could not be loaded from the server that this page came from.");
    }
    await open({ files: [new File([blob], "meadow.mp4")], folder: false });
  });

for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    document.body.classList.add("dropping");
  });
}
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dropping");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  const files = event.dataTransfer && dropped(event.dataTransfer);
  if (files) void files.then(open);
});

// Beginning ----------------------------------------------------------------------------------------------------------

for (const setting of [finer, webgpu]) {
  try {
    setting.checked = localStorage.getItem(setting.id) === "on";
  } catch {
    // Storage can be turned off.
  }
  setting.onchange = () => {
    try {
      localStorage.setItem(setting.id, setting.checked ? "on" : "off");
    } catch {
      // As above: the switch holds until the page is closed.
    }
    location.reload();
  };
}
window.addEventListener("resize", hideCross);
// What was marked would be lost.
window.addEventListener("beforeunload", (event) => {
  if (state?.video && state.marked.length) event.preventDefault();
});
// After the first paint.
requestAnimationFrame(() =>
  setTimeout(() => {
    navigator.serviceWorker?.register("sw.js").catch(() => {});
  }),
);
