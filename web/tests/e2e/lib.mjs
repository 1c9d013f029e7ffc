/** A server, a browser and the page's parts for end-to-end tests. */

import { spawn, spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, readdir, rename, rm, stat } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import puppeteer from "puppeteer-core";

export const WEB = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");
export const ROOT = path.dirname(WEB);
export const SITE = path.join(ROOT, "osmn_tf/web/site");
/** What takes longer hangs, even on a busy machine. */
export const PATIENCE = 120_000;

export function findChromium() {
  const names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
  const folders = (process.env.PATH ?? "").split(path.delimiter);
  const found = folders.flatMap((folder) => names.map((name) => path.join(folder, name))).find((file) => existsSync(file));
  return process.env.CHROMIUM ?? found ?? null;
}

export function findPython() {
  const own = path.join(ROOT, ".venv/bin/python");
  return process.env.OSMN_PYTHON ?? (existsSync(own) ? own : "python3");
}

const environment = { ...process.env, PYTHONPATH: ROOT, TF_CPP_MIN_LOG_LEVEL: "3" };

/** Runs a Python script and returns what it prints, as JSON if it is. */
export function python(...args) {
  const { status, stdout, stderr } = spawnSync(findPython(), args, { env: environment, cwd: ROOT, encoding: "utf8" });
  if (status !== 0) throw new Error(`python ${args.join(" ")}: ${stderr}`);
  const last = stdout.trim().split("\n").pop();
  try {
    return JSON.parse(last);
  } catch {
    return stdout;
  }
}

/** `osmn web` on a free port. */
export async function serve(...args) {
  const command = ["-m", "osmn_tf.cli.main", "web", "--no-open", ...args];
  const child = spawn(findPython(), command, { env: environment, cwd: ROOT, stdio: ["ignore", "pipe", "inherit"] });
  const url = await new Promise((resolve, reject) => {
    let text = "";
    child.stdout.on("data", (data) => {
      text += data;
      const found = /http:\/\/localhost:\d+\//.exec(text);
      if (found) resolve(found[0]);
    });
    child.on("exit", (code) => reject(new Error(`osmn web ended with code ${code}`)));
  });
  return { url, stop: () => new Promise((done) => (child.exitCode === null ? child.once("exit", done) && child.kill("SIGINT") : done())) };
}

export function launch(...args) {
  return puppeteer.launch({
    executablePath: findChromium(),
    headless: true,
    protocolTimeout: 20 * PATIENCE, // more than whatever is waited for has
    // The tests run as root in containers, which have little shared memory.
    args: ["--no-sandbox", "--disable-dev-shm-usage", ...args],
  });
}

/** The addresses of all requests of a browser: of its pages, workers and their workers. */
export async function recordRequests(browser) {
  const urls = [];
  const watch = async (session, info) => {
    session.on("Network.requestWillBeSent", ({ request }) => urls.push(request.url));
    session.on("Network.webSocketCreated", ({ url }) => urls.push(url));
    session.on("sessionattached", (child) => void watch(child));
    const tolerant = (method, params) => session.send(method, params).catch(() => {});
    // All at once: a service worker that waits answers nothing before it runs.
    await Promise.all([
      info !== "browser" && tolerant("Network.enable"),
      tolerant("Target.setAutoAttach", { autoAttach: true, waitForDebuggerOnStart: true, flatten: true }),
      tolerant("Runtime.runIfWaitingForDebugger"),
    ]);
  };
  await watch(await browser.target().createCDPSession(), "browser");
  return urls;
}

export class Page {
  constructor(page, downloads, context) {
    this.page = page;
    this.context = context;
    this.downloads = downloads;
    this.errors = [];
    page.on("dialog", (dialog) => dialog.accept());
    page.on("pageerror", (error) => this.errors.push(String(error)));
    page.on("console", (message) => {
      // LiteRT reports on the error stream what it does.
      if (message.type() === "error" && !/^(INFO|WARNING):/.test(message.text())) this.errors.push(message.text());
    });
  }

  static async open(browser, url, { context, viewport = { width: 1280, height: 900 } } = {}) {
    const page = await (context ?? browser).newPage();
    const downloads = await mkdtemp(path.join(os.tmpdir(), "osmn-web-"));
    const session = await page.createCDPSession();
    await session.send("Browser.setDownloadBehavior", {
      behavior: "allow",
      downloadPath: downloads,
      browserContextId: (context ?? browser.defaultBrowserContext()).id,
    });
    page.setDefaultTimeout(PATIENCE);
    await page.setViewport(viewport);
    const opened = new Page(page, downloads, context);
    await page.goto(url, { waitUntil: "load" });
    return opened;
  }

