/** Files of the page that are not in memory: what is kept of every frame, and results until they are saved. */

import { UserError, STORAGE_FULL } from "../core/errors";
import type { Mask } from "../core/frames";
import { packMask, unpackMask } from "../core/rle";

/** Of the browser's private file system; TypeScript lists it for workers only. */
interface SyncAccessHandle {
  read(buffer: Uint8Array<ArrayBuffer>, options: { at: number }): number;
  write(buffer: Uint8Array<ArrayBuffer>, options: { at: number }): number;
  truncate(size: number): void;
  flush(): void;
  close(): void;
}

const PREFIX = "osmn-";
let session: Promise<string> | null = null;

/** A name for this page's files, and the removal of those that pages left behind that are closed by now. */
function sessionName(): Promise<string> {
  session ??= (async () => {
    const own = `${PREFIX}${crypto.randomUUID()}`;
    if (!navigator.locks) return own;
    // Held for as long as the page lives. A browser also leaves a page alone that holds a lock, hidden as it may be.
    await new Promise<void>((held) => {
      void navigator.locks.request(own, () => (held(), new Promise<void>(() => {})));
    });
    const alive = new Set((await navigator.locks.query()).held?.map((lock) => lock.name));
    const folder = await navigator.storage.getDirectory();
    for await (const name of (folder as any).keys() as AsyncIterable<string>) {
      if (name.startsWith(PREFIX) && !alive.has(name.split(".")[0]!)) await folder.removeEntry(name).catch(() => {});
    }
    return own;
  })();
  return session;
}

/** A file that grows while it is written, on the disk where the browser can, in memory where it cannot. */
export class ScratchFile {
  private length = 0;

  private constructor(
    private readonly handle: SyncAccessHandle | null,
    private readonly entry: FileSystemFileHandle | null,
    private readonly remove: () => Promise<void>,
    private memory: Uint8Array<ArrayBuffer> = new Uint8Array(handle ? 0 : 1 << 16),
  ) {}

  static async create(kind: string): Promise<ScratchFile> {
    try {
      const name = `${await sessionName()}.${kind}-${crypto.randomUUID()}`;
      const folder = await navigator.storage.getDirectory();
      const entry = await folder.getFileHandle(name, { create: true });
      const handle: SyncAccessHandle = await (entry as any).createSyncAccessHandle();
      return new ScratchFile(handle, entry, () => folder.removeEntry(name));
    } catch (error) {
      if (error instanceof Error && error.name === "QuotaExceededError") throw new UserError(STORAGE_FULL);
      // Private windows of some browsers have no such files.
      return new ScratchFile(null, null, async () => {});
    }
  }

  get size(): number {
    return this.length;
  }

  /** @throws UserError the storage is full. */
  write(bytes: Uint8Array<ArrayBuffer>, at: number): void {
    if (this.handle) {
      let written = 0;
      try {
        while (written < bytes.length) {
          const count = this.handle.write(bytes.subarray(written), { at: at + written });
          if (!count) throw new UserError(STORAGE_FULL);
          written += count;
        }
      } catch (error) {
        if (error instanceof UserError) throw error;
        throw new UserError(STORAGE_FULL);
      }
    } else {
      if (at + bytes.length > this.memory.length) {
        const larger = new Uint8Array(Math.max(at + bytes.length, this.memory.length * 2));
        larger.set(this.memory);
        this.memory = larger;
      }
      this.memory.set(bytes, at);
    }
    this.length = Math.max(this.length, at + bytes.length);
  }

  append(bytes: Uint8Array<ArrayBuffer>): number {
    const at = this.length;
    this.write(bytes, at);
    return at;
  }

  read(at: number, length: number): Uint8Array {
    if (!this.handle) return this.memory.subarray(at, at + length);
    const bytes = new Uint8Array(length);
    this.handle.read(bytes, { at });
    return bytes;
  }

  /** The finished file. Nothing can be written afterwards; it can be read until `dispose`. */
  async finish(type: string): Promise<Blob> {
    if (!this.handle || !this.entry) return new Blob([this.memory.subarray(0, this.length)], { type });
    this.handle.flush();
    this.handle.close();
    return this.entry.getFile();
  }

  async dispose(): Promise<void> {
    try {
      this.handle?.close();
      await this.remove();
    } catch {
      // The next page removes it.
    }
    this.memory = new Uint8Array();
  }
}

/** Label masks of a video's frames. In memory is only where each one lies. */
export class MaskStore {
  private readonly at: Float64Array;
  private readonly lengths: Uint32Array;
  private readonly room: Uint32Array;

  constructor(
    private readonly file: ScratchFile,
    count: number,
    private readonly width: number,
    private readonly height: number,
  ) {
    this.at = new Float64Array(count);
    this.lengths = new Uint32Array(count);
    this.room = new Uint32Array(count);
  }

  has(index: number): boolean {
    return this.lengths[index]! > 0;
  }

  get(index: number): Mask | null {
    const packed = this.packed(index);
    return packed && unpackMask(packed, this.width, this.height);
  }

  set(index: number, mask: Mask): void {
    this.setPacked(index, packMask(mask));
  }

  packed(index: number): Uint8Array | null {
    return this.has(index) ? this.file.read(this.at[index]!, this.lengths[index]!) : null;
  }

  setPacked(index: number, packed: Uint8Array | null): void {
    if (packed) {
      const bytes = packed as Uint8Array<ArrayBuffer>;
      if (bytes.length <= this.room[index]!) {
        this.file.write(bytes, this.at[index]!);
      } else {
        this.at[index] = this.file.append(bytes);
        this.room[index] = bytes.length;
      }
    }
    this.lengths[index] = packed?.length ?? 0;
  }

  /** The frames that have a mask, ascending. */
  indices(): number[] {
    const found: number[] = [];
    for (let index = 0; index < this.lengths.length; index++) if (this.lengths[index]) found.push(index);
    return found;
  }
}
