import { cx } from "../skin";
import { Note } from "../kit";
import type { Control, Props, View } from "./contract";

interface Tiles extends View {
  columns: number;
  tiles: (Control & { on: boolean })[];
  note: string | null;
}

export default function ClickSequence({ view }: Props<Tiles>) {
  return (
    <>
      <div style={{ display: "grid", gridTemplateColumns: `repeat(${view.columns}, minmax(0, 9em))`, gap: "0.6em" }}>
        {view.tiles.map(({ part, label, on }) => (
          <button
            key={part}
            type="button"
            data-part={part}
            aria-pressed={on}
            className={cx("button")}
            style={{ minHeight: "3.2em", opacity: on ? 0.5 : 1, overflowWrap: "anywhere" }}
          >
            {label}
          </button>
        ))}
      </div>
      <div style={{ minHeight: "3em" }}>{view.note && <Note>{view.note}</Note>}</div>
    </>
  );
}
