// The means to bend built-ins: all that passes a bent one is noted in `bent`, and sockets among it are kept. Put before
// the scripts of builtins.py. Nothing here may use what is bent: no spread, no iteration, no method of arrays.

const bent = (window.bent = []);
const sockets = (window.sockets = []);
const run = Reflect.apply;
const { defineProperty: define, getOwnPropertyDescriptor: describe } = Object;
const nameOf = Object.prototype.toString;
const asText = String;
const isSocket = WebSocket.prototype;
const prototypeOf = Object.getPrototypeOf;
const first = parts()[0] ?? document.body;
const part = given;
let busy = false;

function keep(one) {
  if (bent.length > 5000) return;
  const kind = typeof one;
  let text = "?";
  try {
    text = kind === "object" && one ? run(nameOf, one, []) : asText(one);
  } catch {}
  define(bent, bent.length, { value: text, configurable: true, writable: true, enumerable: true });
  try {
    if (kind === "object" && one && prototypeOf(one) === isSocket) define(sockets, sockets.length, { value: one });
  } catch {}
}
function note(self, list) {
  if (busy) return;
  busy = true;
  try {
    keep(self);
    for (let i = 0; i < list.length && i < 9; i++) {
      keep(list[i]);
      const inner = list[i];
      if (inner && typeof inner === "object") for (let k = 0; k < inner.length && k < 9; k++) keep(inner[k]);
    }
  } catch {}
  busy = false;
}
// Bends a method or a getter; `make(was, self, list)` says what it gives now.
function bend(owner, name, make) {
  const was = describe(owner, name);
  if (!was || !was.configurable) return;
  const through = make ?? ((what, self, list) => run(what, self, list));
  const how = { configurable: true, enumerable: was.enumerable };
  if (was.get) {
    how.get = function () {
      note(this, []);
      return through(was.get, this, []);
    };
    how.set = was.set;
  } else if (typeof was.value === "function") {
    how.writable = true;
    how.value = function () {
      note(this, arguments);
      return through(was.value, this, arguments);
    };
  } else return;
  define(owner, name, how);
}
