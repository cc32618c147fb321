// Gets the texts at the addresses `given` in every way of fetching that scripts have.

const texts = [];
const end = () => AbortSignal.timeout(2000);
const said = async (answer) => {
  try {
    return await (await answer).text();
  } catch (error) {
    return String(error);
  }
};
const navigation = { "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-Site": "none" };
const ways = [
  {}, { mode: "same-origin" }, { mode: "no-cors" }, { mode: "navigate" }, { cache: "force-cache" }, { cache: "reload" },
  { redirect: "manual" }, { headers: navigation }, { headers: { "X-Sec-Fetch-Mode": "navigate", Accept: "text/html" } },
  { destination: "document" }, { priority: "high", keepalive: true }, { method: "POST", body: "x" },
  { credentials: "omit" }, { headers: { "Sec-Purpose": "" }, referrerPolicy: "unsafe-url" },
];
const asked = async (path, way) => {
  const both = [said(Promise.resolve().then(() => fetch(path, { signal: end(), ...way })))];
  both.push(said(Promise.resolve().then(() => fetch(new Request(path, way)))));
  return Promise.all(both);
};
const all = given.flatMap((path) => ways.map((way) => asked(path, way)));
texts.push(...(await Promise.all(all)).flat());
for (const path of given) {
  const old = new XMLHttpRequest();
  old.open("GET", path, false);
  try {
    old.setRequestHeader("Sec-Fetch-Site", "none");
  } catch {}
  old.send();
  texts.push(old.responseText);
  for (const kind of [undefined, { with: { type: "json" } }]) {
    try {
      texts.push(JSON.stringify(await import(path, kind)));
    } catch (error) {
      texts.push(String(error));
    }
  }
  const found = await caches.match(path);
  if (found) texts.push(await found.text());
}
return texts;
