import { Column, Panel } from "../kit";
import type { Props, View } from "./contract";

interface Coded extends View {
  notes: { title: string; text: string }[];
  table: { label: string; lines: string[] };
}

const written = { fontFamily: "ui-monospace, monospace", fontSize: "1.1rem", overflowWrap: "anywhere" } as const;

export default function Encoded({ view }: Props<Coded>) {
  return (
    <Column>
      {view.notes.map((note) => (
        <Panel key={note.title} title={note.title}>
          <p style={written}>{note.text}</p>
        </Panel>
      ))}
      <details>
        <summary>{view.table.label}</summary>
        {view.table.lines.map((line) => (
          <p key={line} style={{ overflowWrap: "anywhere" }}>
            {line}
          </p>
        ))}
      </details>
    </Column>
  );
}
