import { useState } from "react";

import { cx } from "../skin";
import { Column, Panel } from "../kit";
import type { Props, View } from "./contract";

interface Block {
  head: string;
  lines: string[]; // at sight
  rest: string[]; // not at sight
  inner: Block | null;
}

interface Hidden extends View {
  kind: "ink" | "wide" | "folded" | "more";
  blocks: Block[];
  more: string;
  less: string;
}

// The paper has a colour of its own, whatever the skin: the ink has to match it.
const PAPER = "#fffdf5";
const paper = { background: PAPER, color: "#2b2620", padding: "0.8em 1em", border: "1px solid #d8d2c0" };

const Lines = ({ lines, color }: { lines: string[]; color?: string }) => (
  <>
    {lines.map((line) => (
      <p key={line} style={{ color }}>
        {line}
      </p>
    ))}
  </>
);

// The unseen line stands between the others.
const Ink = ({ block }: { block: Block }) => (
  <div style={paper}>
    <Lines lines={block.lines.slice(0, 2)} />
    <Lines lines={block.rest} color={PAPER} />
    <Lines lines={block.lines.slice(2)} />
  </div>
);

// No name of its own: an observer would read the name in place of what the box holds.
const Wide = ({ block }: { block: Block }) => (
  <div style={{ ...paper, overflowX: "auto", whiteSpace: "nowrap" }} tabIndex={0}>
    <span>{block.lines.join(" ")}</span>
    <span style={{ display: "inline-block", width: "180vw" }} />
    <span>{block.rest.join(" ")}</span>
  </div>
);

const Folded = ({ block }: { block: Block }) => (
  <details style={{ margin: "0.5em 0" }}>
    <summary>{block.head}</summary>
    <div style={{ paddingLeft: "1em" }}>
      <Lines lines={[...block.lines, ...block.rest]} />
      {block.inner && <Folded block={block.inner} />}
    </div>
  </details>
);

function More({ block, more, less }: { block: Block; more: string; less: string }) {
  const [open, setOpen] = useState(false);
  return (
    <Panel title={block.head}>
      <Lines lines={block.lines} />
      {open && <Lines lines={block.rest} />}
      <button type="button" className={cx("button")} aria-expanded={open} onClick={() => setOpen(!open)}>
        {open ? less : more}
      </button>
    </Panel>
  );
}

export default function HiddenText({ view }: Props<Hidden>) {
  return (
    <Column>
      {view.blocks.map((block) => {
        if (view.kind === "ink") return <Ink key={block.head} block={block} />;
        if (view.kind === "wide") return <Wide key={block.head} block={block} />;
        if (view.kind === "folded") return <Folded key={block.head} block={block} />;
        return <More key={block.head} block={block} more={view.more} less={view.less} />;
      })}
    </Column>
  );
}
