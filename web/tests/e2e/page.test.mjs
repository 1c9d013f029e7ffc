/** The page from end to end in headless Chromium: what a person does, and what goes wrong. */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createServer } from "node:http";
import { existsSync } from "node:fs";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { after, afterEach, before, describe, test } from "node:test";
import { findChromium, findPython, launch, Page, python, recordRequests, ROOT, serve, SITE, WEB } from "./lib.mjs";

const chromium = findChromium();
const skip = !chromium ? "no Chromium" : !existsSync(path.join(SITE, "network/metadata.json")) ? "run `make web` first" : false;
const CLIPS = path.join(WEB, "tests/e2e/clips.py");
const EXAMPLE = path.join(ROOT, "osmn_tf/examples/meadow");
const AXE = path.join(WEB, "node_modules/axe-core/axe.min.js");
const davis = process.env.OSMN_DATA_ROOT && existsSync(path.join(process.env.OSMN_DATA_ROOT, "davis/JPEGImages"));
/** Screenshots of every step go here, where the variable is set. */
const SHOTS = process.env.OSMN_WEB_SHOTS;

/** Mean IoU of the page's masks with those that `osmn segment` makes with the same network from the same first mask. */
async function compareWithNative(video, zip, network, folder, given = 0, more = []) {
  const unzipped = path.join(folder, "unzipped");
  const names = python(CLIPS, "unzip", zip, unzipped).sort();
  const out = path.join(folder, "native");
  const command = ["-m", "osmn_tf.cli.main", "segment", video, "--mask", `${given}:${path.join(unzipped, names[given])}`];
  const options = ["--preset", network, ...(given ? ["--both-ways"] : []), "--out", out, "--no-overlay", "--no-sheet", "--quiet", "--force", ...more];
  const started = Date.now();
  const { status, stderr } = spawnSync(findPython(), [...command, ...options], {
    cwd: ROOT,
    env: { ...process.env, PYTHONPATH: ROOT },
    encoding: "utf8",
  });
  assert.equal(status, 0, stderr);
  const seconds = (Date.now() - started) / 1000;
  const masks = path.join(out, path.basename(video).replace(/\.[^.]*$/, ""));
  return { ...python(CLIPS, "compare", zip, masks, String(given)), seconds, first: path.join(unzipped, names[0]) };
}

