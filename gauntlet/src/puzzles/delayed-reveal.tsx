import { Button, Column, Note, Row } from "../kit";
import { Told } from "../told";
import type { Control, Props, View } from "./contract";

interface Delayed extends View {
  lines: string[];
  buttons: Control[];
  note: string | null;
}

export default function DelayedReveal({ view }: Props<Delayed>) {
  return (
    <Column>
      <Told lines={view.lines} />
      <Row>
        {view.buttons.map((button) => (
          <Button key={button.part} {...button} />
        ))}
      </Row>
      {view.note && <Note>{view.note}</Note>}
    </Column>
  );
}
