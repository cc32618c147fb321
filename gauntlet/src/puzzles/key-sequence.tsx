import type { KeyboardEvent } from "react";

import { Note } from "../kit";
import { cx } from "../skin";
import type { Control, Props, View } from "./contract";

interface Keys extends View {
  layout: "list" | "line";
  keys: string[];
  pad: Control;
  progress: string;
  note: string | null;
}

const SCROLLS = new Set([" ", "ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight"]);

// The page must not run away under the pad; Tab and all else keep their meaning.
const stay = (event: KeyboardEvent) => {
  if (SCROLLS.has(event.key)) event.preventDefault();
};

export default function KeySequence({ view }: Props<Keys>) {
  return (
    <>
      {view.layout === "list" ? (
        <ol style={{ display: "flex", flexWrap: "wrap", gap: "0.7em", listStyle: "none", padding: 0 }}>
          {view.keys.map((key, index) => (
            <li key={index} style={{ border: "1px solid currentColor", borderRadius: "0.4em", padding: "0.3em 0.8em" }}>
              {key}
            </li>
          ))}
        </ol>
      ) : (
        <p style={{ fontSize: "1.3em" }}>{view.keys.join(", ")}</p>
      )}
      <div
        data-part={view.pad.part}
        tabIndex={0}
        role="application"
        onKeyDown={stay}
        className={cx("pad")}
        style={{ padding: "1.6em 1em", border: "3px double currentColor", textAlign: "center" }}
      >
        {view.pad.label}
      </div>
      <Note>{view.progress}</Note>
      <div style={{ minHeight: "3em" }}>{view.note && <Note>{view.note}</Note>}</div>
    </>
  );
}