  async close() {
    await this.page.close({ runBeforeUnload: false });
    await this.context?.close();
    await rm(this.downloads, { recursive: true, force: true });
  }

  text(id) {
    return this.page.$eval(`#${id}`, (element) => element.textContent);
  }

  /** The alert's text, or "" if none is shown. */
  alert() {
    return this.page.$eval("#alert", (element) => (element.hidden ? "" : element.querySelector("p").textContent));
  }

  press(id) {
    return this.page.$eval(`#${id}`, (element) => element.click());
  }

  /** Waits until an alert or a status that matches is shown; returns both. */
  async until(pattern, patience = PATIENCE) {
    await this.page.waitForFunction(
      (source) => {
        const shown = document.querySelector("#alert");
        return !shown.hidden || new RegExp(source).test(document.querySelector("#status").textContent);
      },
      { timeout: patience, polling: 100 },
      pattern,
    );
    return { alert: await this.alert(), status: await this.text("status") };
  }

  async waitIdle() {
    await this.page.waitForFunction(() => document.querySelector("#stage").getAttribute("aria-busy") === "false", {
      timeout: PATIENCE,
      polling: 100,
    });
  }

  async example() {
    await this.press("example");
    await this.page.waitForSelector("#editor:not([hidden])");
    await this.waitIdle();
  }

  async closeVideo() {
    await this.press("alert-close");
    await this.press("close");
    await this.page.waitForSelector("#start:not([hidden])");
  }

  async chooseFiles(files, input = "file-input") {
    await this.press("alert-close");
    const element = await this.page.$(`#${input}`);
    await element.uploadFile(...(Array.isArray(files) ? files : [files]));
  }

  async openFile(file, input = "file-input") {
    await this.chooseFiles(file, input);
    await this.page.waitForFunction(
      () => !document.querySelector("#editor").hidden || !document.querySelector("#alert").hidden,
      { timeout: PATIENCE, polling: 100 },
    );
    const alert = await this.alert();
    if (!alert) await this.waitIdle();
    return alert;
  }

  /** Where a point of the picture (fractions of its sides) is on the screen. */
  async at(fx, fy) {
    const area = await this.page.$eval("#canvas", (canvas) => {
      canvas.scrollIntoView({ block: "center" });
      const { x, y, width, height } = canvas.getBoundingClientRect();
      return { x, y, width, height };
    });
    return [area.x + fx * area.width, area.y + fy * area.height];
  }

  async drag(from, to) {
    await this.page.mouse.move(...(await this.at(...from)));
    await this.page.mouse.down();
    await this.page.mouse.move(...(await this.at((from[0] + to[0]) / 2, (from[1] + to[1]) / 2)), { steps: 3 });
    await this.page.mouse.move(...(await this.at(...to)), { steps: 3 });
    await this.page.mouse.up();
  }

  async markBox(from, to) {
    await this.drag(from, to);
    return this.until("Marked|rough shape");
  }

  async markClick(x, y) {
    await this.page.keyboard.press("c");
    await this.page.mouse.click(...(await this.at(x, y)));
    return this.until("Marked|rough shape");
  }

  async track(direction = "both", patience = PATIENCE) {
    await this.press(`track-${direction}`);
    const { alert, status } = await this.until("^Done|^Cancelled", patience);
    if (alert) throw new Error(alert);
    const fps = Number(await this.page.$eval("#report", (element) => element.dataset.fps));
    const parts = await this.page.$$eval("#report-rows tr", (rows) =>
      Object.fromEntries(rows.map((row) => [row.cells[0].textContent, Number(row.cells[1].textContent)])),
    );
    return { status, fps, parts };
  }

  /** Saves a result and returns the file's path: in a folder of its own, since files of one name replace each other. */
  async save(kind) {
    await this.page.$eval(`[data-save=${kind}]`, (button) => button.click());
    const { alert } = await this.until("^Saved as");
    if (alert) throw new Error(alert);
    for (const start = Date.now(); Date.now() - start < PATIENCE; ) {
      const [name] = (await readdir(this.downloads)).filter((name) => /\.(zip|json|mp4|webm)$/.test(name));
      if (name && (await stat(path.join(this.downloads, name))).size > 0) {
        const folder = await mkdtemp(path.join(this.downloads, "saved-"));
        await rename(path.join(this.downloads, name), path.join(folder, name));
        return path.join(folder, name);
      }
      await new Promise((done) => setTimeout(done, 100));
    }
    throw new Error(`${kind} was not downloaded`);
  }
}
