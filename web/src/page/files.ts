/** What was dropped or chosen, as files. */

export interface Chosen {
  files: File[];
  folder: boolean;
}

/** Files of a drop; folders are read through. Must be called in the event itself: what was dropped is gone afterwards. */
export function dropped(transfer: DataTransfer): Promise<Chosen> {
  const entries = Array.from(transfer.items, (item) => item.webkitGetAsEntry?.() ?? null).filter((entry) => entry !== null);
  const files = Array.from(transfer.files);
  return (async () => {
    if (!entries.some((entry) => entry.isDirectory)) return { files, folder: files.length > 1 };
    const found: File[] = [];
    for (const entry of entries) await collect(entry, found);
    return { files: found, folder: true };
  })();
}

async function collect(entry: FileSystemEntry, found: File[]): Promise<void> {
  if (entry.isFile) {
    found.push(await new Promise<File>((resolve, reject) => (entry as FileSystemFileEntry).file(resolve, reject)));
    return;
  }
  const reader = (entry as FileSystemDirectoryEntry).createReader();
  for (;;) {
    // It gives a hundred at a time.
    const batch = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
    if (!batch.length) return;
    for (const child of batch) await collect(child, found);
  }
}

/** Hands a file to the browser's downloads. */
export function download(name: string, blob: Blob): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
