import { Column, Note } from "../kit";
import type { Props, View } from "./contract";

interface Scrambled extends View {
  given: string;
  list: string | null;
  rules: string[];
  flip: boolean;
}

export default function CalculatedCode({ view }: Props<Scrambled>) {
  const rules = (
    <ol>
      {view.rules.map((rule, index) => (
        <li key={index}>{rule}</li>
      ))}
    </ol>
  );
  return (
    <Column>
      {view.flip && rules}
      <p style={{ fontFamily: "monospace", fontSize: "1.15em", overflowWrap: "anywhere" }}>{view.given}</p>
      {view.list && <Note>{view.list}</Note>}
      {!view.flip && rules}
    </Column>
  );
}
