/**
 * Builds the page into a folder of static files.
 *
 *     node build.mjs --network EXPORTED_FOLDER [--prompts EXPORTED_FOLDER] [--out FOLDER] [--example VIDEO]
 *
 * The network of --prompts makes masks of boxes and clicks; without it, the one that tracks does.
 */

import { createHash } from "node:crypto";
import { cp, mkdir, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import * as esbuild from "esbuild";

const here = path.dirname(fileURLToPath(import.meta.url));
const { values } = parseArgs({
  options: {
    network: { type: "string" },
    prompts: { type: "string" },
    out: { type: "string", default: path.join(here, "../osmn_tf/web/site") },
    example: { type: "string", default: path.join(here, "../osmn_tf/examples/meadow/meadow.mp4") },
  },
});
const out = path.resolve(values.out);

// The same as in osmn_tf/web/server.py, which a test compares; `frame-ancestors` works in a header only.
export const CSP = [
  "default-src 'none'",
  "script-src 'self' 'wasm-unsafe-eval'",
  "style-src 'self'",
  "img-src 'self'",
  "connect-src 'self'",
  // mediabunny splits colour and alpha in a worker that it makes of a part of itself.
  "worker-src 'self' blob:",
  "base-uri 'none'",
  "form-action 'none'",
].join("; ");

const common = {
  bundle: true,
  minify: true,
  target: "es2022",
  legalComments: "linked",
  absWorkingDir: here,
  logLevel: "warning",
};

async function version(name) {
  return JSON.parse(await readFile(path.join(here, "node_modules", name, "package.json"), "utf8")).version;
}

/** Bundles one file; its name in the folder has a digest of its content. */
async function bundle(entry, options) {
  const result = await esbuild.build({
    ...common,
    ...options,
    entryPoints: [entry],
    entryNames: "[name]-[hash]",
    outdir: out,
    metafile: true,
  });
  const outputs = Object.keys(result.metafile.outputs).filter((name) => !name.endsWith(".txt"));
  return path.basename(outputs[0]);
}

await rm(out, { recursive: true, force: true });
await mkdir(out, { recursive: true });

// LiteRT's own files: with threads, without, for browsers without relaxed SIMD, and for WebGPU.
const litert = `litert-${await version("@litertjs/core")}`;
await cp(path.join(here, "node_modules/@litertjs/core/wasm"), path.join(out, litert), { recursive: true });

const worker = await bundle("src/worker/worker.ts", { format: "iife" });
const script = await bundle("src/page/main.ts", {
  format: "esm",
  define: { WORKER_SCRIPT: JSON.stringify(worker), LITERT_FOLDER: JSON.stringify(`${litert}/`), PROMPTS: String(Boolean(values.prompts)) },
});
const style = await bundle("public/style.css", {});

await cp(path.join(here, "public/icon.svg"), path.join(out, "icon.svg"));
const html = await readFile(path.join(here, "public/index.html"), "utf8");
const page = html.replace("%CSP%", CSP).replace("%STYLE%", style).replace("%SCRIPT%", script);
await writeFile(path.join(out, "index.html"), page);

await mkdir(path.join(out, "example"));
await cp(values.example, path.join(out, "example/meadow.mp4"));

for (const folder of ["network", "prompts"]) {
  if (!values[folder]) continue;
  await mkdir(path.join(out, folder));
  const metadata = JSON.parse(await readFile(path.join(values[folder], "metadata.json"), "utf8"));
  for (const name of ["metadata.json", ...Object.values(metadata.files).map((file) => file.name)]) {
    await cp(path.join(values[folder], name), path.join(out, folder, name));
  }
}

const notices = ["This page contains:", ""];
for (const name of ["@litertjs/core", "@litertjs/wasm-utils", "mediabunny"]) {
  const folder = path.join(here, "node_modules", name);
  const { license } = JSON.parse(await readFile(path.join(folder, "package.json"), "utf8"));
  notices.push(`${name} ${await version(name)}, ${license}, sources: https://www.npmjs.com/package/${name}`);
  const text = (await readdir(folder)).find((file) => /^licen[cs]e/i.test(file));
  if (text) notices.push("", await readFile(path.join(folder, text), "utf8"), "");
}
await writeFile(path.join(out, "NOTICES.txt"), notices.join("\n"));

// For static hosts that read such a file (Netlify, Cloudflare Pages): the headers that `osmn web` sends.
await writeFile(
  path.join(out, "_headers"),
  `/*\n  Cross-Origin-Opener-Policy: same-origin\n  Cross-Origin-Embedder-Policy: require-corp\n` +
    `  Content-Security-Policy: ${CSP}; frame-ancestors 'none'\n  X-Content-Type-Options: nosniff\n  Referrer-Policy: no-referrer\n`,
);

// The service worker knows the files of this build; a new build has another digest and so another cache.
const shell = ["./", script, worker, style, "icon.svg", "example/meadow.mp4"];
const digest = createHash("sha256").update(page).update(worker).update(litert).digest("hex").slice(0, 16);
await esbuild.build({
  ...common,
  format: "iife",
  entryPoints: ["src/sw.ts"],
  outfile: path.join(out, "sw.js"),
  define: { BUILD: JSON.stringify(digest), SHELL: JSON.stringify(shell) },
});

let bytes = 0;
for (const entry of await readdir(out, { recursive: true })) bytes += (await stat(path.join(out, entry))).size;
console.log(`${path.relative(process.cwd(), out)}: ${(bytes / 1e6).toFixed(1)} MB`);
