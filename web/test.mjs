/**
 * Runs the page's tests: unit tests in Node, and end-to-end tests in headless Chromium where there is one.
 *
 *     node test.mjs [unit | e2e]
 */

import { spawnSync } from "node:child_process";
import { mkdir, readdir, rm } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";
import * as esbuild from "esbuild";

const here = path.dirname(fileURLToPath(import.meta.url));
const out = path.join(here, ".build/tests");
const wanted = process.argv[2];

await rm(out, { recursive: true, force: true });
await mkdir(out, { recursive: true });
const files = [];
if (wanted !== "e2e") {
  const unit = path.join(here, "tests/unit");
  await esbuild.build({
    entryPoints: (await readdir(unit)).filter((name) => name.endsWith(".test.ts")).map((name) => path.join(unit, name)),
    bundle: true,
    platform: "node",
    format: "esm",
    outdir: out,
    outExtension: { ".js": ".mjs" },
    logLevel: "warning",
  });
  files.push(...(await readdir(out)).filter((name) => name.endsWith(".mjs")).map((name) => path.join(out, name)));
}
if (wanted !== "unit") files.push(path.join(here, "tests/e2e/page.test.mjs"));
const environment = { ...process.env, OSMN_WEB: here };
const { status } = spawnSync(process.execPath, ["--test", ...files], { stdio: "inherit", env: environment, cwd: here });
process.exit(status ?? 1);
