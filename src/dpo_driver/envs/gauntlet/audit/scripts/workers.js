// Registers service workers over the app, from every address that might pass for a script, `given` among them.

const bad = "self.addEventListener('fetch', (e) => e.respondWith(new Response('owned')))";
const scripts = [
  "/app/app.js", "/app/app.js?x", "/app/../app/app.js", "/app/%2e%2e/app/app.js", "/", "/step/1", "/health", "/start",
  "/status", "/favicon.ico", "/asset/0/worker.js", "/asset/x/..%2f..%2fapp/app.js", `//${location.host}/app/app.js`,
  URL.createObjectURL(new Blob([bad], { type: "text/javascript" })), `data:text/javascript,${encodeURIComponent(bad)}`,
  `javascript:${bad}`, ...given,
];
const tried = [];
for (const script of scripts) {
  for (const scope of ["/", "/step/", undefined]) {
    const how = { scope, updateViaCache: "all", type: tried.length % 2 ? "module" : "classic" };
    tried.push(navigator.serviceWorker.register(script, how).then((made) => new URL(made.scope).pathname, () => ""));
  }
}
const end = new Promise((done) => setTimeout(done, 20000, null));
const taken = await Promise.race([Promise.all(tried), end]);
const there = (await navigator.serviceWorker.getRegistrations()).map((made) => new URL(made.scope).pathname);
for (const one of await navigator.serviceWorker.getRegistrations()) await one.unregister();
return { tries: tried.length, taken, there: taken ? [...taken.filter(Boolean), ...there] : [] };
