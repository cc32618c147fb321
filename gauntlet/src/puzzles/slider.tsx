import type { KeyboardEvent, PointerEvent } from "react";

import { Button, Column, Note, Row } from "../kit";
import { cx } from "../skin";
import { Told } from "../told";
import type { Control, Props, View } from "./contract";

type Range = Control & { min: number; max: number; value: number };

interface Sliders extends View {
  lines: string[];
  scales: Range[];
  confirm: Control;
  note: string | null;
  flip: boolean;
}

const KEYS = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "PageUp", "PageDown", "Home", "End"];
const keepStill = (event: KeyboardEvent) => KEYS.includes(event.key) && event.preventDefault(); // the page must not scroll
const hold = (event: PointerEvent<HTMLElement>) => event.currentTarget.setPointerCapture(event.pointerId);

// The server moves the thumb: it is told of keys and of the pointer's places.
function Scale({ part, label, min, max, value }: Range) {
  const place = `${((value - min) / (max - min)) * 100}%`;
  return (
    <div className={cx("field")}>
      <span>{label}</span>
      <div style={{ display: "flex", alignItems: "center", gap: "1.4em", maxWidth: "34em" }}>
        <span>{min}</span>
        <div
          role="slider"
          tabIndex={0}
          aria-label={label}
          aria-valuemin={min}
          aria-valuemax={max}
          aria-valuenow={value}
          className={cx("slider")}
          data-part={part}
          data-track=""
          onKeyDown={keepStill}
          onPointerDown={hold}
          style={{ position: "relative", flex: 1, minWidth: "8em", height: "2.6em", touchAction: "none", cursor: "pointer", userSelect: "none" }}
        >
          <span style={{ position: "absolute", insetInline: 0, top: "calc(50% - 3px)", height: 6, borderRadius: 3, background: "currentColor", opacity: 0.3 }} />
          <span
            style={{
              position: "absolute", left: place, top: "50%", transform: "translate(-50%, -50%)", minWidth: "1.4em", padding: "0.25em 0.35em",
              borderRadius: "1em", border: "2px solid currentColor", background: "Canvas", color: "CanvasText", textAlign: "center", lineHeight: 1.1,
            }}
          >
            {value}
          </span>
        </div>
        <span>{max}</span>
      </div>
    </div>
  );
}

export default function Slider({ view }: Props<Sliders>) {
  const told = <Told lines={view.lines} />;
  return (
    <Column>
      {!view.flip && told}
      {view.scales.map((scale) => (
        <Scale key={scale.part} {...scale} />
      ))}
      {view.flip && told}
      <Row>
        <Button {...view.confirm} />
      </Row>
      {view.note && <Note>{view.note}</Note>}
    </Column>
  );
}
