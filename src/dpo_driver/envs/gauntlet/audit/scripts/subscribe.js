// Subscribes with functions, proxies and objects, which note all that they are given in `told`.

const told = (window.told = []);
const receive = (...all) => { told.push(...all.map(String)); };
const traps = { apply: (_target, self, list) => { told.push(String(self), ...list.map(String)); } };
const all = [
  receive,
  new Proxy(receive, traps),
  function () { told.push(String(this), ...[...arguments].map(String)); },
  receive.bind({ toJSON: () => "x" }),
  async (message) => { told.push(message); },
  (message) => { throw { message, toString: () => { told.push("asked"); return "x"; } }; },
  { call: receive, apply: receive, handleEvent: receive },
  null,
  undefined,
  7,
];
for (const one of all) {
  try {
    told.push(String(gauntlet.subscribe(one)));
  } catch (error) {
    told.push(String(error.stack));
  }
}
