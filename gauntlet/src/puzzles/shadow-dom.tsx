import { useLayoutEffect, useRef, useState, type ReactNode } from "react";
import { createPortal } from "react-dom";

import { Button, Column, Note, Panel, Row } from "../kit";
import { adopt } from "../skin";
import type { Control, Props, View } from "./contract";

interface Level {
  heading: string;
  items: Control[];
  open: number | null; // which of the items has been opened; the next level lies in it
}

interface Nested extends View {
  levels: Level[];
  note: string;
}

// An open shadow root of its own, with the page's style sheets; what is in it is drawn by React through a portal.
function Shadow({ children }: { children: ReactNode }) {
  const host = useRef<HTMLDivElement>(null);
  const [root, setRoot] = useState<ShadowRoot | null>(null);
  useLayoutEffect(() => {
    const element = host.current;
    if (!element) return;
    const shadow = element.shadowRoot ?? element.attachShadow({ mode: "open" });
    adopt(shadow);
    setRoot(shadow);
  }, []);
  return (
    <div ref={host} style={{ marginTop: 10 }}>
      {root && createPortal(children, root)}
    </div>
  );
}

function Layer({ levels, at }: { levels: Level[]; at: number }) {
  const { heading, items, open } = levels[at];
  return (
    <Shadow>
      <Panel title={heading}>
        <Row>
          {items.map((item, index) => index !== open && <Button key={item.part} {...item} />)}
        </Row>
        {open !== null && at + 1 < levels.length && <Layer levels={levels} at={at + 1} />}
      </Panel>
    </Shadow>
  );
}

export default function ShadowDom({ view }: Props<Nested>) {
  return (
    <Column>
      <Layer levels={view.levels} at={0} />
      {view.note && <Note>{view.note}</Note>}
    </Column>
  );
}
