// Causes trusted input events by editing commands at many depths near the call stack's end. Gives how many.

unblock();
const field = fields()[0];
if (!field) return 1;
field.focus();
let tries = 0;
let limit = 0;
const measure = (depth) => {
  limit = depth;
  measure(depth + 1);
};
try {
  measure(0);
} catch {}
const dig = (depth) => {
  if (depth > 0) return dig(depth - 1);
  tries++;
  document.execCommand("insertText", false, "x");
};
// The sealed script needs some hundred frames of this kind at most: it fails at another line each time.
for (let before = 0; before < 240; before += 6) {
  field.value = "";
  try {
    dig(Math.max(0, limit - before));
  } catch {}
}
field.value = "";
await turns(2);
return tries;
