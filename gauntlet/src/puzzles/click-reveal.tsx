import { Button, Row } from "../kit";
import type { Control, Props, View } from "./contract";

interface Buttons extends View {
  buttons: Control[];
}

export default function ClickReveal({ view }: Props<Buttons>) {
  return (
    <Row>
      {view.buttons.map((button) => (
        <Button key={button.part} {...button} />
      ))}
    </Row>
  );
}
