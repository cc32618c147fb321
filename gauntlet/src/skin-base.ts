// What both skins have in common: sizes that fingers can hit, wrapping on small screens, what lies above what. Colours come
// from variables that the skins set: --back --card --ink --soft --line --main --on-main --tint --bad --good, and --radius.

export const base = `
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); overflow-wrap: break-word; }
h1, h2, h3 { line-height: 1.25; margin: 0 0 .5em; }
h1:focus, [role=dialog]:focus { outline: none; }
p { margin: 0 0 .75em; }
button, input, textarea { font: inherit; color: inherit; }
:focus-visible { outline: 3px solid var(--main); outline-offset: 2px; }
.$name { color: var(--soft); margin: 0; }
.$progress { height: 6px; border-radius: 3px; }
.$main { display: flex; flex-direction: column; gap: 16px; min-width: 0; }
.$puzzle { min-width: 0; }
.$reveal { min-height: 1.6em; margin: 16px 0 0; color: var(--good); font-weight: 600; overflow-wrap: anywhere; }
.$code { display: flex; flex-wrap: wrap; gap: 12px; align-items: end; }
.$label { display: flex; flex-direction: column; gap: 4px; flex: 1 1 180px; min-width: 0; }
.$label input, .$field input, .$field textarea {
  padding: 9px 10px; border: 1px solid var(--soft); border-radius: var(--radius); background: var(--back); width: 100%;
  min-width: 0; min-height: 42px;
}
.$message { flex-basis: 100%; margin: 0; color: var(--bad); min-height: 1.5em; }
.$button {
  padding: 8px 16px; border: 1px solid var(--main); border-radius: var(--radius); background: var(--tint); color: var(--ink);
  cursor: pointer; min-height: 42px; min-width: 42px; touch-action: manipulation;
}
.$button:hover:not(:disabled) { border-color: var(--ink); }
.$button:disabled { opacity: .6; cursor: default; }
.$code .$button, .$plain .$button, .$is-loud { background: var(--main); color: var(--on-main); }
.$row { display: flex; flex-wrap: wrap; gap: 12px; align-items: center; }
.$column { display: flex; flex-direction: column; gap: 12px; }
.$column > * { min-width: 0; }
.$panel { border: 1px solid var(--line); border-radius: var(--radius); padding: 14px; margin-bottom: 12px; overflow-x: auto; }
audio, video, canvas, iframe, img { max-width: 100%; }
.$note { color: var(--soft); }
.$form { display: flex; flex-direction: column; gap: 12px; max-width: 440px; }
.$field { display: flex; flex-direction: column; gap: 4px; min-width: 0; }
.$tick { display: flex; gap: 8px; align-items: center; min-height: 36px; cursor: pointer; }
.$tick input { width: 20px; height: 20px; flex: none; accent-color: var(--main); }
.$link { color: var(--main); text-decoration: underline; }
.$table { border-collapse: collapse; max-width: 100%; display: block; overflow-x: auto; }
.$table th, .$table td { border: 1px solid var(--line); padding: 6px 10px; text-align: left; }
.$lost { position: sticky; top: 0; z-index: 50; background: var(--bad); color: var(--card); padding: 10px 16px; }
.$cookies {
  position: fixed; left: 0; right: 0; bottom: 0; z-index: 20; background: var(--card); color: var(--ink);
  border-top: 2px solid var(--main); padding: 12px 16px; max-height: 45vh; overflow: auto;
}
.$popup {
  position: fixed; z-index: 21; width: min(300px, calc(100vw - 24px)); background: var(--card); border: 2px solid var(--main);
  border-radius: var(--radius); padding: 14px; box-shadow: 0 6px 24px #0005; max-height: 70vh; overflow: auto;
}
.$popup .$label { margin-bottom: 12px; }
.$at-0 { right: 12px; bottom: 12px; } .$at-1 { left: 12px; bottom: 12px; }
.$at-2 { right: 12px; top: 12px; } .$at-3 { left: 12px; top: 12px; }
.$cover {
  position: fixed; inset: 0; z-index: 30; background: #000a; display: flex; align-items: center; justify-content: center;
  padding: 16px;
}
.$modal {
  background: var(--card); color: var(--ink); border-radius: var(--radius); padding: 22px; max-width: 440px; max-height: 90vh;
  overflow: auto; position: relative;
}
.$is-close { background: var(--tint); color: var(--ink); }
.$is-corner { background: transparent; color: var(--ink); border-color: var(--soft); margin-left: auto; }
.$answer { margin: 8px 0 0; color: var(--soft); min-height: 1.5em; font-size: .9em; }
.$strip { overflow: hidden; padding: 8px 4px; }
.$moving { display: flex; gap: 16px; width: max-content; padding: 6px; animation: $drift 9s ease-in-out infinite alternate; }
@keyframes $drift { from { transform: none; } to { transform: translateX(min(320px, 30vw)); } }
@media (prefers-reduced-motion: reduce) { .$moving { animation: none; } }
.$traps, .$filler { min-width: 0; }
.$filler section { border-top: 1px solid var(--line); padding: 14px 0 2px; }
`;
