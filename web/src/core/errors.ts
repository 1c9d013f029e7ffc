/** An error that the person at the page can act on: its message is a sentence, shown as it is. */
export class UserError extends Error {
  override name = "UserError";
}

/** What was thrown, as a sentence. */
export function sentence(error: unknown): string {
  if (error instanceof UserError) return error.message;
  const name = error instanceof Error ? error.name : "";
  if (name === "QuotaExceededError" || name === "NoModificationAllowedError") return STORAGE_FULL;
  const text = error instanceof Error ? error.message : String(error);
  if (/out of memory|allocation failed|Array buffer allocation/i.test(text)) {
    return "The browser ran out of memory. Close other tabs, or take a smaller video.";
  }
  return `Something went wrong that this page does not know (${text.split("\n")[0]}). Reload the page to begin again.`;
}

export const STORAGE_FULL =
  "The browser's storage is full: make room on the disk or close other pages, then try again. What is tracked so far is kept.";
