/** What the page and its worker say to each other. */

import type { Box } from "./core/prompts";

export interface ObjectState {
  label: number;
  name: string;
  visible: boolean;
}

export type Busy = "opening" | "loading" | "marking" | "tracking" | "saving" | null;

export type Direction = "both" | "forward" | "backward" | "onward";

export type ResultKind = "masks" | "overlay" | "cutouts" | "alpha" | "coco";

export interface State {
  video: {
    name: string;
    width: number;
    height: number;
    count: number;
    fps: number;
    aspect: number;
  } | null;
  frame: number;
  playing: boolean;
  paused: boolean;
  busy: Busy;
  objects: ObjectState[];
  /** Frames that the person marked something in, ascending. */
  marked: number[];
  /** How many frames have a mask. */
  done: number;
  canUndo: boolean;
  network: { ready: boolean; size: string; device: string };
}

export interface Progress {
  busy: Busy;
  done: number;
  total: number;
  /** Frames per second, 0 while it is not known. */
  fps: number;
  secondsLeft: number;
}

export interface Finished {
  name: string;
  blob: Blob;
}

export interface TrackReport {
  frames: number;
  objects: number;
  seconds: number;
  /** Milliseconds a frame in every part. */
  parts: Record<string, number>;
}

/** Requests; each is answered once. */
export type Request =
  | { type: "start"; canvas: OffscreenCanvas; networkUrl: string; promptsUrl: string | null; litertUrl: string; threads: number; webgpu: boolean; finer: boolean }
  | { type: "open"; files: File[]; folder: boolean }
  | { type: "close" }
  | { type: "seek"; frame: number }
  | { type: "play"; on: boolean }
  | { type: "box"; label: number; box: Box }
  | { type: "click"; label: number; x: number; y: number }
  | { type: "stroke"; label: number; x: number; y: number; radius: number; erase: boolean; phase: "down" | "move" | "up" }
  | { type: "undo" }
  | { type: "addObject" }
  | { type: "removeObject"; label: number }
  | { type: "renameObject"; label: number; name: string }
  | { type: "showObject"; label: number; visible: boolean }
  | { type: "track"; direction: Direction }
  | { type: "pause"; on: boolean }
  | { type: "cancel" }
  | { type: "save"; kind: ResultKind };

export type ToWorker = Request & { id: number };

export type FromWorker =
  | { type: "reply"; id: number; result?: unknown; error?: string }
  | { type: "state"; state: State }
  | { type: "progress"; progress: Progress }
  | { type: "note"; text: string }
  | { type: "keep"; urls: string[] };
