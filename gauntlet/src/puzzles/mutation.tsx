import { useLayoutEffect, useRef, useState } from "react";

import { Button, Column, Field, Form, Note, Row } from "../kit";
import type { Control, Props, View } from "./contract";

interface Letter {
  id: string;
  letter: string;
}

interface Board extends View {
  board: Letter[];
  seen: string;
  counter: string;
  next: Control;
  again: Control;
  check: Control;
  field: Control;
  ended: boolean;
  note: string;
}

const stageStyle = { display: "flex", gap: 10, minHeight: "3em", alignItems: "center", fontSize: "1.6rem" } as const;

// The letters are put in and taken out by hand, node by node; React owns the empty box around them and nothing in it.
// A MutationObserver counts what is put in.
function Stage({ board, counter }: { board: Letter[]; counter: string }) {
  const stage = useRef<HTMLDivElement>(null);
  const nodes = useRef(new Map<string, HTMLElement>());
  const [added, setAdded] = useState(0);

  useLayoutEffect(() => {
    const box = stage.current;
    if (!box) return;
    const wanted = new Set(board.map(({ id }) => id));
    for (const [id, node] of nodes.current) {
      if (wanted.has(id)) continue;
      node.remove();
      nodes.current.delete(id);
    }
    board.forEach(({ id, letter }, index) => {
      if (nodes.current.has(id)) return;
      const node = document.createElement("span");
      node.textContent = letter;
      box.insertBefore(node, box.children[index] ?? null);
      nodes.current.set(id, node);
    });
  }, [board]);

  // After the first row is there: only what changes from then on counts.
  useLayoutEffect(() => {
    const observer = new MutationObserver((records) => {
      const more = records.reduce((sum, record) => sum + record.addedNodes.length, 0);
      if (more) setAdded((sum) => sum + more);
    });
    if (stage.current) observer.observe(stage.current, { childList: true });
    return () => observer.disconnect();
  }, []);

  return (
    <>
      <div ref={stage} style={stageStyle} aria-live="polite" aria-relevant="additions" />
      <Note>{`${counter}: ${added}`}</Note>
    </>
  );
}

export default function Mutation({ view }: Props<Board>) {
  return (
    <Column>
      <Stage board={view.board} counter={view.counter} />
      <Note>{view.seen}</Note>
      <Row>
        <Button {...view.next} disabled={view.ended} />
        <Button {...view.again} />
      </Row>
      <Form>
        <Field name={view.field.part} label={view.field.label} />
        <Button {...view.check} />
      </Form>
      {view.note && <Note>{view.note}</Note>}
    </Column>
  );
}
