import { Button, Column, Note, Row } from "../kit";
import type { Control, Props, View } from "./contract";

interface Section {
  head: string;
  text: string;
  trap: Control | null;
  note: string | null;
}

interface Long extends View {
  ground: string;
  sections: Section[];
  goal: Control | null;
}

// Sections are as tall as half a screen, so that the page is longer than any screen from the start.
const tall = { minHeight: "48vh", borderTop: "1px dashed currentColor" };

export default function ScrollFind({ view }: Props<Long>) {
  return (
    <div data-part={view.ground} data-track="">
      <Column>
        {view.sections.map(({ head, text, trap, note }) => (
          <section key={head} style={tall}>
            <h3>{head}</h3>
            <p>{text}</p>
            {trap && (
              <Row>
                <Button {...trap} />
                {note && <Note>{note}</Note>}
              </Row>
            )}
          </section>
        ))}
        {view.goal && (
          <Row>
            <Button {...view.goal} />
          </Row>
        )}
      </Column>
    </div>
  );
}
