import { Button, Column, Note } from "../kit";
import { cx } from "../skin";
import type { Control, Props, View } from "./contract";

interface Moving extends View {
  warning: string | null;
  buttons: (Control & { x: number; y: number })[]; // per cent of the free width, and of the height
  period: number; // seconds from one place to the next
  count: string;
  note: string | null;
}

const WIDTH = 140;
const LANE = 84; // pixels of height for each button

// The server says where each is next; the page glides there, or jumps where a visitor wants less motion.
export default function AnimatedButton({ view }: Props<Moving>) {
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const glide = calm ? "none" : `left ${view.period}s linear, top ${view.period}s linear`;
  return (
    <Column>
      {view.warning && <Note>{view.warning}</Note>}
      <div className={cx("arena")} style={{ position: "relative", height: LANE * view.buttons.length, overflow: "hidden", outline: "1px solid currentColor" }}>
        {view.buttons.map(({ part, label, x, y }) => (
          <Button
            key={part}
            part={part}
            label={label}
            style={{ position: "absolute", margin: 0, width: WIDTH, left: `calc(${x}% - ${(x * WIDTH) / 100}px)`, top: `${y}%`, transition: glide, touchAction: "manipulation" }}
          />
        ))}
      </div>
      <Note>{view.count}</Note>
      {view.note && <Note>{view.note}</Note>}
    </Column>
  );
}
