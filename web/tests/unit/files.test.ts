/** PNG and ZIP files, read again by other means. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { inflateSync } from "node:zlib";
import { crc32 } from "../../src/core/crc32";
import { maskPng, rgbaPng } from "../../src/core/png";
import { ZipWriter } from "../../src/core/zip";
import { labels } from "./inputs";

test("CRC-32 has its check value", () => {
  assert.equal(crc32(new TextEncoder().encode("123456789")), 0xcbf43926);
  assert.equal(crc32(new TextEncoder().encode("12345"), new TextEncoder().encode("6789")), 0xcbf43926);
});

function chunks(png: Uint8Array): Map<string, Uint8Array> {
  const view = new DataView(png.buffer);
  const found = new Map<string, Uint8Array>();
  for (let at = 8; at < png.length; ) {
    const length = view.getUint32(at);
    const name = Buffer.from(png.subarray(at + 4, at + 8)).toString();
    assert.equal(view.getUint32(at + 8 + length), crc32(png.subarray(at + 4, at + 8 + length)));
    found.set(name, png.subarray(at + 8, at + 8 + length));
    at += 12 + length;
  }
  return found;
}

test("a mask's PNG holds its labels", async () => {
  const mask = labels(37, 53);
  const found = chunks(await maskPng(mask));
  assert.deepEqual([...found.keys()], ["IHDR", "PLTE", "IDAT", "IEND"]);
  const rows = inflateSync(found.get("IDAT")!);
  for (let y = 0; y < 37; y++) {
    assert.deepEqual(rows.subarray(y * 54, (y + 1) * 54), Buffer.from([0, ...mask.data.subarray(y * 53, (y + 1) * 53)]));
  }
});

test("a cut-out's PNG holds its pixels", async () => {
  const pixels = Uint8Array.from({ length: 5 * 3 * 4 }, (_, i) => (i * 37) % 256);
  const rows = inflateSync(chunks(await rgbaPng(5, 3, pixels)).get("IDAT")!);
  for (let y = 0; y < 3; y++) {
    assert.equal(rows[y * 21], 1);
    for (let i = 0; i < 20; i++) {
      const left = i >= 4 ? pixels[y * 20 + i - 4]! : 0;
      assert.equal((rows[y * 21 + 1 + i]! + left) % 256, pixels[y * 20 + i]);
    }
  }
});

test("a ZIP's directory points at its files", async () => {
  const parts: Uint8Array[] = [];
  const zip = new ZipWriter((bytes) => void parts.push(bytes.slice()));
  const files = new Map([
    ["clip/00000.png", Uint8Array.of(1, 2, 3)],
    ["clip/größe.png", new Uint8Array(70_000).fill(7)],
  ]);
  for (const [name, content] of files) await zip.add(name, content);
  await zip.close();
  const bytes = Buffer.concat(parts);
  const end = bytes.length - 22;
  assert.equal(bytes.readUInt32LE(end), 0x06054b50);
  assert.equal(bytes.readUInt16LE(end + 10), 2);
  let at = bytes.readUInt32LE(end + 16);
  for (const [name, content] of files) {
    assert.equal(bytes.readUInt32LE(at), 0x02014b50);
    assert.equal(bytes.readUInt32LE(at + 16), crc32(content));
    assert.equal(bytes.readUInt32LE(at + 24), content.length);
    const length = bytes.readUInt16LE(at + 28);
    assert.equal(bytes.subarray(at + 46, at + 46 + length).toString(), name);
    const local = bytes.readUInt32LE(at + 42);
    assert.equal(bytes.readUInt32LE(local), 0x04034b50);
    const start = local + 30 + bytes.readUInt16LE(local + 26);
    assert.deepEqual(bytes.subarray(start, start + content.length), Buffer.from(content));
    at += 46 + length;
  }
});

test("more than 65,535 files need the large directory", async () => {
  const parts: Uint8Array[] = [];
  const zip = new ZipWriter((bytes) => void parts.push(bytes.slice()));
  for (let i = 0; i < 65_536; i++) await zip.add(`${i}`, new Uint8Array());
  await zip.close();
  const bytes = Buffer.concat(parts);
  const large = bytes.length - 22 - 20 - 56;
  assert.equal(bytes.readUInt32LE(large), 0x06064b50);
  assert.equal(bytes.readBigUInt64LE(large + 32), 65_536n);
  assert.equal(bytes.readBigUInt64LE(bytes.length - 22 - 20 + 8), BigInt(large));
});
