import type { Props } from ".";
import { cx } from "../skin";
import { Answer, Buttons } from "./parts";

// They move along a strip of their own, so they are never over anything else.
export const Decoys = ({ distractor }: Props) => (
  <section className={cx("strip")} aria-label={distractor.title}>
    <div className={cx("moving")}>
      <Buttons distractor={{ ...distractor, buttons: distractor.buttons.filter(({ style }) => style !== "close") }} />
    </div>
    <div className={cx("row")}>
      <Buttons distractor={{ ...distractor, buttons: distractor.buttons.filter(({ style }) => style === "close") }} />
    </div>
    <Answer distractor={distractor} />
  </section>
);
