// The training skin: one column, cards, sans-serif.

import type { Look } from "./contract";
import { base } from "./skin-base";

const FONTS = ["system-ui, sans-serif", "Verdana, sans-serif", "Trebuchet MS, sans-serif", "Arial, sans-serif"];

export const sheetA = (look: Look) => `
:root {
  color-scheme: light dark;
  --hue: ${look.hue}; --radius: ${look.radius}px;
  --back: hsl(var(--hue) 25% 96%); --card: #fff; --ink: #1b1f27; --soft: #565f6e; --line: hsl(var(--hue) 15% 82%);
  --main: hsl(var(--hue) 65% 26%); --on-main: #fff; --tint: hsl(var(--hue) 60% 93%); --bad: #b3261e; --good: #1c6b3a;
}
@media (prefers-color-scheme: dark) {
  :root {
    --back: hsl(var(--hue) 15% 10%); --card: hsl(var(--hue) 12% 15%); --ink: #eceff4; --soft: #aab4c0;
    --line: hsl(var(--hue) 12% 32%); --main: hsl(var(--hue) 65% 78%); --on-main: #111; --tint: hsl(var(--hue) 25% 22%);
    --bad: #ffb4ab; --good: #8fd8a8;
  }
}
${base}
body { font: 16px/1.5 ${FONTS[look.font]}; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; } h3 { font-size: 1rem; }
.$page { max-width: ${look.width}px; margin: 0 auto; padding: 20px 16px 96px; display: flex; flex-direction: column; gap: 16px; }
.$plain { text-align: ${look.align}; padding-top: 12vh; display: block; }
.$header { text-align: ${look.align}; }
.$puzzle, .$code { background: var(--card); border: 1px solid var(--line); border-radius: var(--radius); padding: 20px; }
@media (max-width: 480px) { .$puzzle, .$code { padding: 14px; } }
`;
