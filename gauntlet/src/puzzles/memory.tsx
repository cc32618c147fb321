import { Button, Column, Note, Row, Tick } from "../kit";
import type { Control, Props, View } from "./contract";

interface Words extends View {
  show: Control;
  slower: Control & { on: boolean };
  shown: string | null; // "2 of 4: Moon"
  words: Control[];
  entered: string;
  clear: Control;
  note: string | null;
}

// What comes and goes keeps its room, so that nothing moves under the pointer.
const ROOM = { minHeight: "1.6em", fontSize: "1.6em", margin: "0.3em 0" } as const;

export default function Memory({ view }: Props<Words>) {
  return (
    <Column>
      <Row>
        <Button {...view.show} />
        <Tick {...view.slower} />
      </Row>
      <p style={ROOM} aria-live="polite">
        {view.shown}
      </p>
      <Row>
        {view.words.map((word, index) => (
          <Button key={word.part} {...word} style={{ borderLeft: `0.5em solid hsl(${(index * 360) / view.words.length} 60% 50%)` }} />
        ))}
      </Row>
      <Note>{view.entered}</Note>
      <Row>
        <Button {...view.clear} />
      </Row>
      {view.note && <Note>{view.note}</Note>}
    </Column>
  );
}
