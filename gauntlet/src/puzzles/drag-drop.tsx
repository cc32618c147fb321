import { useEffect, useState, type PointerEvent } from "react";

import { Column, Note, Row } from "../kit";
import { cx } from "../skin";
import { Told } from "../told";
import type { Control, Props, View } from "./contract";

type Thing = Control & { name: string; held: boolean };
type Place = Control & { items: Thing[] };

interface Places extends View {
  lines: string[];
  keys: string;
  slots: Place[];
  table: Place;
  flip: boolean;
}

interface Carried {
  label: string;
  x: number;
  y: number;
}

type Lift = (event: PointerEvent, label: string) => void;

const PLAIN = { display: "block", width: "100%", marginBottom: "0.4em", border: 0, background: "none", color: "inherit", font: "inherit", textAlign: "left" } as const;
const STILL = { touchAction: "none", userSelect: "none" } as const;

// The button is what the keyboard reaches; a drop counts anywhere in the box.
function Box({ part, label, items, lift, flex }: Place & { lift: Lift; flex: string }) {
  return (
    <section className={cx("slot")} data-part={part} style={{ ...STILL, border: "2px dashed currentColor", borderRadius: 8, padding: "0.6em", minHeight: "5.5em", minWidth: "7em", flex }}>
      <button type="button" data-part={part} style={PLAIN}>
        {label}
      </button>
      <Row>
        {items.map((item) => (
          <button
            key={item.part}
            type="button"
            className={cx("button")}
            data-part={item.part}
            aria-label={item.name}
            aria-pressed={item.held}
            onPointerDown={(event) => lift(event, item.label)}
            style={{ ...STILL, cursor: "grab", outline: item.held ? "3px solid currentColor" : undefined }}
          >
            {item.label}
          </button>
        ))}
      </Row>
    </section>
  );
}

// A picture of the thing under the pointer; it is in nobody's way.
function Ghost({ label, x, y }: Carried) {
  return (
    <span aria-hidden="true" className={cx("button")} style={{ position: "fixed", left: x + 10, top: y + 10, zIndex: 50, pointerEvents: "none", opacity: 0.8 }}>
      {label}
    </span>
  );
}

export default function DragDrop({ view }: Props<Places>) {
  const [carried, setCarried] = useState<Carried | null>(null);
  const carries = carried !== null;
  useEffect(() => {
    if (!carries) return;
    const move = (event: globalThis.PointerEvent) => setCarried((now) => now && { ...now, x: event.clientX, y: event.clientY });
    const end = () => setCarried(null);
    window.addEventListener("pointermove", move);
    window.addEventListener("pointerup", end);
    window.addEventListener("pointercancel", end);
    return () => {
      window.removeEventListener("pointermove", move);
      window.removeEventListener("pointerup", end);
      window.removeEventListener("pointercancel", end);
    };
  }, [carries]);
  const lift: Lift = (event, label) => setCarried({ label, x: event.clientX, y: event.clientY });
  const table = <Box {...view.table} lift={lift} flex="none" />;
  return (
    <Column>
      <Told lines={view.lines} />
      {!view.flip && table}
      <Row>
        {view.slots.map((slot) => (
          <Box key={slot.part} {...slot} lift={lift} flex="1 1 8em" />
        ))}
      </Row>
      {view.flip && table}
      <Note>{view.keys}</Note>
      {carried && <Ghost {...carried} />}
    </Column>
  );
}