describe("the page", { skip, timeout: 3_600_000 }, () => {
  let folder, server, browser, urls, clips;
  const pages = [];
  const network = path.join(SITE, "network");

  before(async () => {
    folder = await mkdtemp(path.join(os.tmpdir(), "osmn-web-test-"));
    clips = python(CLIPS, "make", path.join(folder, "clips"));
    server = await serve();
    browser = await launch();
    urls = await recordRequests(browser);
  });

  after(async () => {
    await browser?.close();
    await server?.stop();
    await rm(folder, { recursive: true, force: true });
  });

  async function shot(opened, name) {
    if (SHOTS) await opened.page.screenshot({ path: path.join(SHOTS, `${name}.png`) });
  }

  // Also what a test that failed has left.
  afterEach(async () => {
    for (const opened of pages.splice(0)) await opened.close();
  });

  /** A page in a profile of its own, closed after the test. */
  async function fresh(options) {
    const context = await browser.createBrowserContext();
    const opened = await Page.open(browser, options?.url ?? server.url, { context, ...options });
    pages.push(opened);
    return opened;
  }

  async function accessible(opened, what) {
    const source = await readFile(AXE, "utf8");
    await opened.page.evaluate(source); // through the browser's protocol: the page's own policy forbids foreign scripts
    const { violations } = await opened.page.evaluate(() => axe.run(document));
    const serious = violations.filter(({ impact }) => ["serious", "critical"].includes(impact));
    assert.deepEqual(
      serious.map(({ id, nodes }) => `${what}: ${id}: ${nodes.map((node) => node.target.join()).join("; ")}`),
      [],
    );
    return violations.map(({ id }) => id);
  }

  test("the example: mark two objects, correct, track, save; as `osmn segment` does it", async () => {
    const opened = await fresh();
    const { page } = opened;
    assert.equal(await page.evaluate(() => crossOriginIsolated), true);
    await accessible(opened, "start");
    await shot(opened, "1-start");
    // The network is not asked for before it is needed.
    assert.ok(!urls.some((url) => url.includes(".tflite") || url.includes(".wasm")));

    await opened.example();
    await shot(opened, "2-opened");
    const [left, top, right, bottom] = python(CLIPS, "box", path.join(EXAMPLE, "first_mask.png"), "1");
    await page.mouse.move(...(await opened.at(left, top)));
    await page.mouse.down();
    await page.mouse.move(...(await opened.at(right, bottom)), { steps: 4 });
    await shot(opened, "3-box");
    await page.mouse.up();
    let said = await opened.until("Marked|rough shape");
    assert.match(said.status, /^Marked/, said.alert);
    await shot(opened, "4-marked");

    await opened.press("add-object");
    await page.waitForFunction(() => document.querySelectorAll("#objects li").length === 2);
    const ball = python(CLIPS, "box", path.join(EXAMPLE, "first_mask.png"), "2");
    said = await opened.markClick((ball[0] + ball[2]) / 2, (ball[1] + ball[3]) / 2);
    assert.match(said.status, /^Marked/, said.alert);
    await opened.waitIdle();

    // A stroke and its undoing leave the masks as they were.
    const first = await opened.save("masks");
    await page.keyboard.press("d");
    await opened.drag([0.2, 0.2], [0.5, 0.25]);
    await page.waitForFunction(() => !document.querySelector("#undo").disabled);
    await shot(opened, "5-painted");
    assert.notDeepEqual(await readFile(await opened.save("masks")), await readFile(first));
    await page.keyboard.press("z");
    await opened.until("^Undone");
    await page.keyboard.press("b");
    const same = await opened.save("masks");
    assert.deepEqual(await readFile(same), await readFile(first));

    const name = await page.$("#objects input[type=text]");
    await name.click({ clickCount: 3 });
    await name.type("<b>car</b>");
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => document.querySelector("#objects input").value === "<b>car</b>");

    const tracking = opened.track("both");
    await page.waitForFunction(() => /^[2-5]\d of 60/.test(document.querySelector("#progress-text").textContent));
    await shot(opened, "6-tracking");
    const { status, fps, parts } = await tracking;
    assert.match(status, /^Done: 60 frames/);
    await page.$eval("#report", (element) => (element.open = true));
    await shot(opened, "7-tracked");
    await accessible(opened, "editor");

    const zip = await opened.save("masks");
    assert.equal(path.basename(zip), "meadow_masks.zip");
    const { first: _, ...result } = await compareWithNative(path.join(EXAMPLE, "meadow.mp4"), zip, network, path.join(folder, "example"));
    console.log(`example, 2 objects: ${fps.toFixed(2)} frames a second in the page; milliseconds a frame: ${JSON.stringify(parts)}`);
    console.log(`example: IoU with osmn segment: ${JSON.stringify(result)}`);
    assert.equal(result.frames, 60);
    assert.ok(result.mean >= 0.97, `mean IoU ${result.mean}`);

    assert.deepEqual(python(CLIPS, "coco", await opened.save("coco"), zip), { labels: [1, 2], frames: 60 });
    const overlay = python(CLIPS, "video", await opened.save("overlay"));
    assert.deepEqual([overlay.frames, overlay.width, overlay.height], [60, 854, 480]);
    const alpha = python(CLIPS, "video", await opened.save("alpha"));
    assert.deepEqual([alpha.frames, alpha.alpha], [60, "1"]);
    const cutouts = await opened.save("cutouts");
    assert.equal(python(CLIPS, "unzip", cutouts, path.join(folder, "cutouts")).length, 60);
    await shot(opened, "8-saved");
    assert.equal(await opened.alert(), "");
    assert.deepEqual(opened.errors, []);
  });

  test("finer masks, a setting that stays: as `osmn segment --quality good` makes them", async () => {
    const opened = await fresh();
    await Promise.all([opened.page.waitForNavigation(), opened.page.$eval("#finer", (box) => box.click())]);
    assert.equal(await opened.page.$eval("#finer", ({ checked }) => checked), true);
    const video = path.join(EXAMPLE, "meadow.mp4");
    assert.equal(await opened.openFile(video), "");
    const box = python(CLIPS, "box", path.join(EXAMPLE, "first_mask.png"), "1");
    assert.match((await opened.markBox([box[0], box[1]], [box[2], box[3]])).status, /^Marked/);
    const { fps } = await opened.track("forward");
    const zip = await opened.save("masks");
    const compare = (...more) => compareWithNative(video, zip, network, path.join(folder, `finer${more.length}`), 0, more);
    const [{ mean }, plain] = [await compare("--quality", "good"), await compare()];
    console.log(`finer: ${fps.toFixed(2)} frames a second; IoU with --quality good ${mean}, without ${plain.mean}`);
    assert.ok(mean >= 0.97, `mean IoU ${mean}`);
    assert.ok(mean > plain.mean, `mean IoU ${plain.mean} without it`);
    assert.deepEqual(opened.errors, []);
  });

  test("a real clip at 480 lines, from a mark in its middle, both ways", async (t) => {
    const opened = await fresh();
    let video, box, middle;
    if (davis) {
      ({ video, box, middle } = python(CLIPS, "davis", folder, "hike", "24"));
    } else {
      t.diagnostic("OSMN_DATA_ROOT names no DAVIS: with the example instead");
      video = path.join(EXAMPLE, "meadow.mp4");
      middle = 30;
      box = python(CLIPS, "box", path.join(EXAMPLE, "masks/00030.png"), "1");
    }
    assert.equal(await opened.openFile(video), "");
    for (let index = 0; index < middle; index++) await opened.page.keyboard.press("ArrowRight");
    const text = `${middle + 1} / `;
    await opened.page.waitForFunction((start) => document.querySelector("#frame-text").textContent.startsWith(start), {}, text);
    const { status, alert } = await opened.markBox([box[0], box[1]], [box[2], box[3]]);
    assert.match(status, /^Marked/, alert);
    await shot(opened, "12-clip");
    const { fps, parts } = await opened.track("both");
    const zip = await opened.save("masks");
    const { first, ...result } = await compareWithNative(video, zip, network, path.join(folder, "clip"), middle);
    const native = python(CLIPS, "native", network, video, first, "2", String(result.frames - 1));
    console.log(
      `${path.basename(video)}, 1 object: ${fps.toFixed(2)} frames a second in the page, ${native.fps.toFixed(2)} in the package's own ` +
        `runtime; milliseconds a frame in the page: ${JSON.stringify(parts)}`,
    );
    console.log(`${path.basename(video)}: IoU with osmn segment: ${JSON.stringify(result)}`);
    assert.ok(result.mean >= 0.97, `mean IoU ${result.mean}`);
    assert.deepEqual(opened.errors, []);
  });

  test("a video that is to be turned is shown, marked and saved upright", async () => {
    const opened = await fresh();
    assert.equal(await opened.openFile(clips["turned.mp4"]), "");
    const size = await opened.page.$eval("#canvas", ({ width, height }) => [width, height]);
    assert.deepEqual(size, [180, 320]);
    const { status, alert } = await opened.markBox([0.23, 0.04], [0.54, 0.41]);
    assert.match(status, /^Marked/, alert);
    await shot(opened, "13-turned");
    const seen = await opened.page.$eval("#network", ({ textContent }) => textContent);
    assert.match(seen, /^Network at 464 × 464 pixels/); // not squeezed into the shape for wide videos
    await opened.track("forward");
    const zip = await opened.save("masks");
    const { first: _, ...result } = await compareWithNative(clips["turned.mp4"], zip, network, path.join(folder, "turned"));
    assert.equal(result.frames, 12);
    assert.ok(result.mean >= 0.97, `mean IoU ${result.mean}`);
    assert.deepEqual(opened.errors, []);
  });

  test("from here on: a correction changes what follows and nothing before", async () => {
    const opened = await fresh();
    assert.equal(await opened.openFile(clips["h264.mp4"]), "");
    await opened.markBox([0.04, 0.46], [0.41, 0.77]);
    await opened.track("both");
    const before = await opened.save("masks");
    for (let i = 0; i < 5; i++) await opened.page.keyboard.press("ArrowLeft");
    await opened.page.waitForFunction(() => document.querySelector("#frame-text").textContent === "7 / 12");
    await opened.page.keyboard.press("e");
    await opened.page.$eval("#brush", (input) => (input.value = "30"));
    await opened.drag([0.1, 0.6], [0.3, 0.6]);
    const { status } = await opened.track("onward");
    assert.match(status, /^Done: 6 frames/);
    const later = await opened.save("masks");
    const [first, second] = [before, later].map((zip, i) => {
      const target = path.join(folder, `onward${i}`);
      return { target, names: python(CLIPS, "unzip", zip, target).sort() };
    });
    for (const [index, name] of first.names.entries()) {
      const same = (await readFile(path.join(first.target, name))).equals(await readFile(path.join(second.target, name)));
      if (index < 6) assert.ok(same, `frame ${index} changed`);
      if (index === 6) assert.ok(!same, "the correction is not there");
    }
  });

  test("everything by keyboard", async () => {
    const opened = await fresh();
    await opened.page.focus("#example");
    await opened.page.keyboard.press("Enter");
    await opened.page.waitForSelector("#editor:not([hidden])");
    await opened.waitIdle();
    await opened.page.keyboard.press("ArrowRight");
    await opened.page.waitForFunction(() => document.querySelector("#frame-text").textContent === "2 / 60");
    await opened.page.keyboard.press(" ");
    await opened.page.waitForFunction(() => document.querySelector("#play").getAttribute("aria-label") === "Stop");
    await opened.page.keyboard.press(" ");
    await opened.page.waitForFunction(() => document.querySelector("#play").getAttribute("aria-label") === "Play");
    const size = () => opened.page.$eval("#brush", (input) => Number(input.value));
    const brush = await size();
    await opened.page.keyboard.press("]");
    assert.ok((await size()) > brush);
    await opened.page.keyboard.press("[");
    await opened.page.keyboard.press("c");
    await opened.page.keyboard.press("Enter"); // the cross appears in the middle
    for (let i = 0; i < 3; i++) {
      await opened.page.keyboard.down("Shift");
      await opened.page.keyboard.press("ArrowDown");
      await opened.page.keyboard.up("Shift");
    }
    await opened.page.keyboard.press("Enter");
    const { alert } = await opened.until("Marked|rough shape");
    assert.equal(alert, "");
    await opened.waitIdle();
    await opened.page.keyboard.press("z");
    await opened.until("^Undone");
  });

  test("pause, continue and cancel; what was done is kept", async () => {
    const opened = await fresh();
    await opened.example();
    await opened.markBox([0.04, 0.46], [0.41, 0.77]);
    await opened.press("track-both");
    await opened.page.waitForFunction(() => Number(document.querySelector("#progress-bar").value) > 2);
    await opened.press("pause");
    await opened.page.waitForFunction(() => document.querySelector("#pause").textContent === "Continue");
    await new Promise((done) => setTimeout(done, 1500));
    const value = () => opened.page.$eval("#progress-bar", (bar) => bar.value);
    const at = await value();
    await new Promise((done) => setTimeout(done, 1500));
    assert.equal(await value(), at);
    await opened.press("pause");
    await opened.page.waitForFunction((before) => document.querySelector("#progress-bar").value > before, {}, at);
    await opened.page.keyboard.press("Escape");
    const { status, alert } = await opened.until("^Cancelled");
    assert.equal(alert, "");
    assert.match(status, /^Cancelled\. The frames that were done before are kept\./);
    await opened.waitIdle();
    assert.ok(await opened.save("masks"));
  });

  test("what cannot be opened is refused with a sentence, and the page goes on", async () => {
    const opened = await fresh();
    const refusals = [
      ["text.mp4", /“text\.mp4” is no video that this page can read/],
      ["empty.mp4", /“empty\.mp4” is empty/],
      ["cut_head.mp4", /no picture in it: .* was cut off/],
      ["tiny.webm", /“tiny\.webm” is 1 × 1 pixels: too small/],
      ["sound.mp4", /has no picture in it/],
      ["hevc.mp4", /HEVC \(H\.265\), which this browser cannot decode.*H\.264/],
    ];
    for (const [name, message] of refusals) {
      const alert = await opened.openFile(clips[name]);
      console.log(`${name}: ${alert}`);
      assert.match(alert, message);
      await opened.press("alert-close");
    }
    for (const [name, message] of [
      ["uneven", /“1\.png” is 320 × 170 pixels, but the first image is 320 × 180/],
      ["nothing", /no image .* in that folder/],
    ]) {
      let alert = await opened.openFile(clips[name], "folder-input");
      if (!alert) {
        await opened.press("next");
        await opened.page.waitForSelector("#alert:not([hidden])");
        alert = await opened.alert();
      }
      console.log(`${name}: ${alert}`);
      assert.match(alert, message);
      await opened.closeVideo();
    }
    for (const name of ["h264.mp4", "vp9.webm", "vp8.webm"]) {
      assert.equal(await opened.openFile(clips[name]), "");
      assert.match(await opened.text("frame-text"), /^1 \/ 12$/);
      await opened.closeVideo();
    }
    assert.equal(await opened.openFile(clips["images"], "folder-input"), "");
    assert.match(await opened.text("frame-text"), /^1 \/ 4$/);
    assert.deepEqual(opened.errors, []);
  });

  test("a video that was cut off or damaged says so, and what is there can be used", async () => {
    const opened = await fresh();
    assert.equal(await opened.openFile(clips["cut.mp4"]), "");
    const note = await opened.text("status");
    console.log(`cut.mp4: ${note}`);
    assert.match(note, /was cut off: only the first \d+ of its 12 frames are there/);
    await opened.closeVideo();
    const alert = await opened.openFile(clips["damaged.mp4"]);
    console.log(`damaged.mp4: ${alert}`);
    assert.match(alert, /cannot be decoded|damaged/);
  });

  test("a mark outside of the picture, and nothing marked", async () => {
    const opened = await fresh();
    await opened.example();
    await opened.page.keyboard.press("t");
    const [x, y] = await opened.at(0.5, 0);
    // The frame around the picture takes the mouse too.
    await opened.page.mouse.move(x - 40, y - 3);
    await opened.page.mouse.down();
    await opened.page.mouse.move(x + 40, y - 2, { steps: 3 });
    await opened.page.mouse.up();
    await opened.page.waitForSelector("#alert:not([hidden])");
    const alert = await opened.alert();
    console.log(`mark outside: ${alert}`);
    assert.match(alert, /The box lies outside of the picture, or is too small/);
  });

  test("storage that is full ends in a sentence", async () => {
    const opened = await fresh();
    await opened.example();
    await opened.markBox([0.04, 0.46], [0.41, 0.77]);
    const session = await opened.page.createCDPSession();
    await session.send("Storage.overrideQuotaForOrigin", { origin: new URL(server.url).origin, quotaSize: 20_000 });
    await opened.page.$eval("[data-save=overlay]", (button) => button.click());
    await opened.page.waitForSelector("#alert:not([hidden])");
    const alert = await opened.alert();
    console.log(`storage full: ${alert}`);
    assert.match(alert, /storage is full/);
    await session.send("Storage.overrideQuotaForOrigin", { origin: new URL(server.url).origin });
    assert.ok(await opened.save("masks"));
  });

  test("a network that is missing, damaged or of another version", async () => {
    const copy = path.join(folder, "network");
    const cases = [
      ["missing", (target) => rm(path.join(target, "step.tflite")), /network's file step\.tflite is missing on the server/],
      ["damaged", async (target) => writeFile(path.join(target, "encoder.tflite"), "x"), /encoder\.tflite is damaged or of another version/],
      [
        "of another version",
        async (target) => {
          const file = path.join(target, "metadata.json");
          const content = JSON.parse(await readFile(file, "utf8"));
          await writeFile(file, JSON.stringify({ ...content, format_version: 99 }));
        },
        /format version 99/,
      ],
    ];
    for (const [name, spoil, message] of cases) {
      await rm(copy, { recursive: true, force: true });
      await cp(network, copy, { recursive: true });
      const other = await serve("--preset", copy).catch(() => null);
      await spoil(copy);
      const opened = await fresh({ url: other.url });
      await opened.example();
      const { alert } = await opened.markBox([0.04, 0.46], [0.41, 0.77]);
      console.log(`network ${name}: ${alert}`);
      assert.match(alert, message);
        await other.stop();
    }
  });

  test("a hidden tab goes on tracking", async () => {
    const opened = await fresh();
    await opened.example();
    await opened.markBox([0.04, 0.46], [0.41, 0.77]);
    await opened.press("track-both");
    await opened.page.waitForFunction(() => Number(document.querySelector("#progress-bar").value) > 1);
    const session = await opened.page.createCDPSession();
    await session.send("Emulation.setFocusEmulationEnabled", { enabled: false });
    const other = await opened.page.browserContext().newPage(); // in front of it
    await other.bringToFront();
    const seconds = Number(process.env.OSMN_WEB_HIDDEN ?? 5);
    await new Promise((done) => setTimeout(done, seconds * 1000));
    const hidden = await opened.page.evaluate(() => document.visibilityState);
    await opened.page.bringToFront();
    const { status, alert } = await opened.until("^Done");
    console.log(`tab ${hidden} for ${seconds} s: ${status}`);
    assert.equal(alert, "");
  });

  test("dark, and on a phone", async () => {
    const opened = await fresh({ viewport: { width: 360, height: 740, isMobile: true, hasTouch: true } });
    await opened.page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: "dark" }]);
    await accessible(opened, "dark start");
    await shot(opened, "9-phone-start");
    await opened.example();
    await opened.markBox([0.04, 0.46], [0.41, 0.77]);
    await accessible(opened, "dark editor");
    const wide = await opened.page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
    assert.equal(wide, false, "the page is wider than the screen");
    await shot(opened, "10-phone-editor");
    await opened.page.setViewport({ width: 1280, height: 900, isMobile: true, hasTouch: true }); // another kind would reload it
    await shot(opened, "11-dark");
  });

  test("from a host that sends no headers, and the second time without any host", async () => {
    const types = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".wasm": "application/wasm" };
    const plain = createServer(async (request, response) => {
      const name = decodeURIComponent(new URL(request.url, "http://x").pathname).replace(/\/$/, "/index.html");
      try {
        const content = await readFile(path.join(SITE, name));
        response.writeHead(200, { "Content-Type": types[path.extname(name)] ?? "application/octet-stream" }).end(content);
      } catch {
        response.writeHead(404).end();
      }
    });
    await new Promise((done) => plain.listen(0, "127.0.0.1", done));
    const url = `http://localhost:${plain.address().port}/`;
    const opened = await fresh({ url });
    assert.equal(await opened.page.evaluate(() => crossOriginIsolated), false);
    assert.equal(await opened.openFile(clips["h264.mp4"]), "");
    await opened.markBox([0.04, 0.46], [0.41, 0.77]);
    assert.match(await opened.text("network"), /1 thread/);
    await opened.track("forward");
    await opened.page.evaluate(async () => {
      await navigator.serviceWorker.ready;
      const kept = async () => {
        const names = (await caches.keys()).filter((name) => name.startsWith("osmn-page-"));
        const urls = (await Promise.all(names.map(async (name) => (await caches.open(name)).keys()))).flat().map(({ url }) => url);
        return urls.filter((url) => url.includes(".tflite")).length === 6 && urls.some((url) => url.includes(".wasm"));
      };
      while (!(await kept())) await new Promise((done) => setTimeout(done, 200));
    });
    plain.close();
    plain.closeAllConnections();
    await opened.page.reload({ waitUntil: "load" });
    // Now the service worker answers, and adds the headers.
    assert.equal(await opened.page.evaluate(() => crossOriginIsolated), true);
    await opened.example();
    const { status, alert } = await opened.markBox([0.04, 0.46], [0.41, 0.77]);
    assert.match(status, /^Marked/, alert);
    console.log(`offline: ${await opened.text("network")}`);
  });

  test("nothing was asked of any other origin", () => {
    const foreign = urls.filter((url) => !/^(http:\/\/(localhost|127\.0\.0\.1):\d+\/|blob:http:\/\/localhost|data:|about:|chrome:)/.test(url));
    console.log(`${urls.length} requests, ${urls.filter((url) => url.startsWith("http")).length} of them by HTTP`);
    assert.deepEqual(foreign, []);
    assert.ok(urls.some((url) => url.includes("step.tflite")), "the worker's requests were not seen");
    assert.ok(urls.some((url) => url.endsWith(".wasm")), "the runtime's requests were not seen");
  });
});
