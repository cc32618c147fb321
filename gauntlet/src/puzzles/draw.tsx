import { useEffect, useRef, useState, type PointerEvent } from "react";

import { Column, Note } from "../kit";
import { cx } from "../skin";
import { Told } from "../told";
import type { Props, View } from "./contract";

interface Drawing extends View {
  lines: string[];
  pad: string;
  height: number;
  reach: number; // radius of a point, pixels
  points: { label: string; x: number; y: number }[]; // fractions of the pad
  stroke: [number, number][];
  note: string | null;
}

function paint(canvas: HTMLCanvasElement, { points, stroke, reach }: Drawing) {
  const { clientWidth: width, clientHeight: height } = canvas;
  canvas.width = width * devicePixelRatio;
  canvas.height = height * devicePixelRatio;
  const pen = canvas.getContext("2d");
  if (!pen) return;
  pen.scale(devicePixelRatio, devicePixelRatio);
  pen.strokeStyle = pen.fillStyle = getComputedStyle(canvas).color;
  for (const { x, y } of points) {
    pen.beginPath();
    pen.arc(x * width, y * height, reach, 0, 2 * Math.PI);
    pen.globalAlpha = 0.12;
    pen.fill();
    pen.globalAlpha = 0.6;
    pen.stroke();
  }
  pen.globalAlpha = 0.8;
  pen.lineWidth = 4;
  pen.lineCap = pen.lineJoin = "round";
  pen.beginPath();
  for (const [x, y] of stroke) pen.lineTo(x * width, y * height);
  pen.stroke();
}

const hold = (event: PointerEvent<HTMLElement>) => event.currentTarget.setPointerCapture(event.pointerId);

// The line is drawn back as the server saw it. The labels are SVG, so that what reads the page learns where they lie.
export default function Draw({ view }: Props<Drawing>) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [width, setWidth] = useState(0);
  useEffect(() => {
    const el = canvas.current!;
    const watch = new ResizeObserver(() => setWidth(el.clientWidth));
    watch.observe(el);
    return () => watch.disconnect();
  }, []);
  useEffect(() => paint(canvas.current!, view), [view, width]);
  return (
    <Column>
      <Told lines={view.lines} />
      <div
        className={cx("pad")}
        data-part={view.pad}
        data-track=""
        onPointerDown={hold}
        style={{ position: "relative", width: "100%", maxWidth: 560, height: view.height, outline: "2px solid currentColor", touchAction: "none", userSelect: "none", cursor: "crosshair" }}
      >
        <canvas ref={canvas} style={{ display: "block", width: "100%", height: "100%" }} />
        <svg width="100%" height="100%" style={{ position: "absolute", inset: 0, pointerEvents: "none" }}>
          {view.points.map(({ label, x, y }) => (
            <text key={label} x={`${x * 100}%`} y={`${y * 100}%`} textAnchor="middle" dominantBaseline="central" fontSize={14} fill="currentColor">
              {label}
            </text>
          ))}
        </svg>
      </div>
      {view.note && <Note>{view.note}</Note>}
    </Column>
  );
}
