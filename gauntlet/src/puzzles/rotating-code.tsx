import { Button, Column, Panel } from "../kit";
import type { Control, Props, View } from "./contract";

interface Board extends View {
  start: Control;
  line: string;
}

export default function RotatingCode({ view }: Props<Board>) {
  return (
    <Column>
      <Button {...view.start} />
      <Panel>
        <p style={{ fontSize: "1.5rem", minHeight: "2em" }}>{view.line}</p>
      </Panel>
    </Column>
  );
}
