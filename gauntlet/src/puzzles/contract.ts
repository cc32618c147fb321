// What a puzzle's component is given: the view that its class on the server (envs/gauntlet/puzzles/NAME.py) computed.
//
// One file a type, `puzzles/NAME.tsx`, whose default export draws the view. A component holds no wording and cannot tell
// the server anything: the sealed script (seal.ts) reports trusted input on elements with `data-part`, and the next view
// comes from there. So a component never decides that something was done.
//
//   data-part="..."   a part: pointer, click, key, wheel and drop events on it (or inside it) reach the puzzle
//   data-track        beside data-part: pointermove, too (at most one per frame)
//   data-form         a form: a click on a part inside it carries the fields' trusted text
//   data-field="..."  an <input type=text|number> or <textarea> inside a form: typed text reaches the puzzle
//
// What is reported, and when:
//   a mouse click       pointerdown, pointerup (source: where it went down), click; a label's click is handed on to its control
//   Enter on a button   keydown, click, keyup; Space: keydown, keyup, click
//   pointerup           on what lies under the pointer, so what follows it while dragging needs `pointer-events: none`
//   pointermove         over tracked parts, with source while a button is down; once with part "" when it leaves them all
//   keys                on the part around the focus, else on its field, else ""; in text fields Enter and Escape only
//   input               on the field, with the text; text that a script had a hand in is reported as ""
//
// Buttons are type="button"; fields for numbers are kit's `Field`; in a shadow root call `adopt(root)` of skin.ts first.

export interface View {
  title: string;
  text: string; // the instruction
  reveal: string | null; // the sentence with the code, once solved
}

export interface Control {
  part: string;
  label: string;
}

export interface Props<V extends View = View> {
  view: V;
}
