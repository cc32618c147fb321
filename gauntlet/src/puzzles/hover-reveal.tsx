import { Note } from "../kit";
import { cx } from "../skin";
import type { Control, Props, View } from "./contract";

interface Hover extends View {
  floor: string;
  columns: number;
  things: (Control & { warm: boolean })[];
  note: string | null;
}

export default function HoverReveal({ view }: Props<Hover>) {
  const grid = {
    display: "grid",
    gridTemplateColumns: `repeat(${view.columns}, minmax(5.5em, 11em))`,
    gap: "1.4em",
    padding: "1.4em",
  };
  return (
    <>
      <div data-part={view.floor} data-track="" style={grid}>
        {view.things.map(({ part, label, warm }) => (
          <div
            key={part}
            data-part={part}
            data-track=""
            tabIndex={0}
            className={cx("thing")}
            style={{
              padding: "1.2em 0.6em",
              border: "2px solid currentColor",
              textAlign: "center",
              userSelect: "none",
              opacity: warm ? 1 : 0.75,
              boxShadow: warm ? "0 0 1em currentColor" : "none",
            }}
          >
            {label}
          </div>
        ))}
      </div>
      <div style={{ minHeight: "3em" }}>{view.note && <Note>{view.note}</Note>}</div>
    </>
  );
}
