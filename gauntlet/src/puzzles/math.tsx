import { Button, Column, Field, Form, Note } from "../kit";
import { Told } from "../told";
import type { Control, Props, View } from "./contract";

interface Sum extends View {
  lines: string[];
  field: { name: string; label: string };
  check: Control;
  note: string | null;
}

export default function Math({ view }: Props<Sum>) {
  return (
    <Column>
      <Told lines={view.lines} />
      <Form>
        <Field {...view.field} />
        <Button {...view.check} />
      </Form>
      {view.note && <Note>{view.note}</Note>}
    </Column>
  );
}
