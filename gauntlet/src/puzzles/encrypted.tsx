import { Button, Column, Field, Form, Note, Panel } from "../kit";
import type { Control, Props, View } from "./contract";

interface Sealed extends View {
  message: { title: string; text: string };
  list: { title: string; lines: string[] };
  field: Control;
  go: Control;
  tried: { note: string; text: string } | null; // what a wrong key made of the message
}

const written = { fontFamily: "ui-monospace, monospace", fontSize: "1.1rem", overflowWrap: "anywhere" } as const;

export default function Encrypted({ view }: Props<Sealed>) {
  return (
    <Column>
      <Panel title={view.message.title}>
        <p style={written}>{view.message.text}</p>
      </Panel>
      {view.list.lines.length > 0 && (
        <Panel title={view.list.title}>
          <ul>
            {view.list.lines.map((line) => (
              <li key={line}>{line}</li>
            ))}
          </ul>
        </Panel>
      )}
      <Form>
        <Field name={view.field.part} label={view.field.label} />
        <Button {...view.go} />
      </Form>
      {view.tried && (
        <div>
          <Note>{view.tried.note}</Note>
          {view.tried.text && <p style={written}>{view.tried.text}</p>}
        </div>
      )}
    </Column>
  );
}
