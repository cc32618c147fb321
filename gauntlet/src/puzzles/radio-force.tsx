import { Button, Note, Row } from "../kit";
import { cx } from "../skin";
import type { Control, Props, View } from "./contract";

interface Choices extends View {
  legend: string;
  columns: number;
  options: (Control & { on: boolean; tried: boolean })[];
  check: Control;
  note: string | null;
}

export default function RadioForce({ view }: Props<Choices>) {
  return (
    <>
      <fieldset>
        <legend>{view.legend}</legend>
        <div style={{ display: "grid", gridTemplateColumns: `repeat(${view.columns}, minmax(0, 1fr))`, gap: "0.4em" }}>
          {view.options.map(({ part, label, on, tried }) => (
            <label key={part} className={cx("tick")} style={{ textDecoration: tried ? "line-through" : "none" }}>
              <input type="radio" checked={on} disabled={tried} data-part={part} onChange={() => undefined} />
              {label}
            </label>
          ))}
        </div>
      </fieldset>
      <Row>
        <Button {...view.check} />
      </Row>
      <div style={{ minHeight: "3em" }}>{view.note && <Note>{view.note}</Note>}</div>
    </>
  );
}
