import { Button, Column, Field, Form, Note, Panel, Row, Tick } from "../kit";
import type { Control, Props, View } from "./contract";

type Choice = Control & { on: boolean };

interface Sheet {
  round: number;
  groups: ("word" | "boxes" | "choices")[]; // in the order in which they are drawn
  word: Control;
  boxes: Choice[];
  choices: Choice[];
  buttons: Control[];
}

interface Listed extends View {
  lines: string[];
  start: Control;
  progress: string;
  form: Sheet | null;
  note: string;
}

function Group({ kind, form }: { kind: Sheet["groups"][number]; form: Sheet }) {
  if (kind === "word") return <Field name={form.word.part} label={form.word.label} />;
  return (
    <Row>
      {form[kind].map((choice) => (
        <Tick key={choice.part} {...choice} kind={kind === "boxes" ? "checkbox" : "radio"} />
      ))}
    </Row>
  );
}

export default function MultiStep({ view }: Props<Listed>) {
  const { form } = view;
  return (
    <Column>
      <ol>
        {view.lines.map((line) => (
          <li key={line}>{line}</li>
        ))}
      </ol>
      <Row>
        <Button {...view.start} />
        <Note>{view.progress}</Note>
      </Row>
      {form && (
        <Panel>
          <Form key={form.round}>
            {form.groups.map((kind) => (
              <Group key={kind} kind={kind} form={form} />
            ))}
            <Row>
              {form.buttons.map((button) => (
                <Button key={button.part} {...button} />
              ))}
            </Row>
          </Form>
        </Panel>
      )}
      {view.note && <Note>{view.note}</Note>}
    </Column>
  );
}
