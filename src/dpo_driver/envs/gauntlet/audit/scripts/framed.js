// Loads the addresses `given` into frames of all sorts, objects and embeds, and reads their documents at every moment.

const texts = [];
const look = (e) => {
  try {
    const doc = e.contentDocument ?? e.getSVGDocument?.();
    if (doc) texts.push(doc.documentElement.outerHTML, String(doc.defaultView?.gauntlet));
  } catch (error) {
    texts.push(String(error));
  }
};
const waits = [];
const put = (e) => {
  waits.push(new Promise((done) => {
    e.onload = e.onerror = () => { look(e); done(); };
    setTimeout(done, 800);
  }));
  document.body.append(e);
  look(e);
  queueMicrotask(() => look(e));
};
const sandbox = "allow-scripts allow-same-origin";
const sorts = [{}, { sandbox }, { credentialless: "" }, { hidden: "" }, { name: "_x" }];
for (const path of given) {
  for (const sort of sorts) {
    const frame = document.createElement("iframe");
    for (const [name, value] of Object.entries(sort)) frame.setAttribute(name, value);
    frame.src = path;
    put(frame);
  }
  for (const tag of ["object", "embed"]) {
    const e = document.createElement(tag);
    e.type = "text/html";
    e.data = e.src = path;
    put(e);
  }
  const nest = document.createElement("iframe");
  nest.srcdoc = `<iframe src="${path}"></iframe><frameset><frame src="${path}"></frameset>`;
  put(nest);
}
await Promise.all(waits);
for (const e of deep()) if (e.contentDocument) look(e);
for (const e of [...document.querySelectorAll("iframe, object, embed")]) e.remove();
return texts;
