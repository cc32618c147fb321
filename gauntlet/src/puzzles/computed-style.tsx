import { useLayoutEffect } from "react";

import { Button, Column, Note } from "../kit";
import type { Control, Props, View } from "./contract";

interface Box extends Control {
  color: string;
  frame: string; // "" for none
  width: number;
  height: number;
  turn: number; // degrees
  order: number; // place from the left
}

interface Row extends View {
  round: string;
  boxes: Box[];
  note: string;
}

const CELL = 48;

// The look of all boxes as one style sheet: the markup tells nothing, only what the browser computes from this.
function rules({ part, color, frame, width, height, turn, order }: Box): string {
  const edge = frame && `border: 5px solid ${frame};`;
  return `
    .${part} { --wide: ${width}; --high: ${height}; --tone: ${color}; --turn: ${turn}deg; order: ${order}; }
    .${part} > :first-child > div {
      width: calc(var(--wide) * 1px); height: calc(var(--high) * 1px); box-sizing: border-box;
      background-color: var(--tone); rotate: var(--turn); ${edge}
    }`;
}

const row = { display: "flex", gap: 6, padding: 8, background: "#fff", color: "#222", overflowX: "auto" } as const;
const card = { display: "flex", flexDirection: "column", alignItems: "center", gap: 6, cursor: "pointer" } as const;
const cell = { display: "flex", alignItems: "center", justifyContent: "center", width: CELL, height: CELL } as const;
const letter = { minWidth: 0, padding: "2px 10px" } as const;

export default function ComputedStyle({ view }: Props<Row>) {
  const styles = view.boxes.map(rules).join("");
  useLayoutEffect(() => {
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(styles);
    document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
    return () => {
      document.adoptedStyleSheets = document.adoptedStyleSheets.filter((other) => other !== sheet);
    };
  }, [styles]);
  return (
    <Column>
      {view.round && <Note>{view.round}</Note>}
      <div style={row}>
        {view.boxes.map(({ part, label }) => (
          <div key={part} data-part={part} className={part} style={card}>
            <div style={cell}>
              <div />
            </div>
            <Button part={part} label={label} style={letter} />
          </div>
        ))}
      </div>
      {view.note && <Note>{view.note}</Note>}
    </Column>
  );
}
