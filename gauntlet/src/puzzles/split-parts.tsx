import { useId } from "react";

import { cx } from "../skin";
import { Column, Panel } from "../kit";
import type { Control, Props, View } from "./contract";

type Item = Control & { holds: string | null };

interface Group {
  kind: "tabs" | "folds" | "notes";
  heading: string;
  items: Item[];
}

interface Places extends View {
  groups: Group[];
}

const boxed = { minHeight: "2.5em" };

function Tabs({ items, heading }: { items: Item[]; heading: string }) {
  const id = useId();
  const open = items.findIndex((item) => item.holds !== null);
  return (
    <>
      <div role="tablist" aria-label={heading} className={cx("row")}>
        {items.map((item, index) => (
          <button
            key={item.part}
            id={`${id}-${index}`}
            type="button"
            role="tab"
            aria-selected={index === open}
            aria-controls={index === open ? `${id}-panel` : undefined}
            className={cx("button")}
            data-part={item.part}
          >
            {item.label}
          </button>
        ))}
      </div>
      <div style={boxed}>
        {open >= 0 && (
          <div role="tabpanel" id={`${id}-panel`} aria-labelledby={`${id}-${open}`}>
            <p>{items[open].holds}</p>
          </div>
        )}
      </div>
    </>
  );
}

function Folds({ items }: { items: Item[] }) {
  const id = useId();
  return (
    <Column>
      {items.map((item, index) => (
        <div key={item.part}>
          <button
            type="button"
            className={cx("button")}
            data-part={item.part}
            aria-expanded={item.holds !== null}
            aria-controls={item.holds !== null ? `${id}-${index}` : undefined}
          >
            {item.label}
          </button>
          {item.holds !== null && <p id={`${id}-${index}`}>{item.holds}</p>}
        </div>
      ))}
    </Column>
  );
}

function Notes({ items }: { items: Item[] }) {
  const id = useId();
  return (
    <div className={cx("row")}>
      {items.map((item, index) => (
        <span key={item.part} style={{ display: "inline-flex", flexDirection: "column", minHeight: "4.5em" }}>
          <button
            type="button"
            className={cx("button")}
            data-part={item.part}
            data-track=""
            aria-describedby={item.holds !== null ? `${id}-${index}` : undefined}
          >
            {item.label}
          </button>
          {item.holds !== null && (
            <span role="tooltip" id={`${id}-${index}`} className={cx("note")}>
              {item.holds}
            </span>
          )}
        </span>
      ))}
    </div>
  );
}

export default function SplitParts({ view }: Props<Places>) {
  return (
    <Column>
      {view.groups.map((group) => (
        <Panel key={group.kind} title={group.heading}>
          {group.kind === "tabs" && <Tabs items={group.items} heading={group.heading} />}
          {group.kind === "folds" && <Folds items={group.items} />}
          {group.kind === "notes" && <Notes items={group.items} />}
        </Panel>
      ))}
    </Column>
  );
}
