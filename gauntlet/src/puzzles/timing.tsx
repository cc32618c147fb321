import { Button, Column, Note, Row } from "../kit";
import type { Control, Props, View } from "./contract";

interface Moment extends View {
  how: string;
  state: string;
  phase: 0 | 1 | 2; // at rest, in between, the moment
  start: Control;
  press: Control;
  count: string;
  note: string | null;
  flip: boolean;
}

const COLOURS = ["#b03030", "#c08a00", "#1f8a3c"];

export default function Timing({ view }: Props<Moment>) {
  const state = (
    <p aria-live="polite" style={{ fontSize: "1.5em", margin: "0.3em 0", paddingLeft: "0.6em", borderLeft: `0.6em solid ${COLOURS[view.phase]}` }}>
      {view.state}
    </p>
  );
  return (
    <Column>
      <Note>{view.how}</Note>
      {!view.flip && state}
      <Row>
        <Button {...view.start} />
        <Button {...view.press} />
      </Row>
      {view.flip && state}
      <Note>{view.count}</Note>
      {view.note && <Note>{view.note}</Note>}
    </Column>
  );
}
