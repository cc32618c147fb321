// Reads every global that a fresh window does not have, and tries to change what the sealed script has left.

const frame = document.createElement("iframe");
document.body.append(frame);
const usual = new Set(Object.getOwnPropertyNames(frame.contentWindow));
frame.remove();
const texts = [];
for (const name of Object.getOwnPropertyNames(window)) {
  if (usual.has(name)) continue;
  const value = window[name];
  texts.push(name, String(value), written(Object.getOwnPropertyDescriptors(Object(value))));
  for (const key of Reflect.ownKeys(Object(value))) texts.push(String(key), String(value[key]));
}
const left = window.gauntlet;
const changes = [
  () => { left.send = 1; },
  () => { left.subscribe = 1; },
  () => { delete window.gauntlet; },
  () => { window.gauntlet = {}; },
  () => { Object.setPrototypeOf(left, { send: 1 }); },
  () => Object.defineProperty(left.subscribe, "call", { value: 1 }),
  () => Object.defineProperty(window, "gauntlet", { value: {} }),
  () => new left.subscribe(() => 0),
  () => Reflect.construct(left.subscribe, []),
  () => left.subscribe.caller,
  () => left.subscribe.arguments,
  () => left.subscribe.constructor("return this")().key,
];
for (const change of changes) {
  try {
    texts.push(String(change()));
  } catch (error) {
    texts.push(String(error.stack));
  }
}
const same = left === window.gauntlet && Object.keys(left).join() === "subscribe";
return { same, tries: changes.length, text: texts.join("\n") };
