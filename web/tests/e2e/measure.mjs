/**
 * Measures the page: speed beside the package's own runtime in turns, and the renderer's memory with longer videos.
 *
 *     npm run measure -- --preset EXPORTED_FOLDER [--frames 200] [--long 1000] [--threads 2]
 *
 * Linux only: the peak of a process's memory is read from /proc.
 */

import { mkdtemp, readFile, rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { launch, Page, python, serve, WEB, SITE } from "./lib.mjs";

const { values } = parseArgs({
  options: {
    preset: { type: "string", default: path.join(SITE, "network") },
    frames: { type: "string", default: "200" },
    long: { type: "string", default: "1000" },
    threads: { type: "string", default: "2" },
  },
});
const CLIPS = path.join(WEB, "tests/e2e/clips.py");
const folder = await mkdtemp(path.join(os.tmpdir(), "osmn-web-measure-"));
const preset = path.resolve(values.preset);
const { network_size: size, quantization } = JSON.parse(await readFile(path.join(preset, "metadata.json"), "utf8"));
console.log(`network ${size.join("x")} ${quantization}, ${values.threads} threads, ${os.cpus().length} cores: ${os.cpus()[0].model}`);
const server = await serve("--preset", preset);

const MS_A_FRAME = 2000; // at most, before a run is given up

/** Peak of the renderer's memory in MB: of the process with the most, which holds the page and its workers. */
async function peak(browser) {
  const session = await browser.target().createCDPSession();
  const { processInfo } = await session.send("SystemInfo.getProcessInfo");
  const sizes = [];
  for (const { type, id } of processInfo) {
    if (type !== "renderer") continue;
    const status = await readFile(`/proc/${id}/status`, "utf8");
    sizes.push(Number(/VmHWM:\s+(\d+)/.exec(status)[1]) / 1024);
  }
  return Math.max(...sizes);
}

async function inPage(video, frames) {
  const browser = await launch();
  try {
    const opened = await Page.open(browser, `${server.url}?threads=${values.threads}`);
    const alert = (await opened.openFile(video)) || (await opened.markBox([0.036, 0.4625], [0.411, 0.765])).alert;
    if (alert) throw new Error(alert);
    const { fps, parts } = await opened.track("forward", MS_A_FRAME * frames);
    const memory = await peak(browser);
    const load = os.loadavg()[0].toFixed(1);
    console.log(`page, ${frames} frames: ${fps.toFixed(2)} frames a second, renderer ${memory.toFixed(0)} MB, load ${load}`);
    console.log(`  milliseconds a frame: ${Object.entries(parts).map(([part, time]) => `${part} ${time}`).join(", ")}`);
    const zip = await opened.save("masks");
    await opened.page.close();
    return { fps, memory, zip, masks: python(CLIPS, "unzip", zip, path.join(folder, `masks${frames}`)).sort() };
  } finally {
    await browser.close();
  }
}

function natively(video, mask) {
  const { fps } = python(CLIPS, "native", preset, video, mask, values.threads, values.frames - 1);
  console.log(`native, ${values.frames} frames: ${fps.toFixed(2)} frames a second, load ${os.loadavg()[0].toFixed(1)}`);
  return fps;
}

try {
  const short = python(CLIPS, "long", folder, values.frames);
  const first = await inPage(short, values.frames);
  const mask = path.join(folder, `masks${values.frames}`, first.masks[0]);
  const native = [natively(short, mask)];
  const second = await inPage(short, values.frames);
  native.push(natively(short, mask));
  const page = (first.fps + second.fps) / 2;
  const own = (native[0] + native[1]) / 2;
  console.log(`page ${page.toFixed(2)}, native ${own.toFixed(2)} frames a second: ${(page / own).toFixed(2)} of it`);
  if (Number(values.long)) {
    const long = await inPage(python(CLIPS, "long", folder, values.long), values.long);
    const shorter = Math.max(first.memory, second.memory);
    console.log(`renderer at ${values.long} frames ${long.memory.toFixed(0)} MB, at ${values.frames} ${shorter.toFixed(0)} MB: ${(long.memory / shorter).toFixed(3)} of it`);
  }
} finally {
  await server.stop();
  await rm(folder, { recursive: true, force: true });
}
