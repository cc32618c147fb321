// Gives all objects what a script might look for in one, as getters and setters that take what is stored.

const names = [
  "capture", "once", "passive", "signal", "get", "set", "value", "part", "node", "track", "field", "form", "before",
  "good", "kind", "data", "key", "seal", "open", "sent", "source", "handleEvent", "then", "composed", "isTrusted", "0",
  "1", "2", "x", "y", "left", "subscribe", "receive", "latest", "undefined", "null",
];
for (const owner of [Object.prototype, Array.prototype, Function.prototype, String.prototype]) {
  for (const name of names) {
    try {
      define(owner, name, {
        configurable: true,
        get() {
          note(this, []);
          return name === "part" ? part : name === "once" || name === "isTrusted" ? true : undefined;
        },
        set(value) {
          note(this, [value]);
          const how = { __proto__: null, value, configurable: true, writable: true, enumerable: true };
          define(this, name, how);
        },
      });
    } catch {}
  }
}
