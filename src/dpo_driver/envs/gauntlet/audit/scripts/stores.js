// Reads everything that the browser keeps for the site and scripts can see. Used by stores.py.

const texts = [document.cookie, window.name, JSON.stringify(history.state)];
for (const store of [localStorage, sessionStorage]) texts.push(JSON.stringify({ ...store }));
if (window.cookieStore) texts.push(JSON.stringify(await cookieStore.getAll()));
for (const name of await caches.keys()) {
  const cache = await caches.open(name);
  for (const request of await cache.keys()) texts.push(request.url, await (await cache.match(request)).text());
}
for (const { name } of await indexedDB.databases()) {
  const database = await new Promise((done, failed) => {
    const asked = indexedDB.open(name);
    asked.onsuccess = () => done(asked.result);
    asked.onerror = failed;
  });
  for (const store of database.objectStoreNames) {
    const asked = database.transaction(store).objectStore(store).getAll();
    texts.push(JSON.stringify(await new Promise((done) => { asked.onsuccess = () => done(asked.result); })));
  }
  database.close();
}
const root = await navigator.storage?.getDirectory?.().catch(() => null);
if (root) for await (const [name, handle] of root.entries()) {
  texts.push(name);
  if (handle.kind === "file") texts.push(await (await handle.getFile()).text());
}
return texts.join("\\n");
