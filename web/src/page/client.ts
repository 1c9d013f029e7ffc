/** The page's end of the conversation with its worker. */

import type { FromWorker, Request } from "../messages";

export class WorkerClient {
  private readonly pending = new Map<number, { resolve: (value: any) => void; reject: (error: Error) => void }>();
  private next = 1;

  constructor(
    private readonly worker: Worker,
    onMessage: (message: FromWorker) => void,
    onCrash: (reason: string) => void,
  ) {
    worker.onmessage = ({ data }: MessageEvent<FromWorker>) => {
      if (data.type !== "reply") return onMessage(data);
      const waiting = this.pending.get(data.id);
      this.pending.delete(data.id);
      if (data.error !== undefined) waiting?.reject(new Error(data.error));
      else waiting?.resolve(data.result);
    };
    worker.onerror = (event) => {
      event.preventDefault();
      onCrash(event.message || "its script could not be loaded");
    };
  }

  request<T = void>(request: Request, transfer: Transferable[] = []): Promise<T> {
    const id = this.next++;
    return new Promise<T>((resolve, reject) => {
      this.pending.set(id, { resolve, reject });
      this.worker.postMessage({ ...request, id }, transfer);
    });
  }
}
