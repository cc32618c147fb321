import type { Distractor } from "../contract";
import { cx } from "../skin";

export function Buttons({ distractor }: { distractor: Distractor }) {
  return distractor.buttons.map(({ part, label, style }) => (
    <button key={part} type="button" className={cx("button", `is-${style}`)} data-part={part}>
      {label}
    </button>
  ));
}

export const Answer = ({ distractor }: { distractor: Distractor }) => (
  <p className={cx("answer")} aria-live="polite">{distractor.note}</p>
);
