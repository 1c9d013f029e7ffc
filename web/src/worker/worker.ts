/** The worker's door: takes requests of the page and answers each of them once. */

import { sentence } from "../core/errors";
import type { FromWorker, Request, ToWorker } from "../messages";
import { Session } from "./session";

let session: Session | null = null;

const send = (message: FromWorker) => self.postMessage(message);

async function handle(request: Request): Promise<unknown> {
  if (request.type === "start") {
    session = new Session(request, {
      state: (state) => send({ type: "state", state }),
      progress: (progress) => send({ type: "progress", progress }),
      note: (text) => send({ type: "note", text }),
      keep: (urls) => send({ type: "keep", urls }),
    });
    return undefined;
  }
  if (!session) throw new Error("the worker was not started");
  switch (request.type) {
    case "open":
      return session.open(request.files, request.folder);
    case "close":
      return session.close();
    case "seek":
      return session.seek(request.frame);
    case "play":
      return session.play(request.on);
    case "box":
      return session.box(request.label, request.box);
    case "click":
      return session.click(request.label, request.x, request.y);
    case "stroke":
      return session.stroke(request.label, request.x, request.y, request.radius, request.erase, request.phase);
    case "undo":
      return session.undo();
    case "addObject":
      return session.addObject();
    case "removeObject":
      return session.removeObject(request.label);
    case "renameObject":
      return session.renameObject(request.label, request.name);
    case "showObject":
      return session.showObject(request.label, request.visible);
    case "track":
      return session.track(request.direction);
    case "pause":
      return session.pause(request.on);
    case "cancel":
      return session.cancel();
    case "save":
      return session.save(request.kind);
  }
}

self.onmessage = async ({ data }: MessageEvent<ToWorker>) => {
  try {
    send({ type: "reply", id: data.id, result: await handle(data) });
  } catch (error) {
    if (!(error instanceof Error && ["UserError", "Cancelled"].includes(error.name))) console.error(error);
    send({ type: "reply", id: data.id, error: sentence(error) });
  }
};
