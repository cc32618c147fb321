import { Column, Note, Panel } from "../kit";
import type { Props, View } from "./contract";

interface Notices extends View {
  layout: "cards" | "list" | "table";
  items: { head: string; text: string }[];
}

const cell = { padding: "0.3em 1.2em 0.3em 0", textAlign: "left", overflowWrap: "anywhere" } as const;

export default function VisibleText({ view }: Props<Notices>) {
  if (view.layout === "table") {
    return (
      <table>
        <tbody>
          {view.items.map(({ head, text }) => (
            <tr key={head}>
              <th scope="row" style={cell}>
                {head}
              </th>
              <td style={cell}>{text}</td>
            </tr>
          ))}
        </tbody>
      </table>
    );
  }
  if (view.layout === "list") {
    return (
      <ul>
        {view.items.map(({ head, text }) => (
          <li key={head}>{`${head}: ${text}`}</li>
        ))}
      </ul>
    );
  }
  return (
    <Column>
      {view.items.map(({ head, text }) => (
        <Panel key={head} title={head}>
          <Note>{text}</Note>
        </Panel>
      ))}
    </Column>
  );
}
