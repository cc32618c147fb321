// Puts pages and scripts of one's own into the caches; they would leave a cookie if they ran.

const bad = "document.cookie = 'owned=1; path=/'";
const page = `<!doctype html><script>${bad}</script>`;
for (const name of ["app", "v1", location.host]) {
  const cache = await caches.open(name);
  const named = performance.getEntriesByType("resource").map((entry) => entry.name);
  const loaded = named.filter((url) => url.startsWith("http"));
  for (const path of ["/", "/step/1", "/app/app.js", ...loaded]) {
    const script = path.includes(".js");
    const headers = { "Content-Type": script ? "text/javascript" : "text/html" };
    await cache.put(path, new Response(script ? bad : page, { headers }));
  }
}
const asks = ["reload", "force-cache", "no-cache", "only-if-cached"];
await Promise.all(asks.map((cache) => fetch("/step/1", { cache, mode: "same-origin" }).catch(() => 0)));
localStorage.setItem("owned", "1");
