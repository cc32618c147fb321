import { useId } from "react";

import type { Props } from ".";
import { cx } from "../skin";
import { Answer, Buttons } from "./parts";

// In a corner; it does not take the focus, so typing goes on.
export function Popup({ distractor }: Props) {
  const title = useId();
  return (
    <section role="dialog" aria-labelledby={title} className={cx("popup", `at-${distractor.place ?? 0}`)}>
      <h3 id={title}>{distractor.title}</h3>
      <p>{distractor.text}</p>
      {distractor.field && (
        <label className={cx("label")}>
          <span>{distractor.field}</span>
          <input type="text" inputMode="email" autoComplete="off" />
        </label>
      )}
      <div className={cx("row")}>
        <Buttons distractor={distractor} />
      </div>
      <Answer distractor={distractor} />
    </section>
  );
}
