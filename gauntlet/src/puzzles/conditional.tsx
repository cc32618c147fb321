import { Button, Column, Note, Panel, Row, Tick } from "../kit";
import type { Control, Props, View } from "./contract";

interface Question {
  text: string;
  options: (Control & { on: boolean })[];
}

interface Branching extends View {
  cards: { title: string; lines: string[] }[];
  questions: Question[];
  done: Control;
  note: string;
}

const fieldset = { border: 0, margin: 0, padding: 0 } as const;

export default function Conditional({ view }: Props<Branching>) {
  return (
    <Column>
      <Row>
        {view.cards.map((card) => (
          <Panel key={card.title} title={card.title}>
            <ul>
              {card.lines.map((line) => (
                <li key={line}>{line}</li>
              ))}
            </ul>
          </Panel>
        ))}
      </Row>
      {view.questions.map((question) => (
        <fieldset key={question.text} style={fieldset}>
          <legend>{question.text}</legend>
          <Row>
            {question.options.map((option) => (
              <Tick key={option.part} {...option} kind="radio" />
            ))}
          </Row>
        </fieldset>
      ))}
      <Button {...view.done} />
      {view.note && <Note>{view.note}</Note>}
    </Column>
  );
}
