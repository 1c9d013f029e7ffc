/** A ZIP file that is written while its content is made: stored, not compressed (PNGs are), of any size. */

import { crc32 } from "./crc32";

export type Sink = (bytes: Uint8Array<ArrayBuffer>) => void | Promise<void>;

const LIMIT = 0xffffffff;

interface Entry {
  name: Uint8Array;
  checksum: number;
  size: number;
  offset: number;
}

export class ZipWriter {
  private entries: Entry[] = [];
  private offset = 0;

  /** @param sink - takes the bytes of the file, in order. */
  constructor(private readonly sink: Sink) {}

  /** Appends a file. Its name is UTF-8, with forward slashes. */
  async add(name: string, content: Uint8Array<ArrayBuffer>): Promise<void> {
    const entry = {
      name: new TextEncoder().encode(name),
      checksum: crc32(content),
      size: content.length,
      offset: this.offset,
    };
    this.entries.push(entry);
    const local = new Record(30 + entry.name.length);
    local.u32(0x04034b50).u16(20).common(entry).u16(entry.name.length).u16(0).bytes(entry.name);
    await this.write(local.content);
    await this.write(content);
  }

  /** Writes the directory. Nothing can be added afterwards. */
  async close(): Promise<void> {
    const start = this.offset;
    for (const entry of this.entries) {
      const far = entry.offset >= LIMIT;
      const record = new Record(46 + entry.name.length + (far ? 12 : 0));
      record.u32(0x02014b50).u16(20).u16(far ? 45 : 20).common(entry);
      record.u16(entry.name.length).u16(far ? 12 : 0).u16(0).u16(0).u16(0).u32(0);
      record.u32(far ? LIMIT : entry.offset).bytes(entry.name);
      if (far) record.u16(1).u16(8).u64(entry.offset);
      await this.write(record.content);
    }
    const size = this.offset - start;
    const count = this.entries.length;
    const wide = count >= 0xffff || start >= LIMIT;
    if (wide) {
      const end = this.offset;
      const record = new Record(56 + 20);
      record.u32(0x06064b50).u64(44).u16(45).u16(45).u32(0).u32(0).u64(count).u64(count).u64(size).u64(start);
      record.u32(0x07064b50).u32(0).u64(end).u32(1);
      await this.write(record.content);
    }
    const record = new Record(22);
    const shown = Math.min(count, 0xffff);
    record.u32(0x06054b50).u16(0).u16(0).u16(shown).u16(shown);
    record.u32(Math.min(size, LIMIT)).u32(Math.min(start, LIMIT)).u16(0);
    await this.write(record.content);
  }

  private async write(bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    await this.sink(bytes);
    this.offset += bytes.length;
  }
}

/** Little-endian fields, one after the other. */
class Record {
  readonly content: Uint8Array<ArrayBuffer>;
  private readonly view: DataView;
  private at = 0;

  constructor(size: number) {
    this.content = new Uint8Array(size);
    this.view = new DataView(this.content.buffer);
  }

  u16(value: number): this {
    this.view.setUint16(this.at, value, true);
    this.at += 2;
    return this;
  }

  u32(value: number): this {
    this.view.setUint32(this.at, value, true);
    this.at += 4;
    return this;
  }

  u64(value: number): this {
    this.view.setBigUint64(this.at, BigInt(value), true);
    this.at += 8;
    return this;
  }

  bytes(value: Uint8Array): this {
    this.content.set(value, this.at);
    this.at += value.length;
    return this;
  }

  /** Flags (UTF-8 names), method (stored), a fixed date (1 January 2000), checksum and both sizes. */
  common(entry: Entry): this {
    return this.u16(0x0800).u16(0).u16(0).u16((20 << 9) | (1 << 5) | 1).u32(entry.checksum).u32(entry.size).u32(entry.size);
  }
}
