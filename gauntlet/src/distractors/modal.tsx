import { useEffect, useId, useRef } from "react";

import type { Props } from ".";
import { cx } from "../skin";
import { Answer, Buttons } from "./parts";

// Covers the page until it is closed; app.tsx makes the page below inert.
export function Modal({ distractor }: Props) {
  const title = useId();
  const box = useRef<HTMLElement>(null);
  useEffect(() => {
    box.current?.focus();
    return () => document.querySelector("h1")?.focus({ preventScroll: true });
  }, []);
  return (
    <div className={cx("cover")}>
      <section ref={box} role="dialog" aria-modal="true" aria-labelledby={title} tabIndex={-1} className={cx("modal")}>
        <h3 id={title}>{distractor.title}</h3>
        <p>{distractor.text}</p>
        <div className={cx("row")}>
          <Buttons distractor={distractor} />
        </div>
        <Answer distractor={distractor} />
      </section>
    </div>
  );
}
