import { Column, Note } from "../kit";
import type { Props, View } from "./contract";

interface Framed extends View {
  frame: { src: string; title: string; height: number };
  note: string;
}

const edge = { display: "block", boxSizing: "border-box", width: "100%", border: "2px solid #777" } as const;

export default function Frames({ view }: Props<Framed>) {
  const { src, title, height } = view.frame;
  return (
    <Column>
      {view.note && <Note>{view.note}</Note>}
      <iframe key={src} src={src} title={title} style={{ ...edge, height: height + 4 }} />
    </Column>
  );
}
