// The skin that is held out for evaluation: two columns, a dark band at the side, serif, no cards.

import type { Look } from "./contract";
import { base } from "./skin-base";

const FONTS = ["Georgia, serif", "Palatino, 'Book Antiqua', serif", "'Times New Roman', serif", "Cambria, Georgia, serif"];

export const sheetB = (look: Look) => `
:root {
  color-scheme: light dark;
  --hue: ${(look.hue + 140) % 360}; --radius: ${look.radius > 8 ? 2 : 0}px;
  --back: #f6f1e7; --card: #fffaf0; --ink: #2b2118; --soft: #6a5b4b; --line: #d8cbb5;
  --main: hsl(var(--hue) 45% 24%); --on-main: #fff6e6; --tint: #ece2cf; --bad: #8f1d1d; --good: #25562a;
  --band: hsl(var(--hue) 40% 18%); --on-band: #f8efdd;
}
@media (prefers-color-scheme: dark) {
  :root {
    --back: #17130f; --card: #221c16; --ink: #f1e6d3; --soft: #b8a78f; --line: #4a3f33; --main: hsl(var(--hue) 45% 76%);
    --on-main: #16110c; --tint: #33291f; --bad: #ffb1a6; --good: #a5d6a0; --band: hsl(var(--hue) 30% 14%);
  }
}
${base}
body { font: 17px/1.55 ${FONTS[look.font]}; }
h1 { font-size: 1.35rem; font-weight: 400; } h2 { font-size: 1.5rem; font-weight: 400; font-style: italic; } h3 { font-size: 1.05rem; }
.$page { display: grid; grid-template-columns: minmax(220px, 300px) minmax(0, 1fr); min-height: 100vh; }
.$plain { display: block; max-width: 40rem; margin: 0 auto; padding: 16vh 24px; text-align: left; min-height: 0; }
.$side {
  background: var(--band); color: var(--on-band); padding: 28px 22px; display: flex; flex-direction: column; gap: 22px;
  position: sticky; top: 0; align-self: start; min-height: 100vh;
}
.$side { --main: var(--on-band); --line: #fff4; }
.$side .$name { color: var(--on-band); opacity: .8; font-variant: small-caps; }
.$side input { color: var(--ink); }
.$side .$message { color: #ffc9b8; }
.$side :focus-visible { outline-color: var(--on-band); }
.$code { flex-direction: column; align-items: stretch; }
.$code .$label { flex: none; }
.$code .$button { background: var(--on-band); color: #241a10; border-color: var(--on-band); }
.$wide { padding: 32px clamp(16px, 5vw, 64px) 110px; display: flex; flex-direction: column; gap: 24px; min-width: 0; max-width: 860px; }
.$puzzle { border-left: 4px double var(--main); padding-left: 20px; }
.$button { border-width: 2px; letter-spacing: .02em; }
@media (max-width: 760px) {
  .$page { grid-template-columns: minmax(0, 1fr); }
  .$side { position: static; min-height: 0; padding: 18px 16px; gap: 12px; }
}
`;
