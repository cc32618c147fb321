// Walks React's objects from the root and from every element, twelve deep, and reads all texts in them.

const seen = new Set();
const texts = [];
const walk = (value, depth) => {
  if (typeof value === "string") {
    texts.push(value);
    return;
  }
  if (!value || depth > 12 || seen.size > 40000) return;
  if ((typeof value !== "object" && typeof value !== "function") || seen.has(value)) return;
  seen.add(value);
  if (typeof value === "function") texts.push(Function.prototype.toString.call(value).slice(0, 2000));
  if (value instanceof Node && depth > 0) return;
  for (const key of Reflect.ownKeys(value)) {
    let next;
    try {
      next = value[key];
    } catch {
      continue;
    }
    walk(next, depth + 1);
  }
};
let keys = 0;
for (const node of [document, ...deep()]) {
  for (const key of Object.keys(node)) {
    if (!key.startsWith("__react")) continue;
    keys++;
    walk(node[key], 0);
  }
}
return { keys, text: texts.join("\n") };
