import type { Props } from ".";
import { cx } from "../skin";

export const Filler = ({ distractor }: Props) => (
  <aside className={cx("filler")}>
    {distractor.sections?.map((section) => (
      <section key={section.title}>
        <h3>{section.title}</h3>
        {section.text.map((text) => (
          <p key={text}>{text}</p>
        ))}
      </section>
    ))}
  </aside>
);
