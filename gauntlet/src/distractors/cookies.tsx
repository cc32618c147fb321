import type { Props } from ".";
import { cx } from "../skin";
import { Answer, Buttons } from "./parts";

export const Cookies = ({ distractor }: Props) => (
  <section className={cx("cookies")} aria-label={distractor.title}>
    <p>{distractor.text}</p>
    <div className={cx("row")}>
      <Buttons distractor={distractor} />
    </div>
    <Answer distractor={distractor} />
  </section>
);
