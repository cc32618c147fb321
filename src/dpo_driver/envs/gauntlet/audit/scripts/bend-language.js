// Bends the language's own: iterators, conversions, calls, and the methods of what every script uses.

const lists = [
  [WeakMap.prototype, ["get", "set", "has", "delete"]],
  [Map.prototype, ["get", "set", "has"]],
  [String.prototype, ["slice", "concat", "charAt", "indexOf", "replace", "split", "toString", "valueOf", "substring"]],
  [Array.prototype, ["push", "map", "filter", "join", "slice", "forEach", "concat", "indexOf", "includes", "find"]],
  [Math, ["round", "floor", "max", "min"]],
  [Promise.prototype, ["then", "catch"]],
  [Object, ["freeze", "create", "defineProperty", "keys", "assign", "getOwnPropertyDescriptor"]],
  [Function.prototype, ["call", "apply", "bind", "toString"]],
  [Reflect, ["apply", "get", "construct", "ownKeys", "has"]],
  [window, ["requestAnimationFrame", "setTimeout", "queueMicrotask", "addEventListener"]],
];
const flat = [];
for (let i = 0; i < lists.length; i++) {
  for (let k = 0; k < lists[i][1].length; k++) flat[flat.length] = [lists[i][0], lists[i][1][k]];
}
Object.defineProperty(Array, Symbol.species, { get() { note(this, []); return Object; } });
define(Number.prototype, Symbol.toPrimitive, { value() { note(this, []); return 7; } });
define(String.prototype, Symbol.iterator, { value() { note(this, []); return { next: () => ({ done: true }) }; } });
define(Array.prototype, Symbol.iterator, { value() { note(this, []); return { next: () => ({ done: true }) }; } });
define(Array.prototype, Symbol.isConcatSpreadable, { get() { note(this, []); return false; } });
for (let i = 0; i < flat.length; i++) bend(flat[i][0], flat[i][1]);
