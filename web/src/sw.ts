/**
 * Keeps the page's files, so that it opens without a network the second time, and gives threads to pages on hosts that
 * cannot send headers: from the second visit on, the two headers come from here.
 */

declare const BUILD: string;
declare const SHELL: string[];

const CACHE = `osmn-page-${BUILD}`;
const scope = self as unknown as {
  addEventListener(type: string, listener: (event: any) => void): void;
  skipWaiting(): Promise<void>;
  clients: { claim(): Promise<void> };
  registration: { scope: string };
};

scope.addEventListener("install", (event) => {
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(SHELL)).then(() => scope.skipWaiting()));
});

scope.addEventListener("activate", (event) => {
  event.waitUntil(
    (async () => {
      for (const name of await caches.keys()) if (name.startsWith("osmn-page-") && name !== CACHE) await caches.delete(name);
      await scope.clients.claim();
    })(),
  );
});

function isOurs(url: string): boolean {
  return url.startsWith(scope.registration.scope);
}

async function keep(urls: string[]): Promise<void> {
  const cache = await caches.open(CACHE);
  for (const url of new Set(urls)) {
    if (!isOurs(url) || (await cache.match(url))) continue;
    // The browser has just loaded it: mostly it need not do so again.
    const response = await fetch(url, { cache: "force-cache" }).catch(() => null);
    if (response?.ok) await cache.put(url, response);
  }
}

scope.addEventListener("message", (event) => {
  if (event.data?.type === "keep") event.waitUntil(keep(event.data.urls));
});

function isolated(response: Response): Response {
  if (response.type === "opaque" || response.status === 0) return response;
  const headers = new Headers(response.headers);
  headers.set("Cross-Origin-Opener-Policy", "same-origin");
  headers.set("Cross-Origin-Embedder-Policy", "require-corp");
  headers.set("Cross-Origin-Resource-Policy", "same-origin");
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
}

/** What can change under its name is asked for first; the names of all other files change with their content. */
async function answer(request: Request): Promise<Response> {
  const cache = await caches.open(CACHE);
  const changeable = request.mode === "navigate" || /\/(metadata\.json|index\.html|)$/.test(new URL(request.url).pathname);
  if (!changeable) {
    const cached = await cache.match(request);
    if (cached) return isolated(cached);
  }
  try {
    const response = await fetch(request);
    if (response.ok && changeable) await cache.put(request, response.clone());
    return isolated(response);
  } catch (error) {
    const cached = (await cache.match(request, { ignoreSearch: changeable })) ?? (changeable && request.mode === "navigate" ? await cache.match("./") : undefined);
    if (cached) return isolated(cached);
    throw error;
  }
}

scope.addEventListener("fetch", (event) => {
  if (event.request.method === "GET" && isOurs(event.request.url)) event.respondWith(answer(event.request));
});
