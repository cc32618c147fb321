import { useId } from "react";

import { Button, Column, Field, Form, Note, Panel, Row, Tick } from "../kit";
import { cx } from "../skin";
import type { Control, Props, View } from "./contract";

type Line = [string, string];

interface Filled extends View {
  layout: "lines" | "table";
  cards: { title: string; lines: Line[] }[];
  fields: { name: string; label: string }[];
  choice: { label: string; options: (Control & { on: boolean })[] } | null;
  tick: (Control & { on: boolean }) | null;
  send: Control;
  note: string | null;
}

function Card({ title, lines, table }: { title: string; lines: Line[]; table: boolean }) {
  return (
    <Panel title={title}>
      {table ? (
        <table>
          <tbody>
            {lines.map(([label, value]) => (
              <tr key={label}>
                <th scope="row" style={{ textAlign: "left", paddingRight: "1.2em" }}>
                  {label}
                </th>
                <td>{value}</td>
              </tr>
            ))}
          </tbody>
        </table>
      ) : (
        <ul>
          {lines.map(([label, value]) => (
            <li key={label}>{`${label}: ${value}`}</li>
          ))}
        </ul>
      )}
    </Panel>
  );
}

export default function FormFill({ view }: Props<Filled>) {
  const legend = useId();
  return (
    <>
      <Column>
        {view.cards.map((card) => (
          <Card key={card.title} {...card} table={view.layout === "table"} />
        ))}
      </Column>
      <Form>
        {view.fields.map((field) => (
          <Field key={field.name} {...field} />
        ))}
        {view.choice && (
          <div role="radiogroup" aria-labelledby={legend} className={cx("field")}>
            <span id={legend}>{view.choice.label}</span>
            {view.choice.options.map((option) => (
              <Tick key={option.part} kind="radio" {...option} />
            ))}
          </div>
        )}
        {view.tick && <Tick {...view.tick} />}
        <Row>
          <Button {...view.send} />
        </Row>
        {view.note && <Note>{view.note}</Note>}
      </Form>
    </>
  );
}
