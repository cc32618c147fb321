import type { Props } from ".";
import { cx } from "../skin";
import { Answer, Buttons } from "./parts";

export const Traps = ({ distractor }: Props) => (
  <nav className={cx("traps")} aria-label={distractor.title}>
    <div className={cx("row")}>
      <Buttons distractor={distractor} />
    </div>
    <Answer distractor={distractor} />
  </nav>
);
