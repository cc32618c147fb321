import { useEffect, useRef } from "react";

import { Button, Column, Panel, Row } from "../kit";
import type { Control, Props, View } from "./contract";

interface Sound extends View {
  play: Control;
  sound: string | null;
  plays: number;
  script: Control;
  lines: string[];
  chart: { title: string; rows: string[] };
}

// Letters get smaller on a phone: a sign must not be broken.
const typed = { fontFamily: "monospace", fontSize: "clamp(0.6rem, 3.4vw, 1rem)", whiteSpace: "pre", margin: 0 } as const;

export default function Audio({ view }: Props<Sound>) {
  const player = useRef<HTMLAudioElement>(null);
  const { sound, plays } = view;

  useEffect(() => {
    const audio = player.current;
    if (!audio || !plays) return;
    audio.currentTime = 0;
    audio.play().catch(() => undefined); // a browser that does not let it begin shows its own controls
  }, [sound, plays]);

  return (
    <Column>
      <Row>
        <Button {...view.play} />
        <Button {...view.script} />
      </Row>
      {sound && <audio ref={player} src={sound} controls aria-label={view.title} />}
      {view.lines.length > 0 && (
        <Panel>
          <ol role="log" style={{ listStyle: "none", padding: 0, margin: 0 }}>
            {view.lines.map((line, index) => (
              <li key={index} style={typed}>
                {line}
              </li>
            ))}
          </ol>
        </Panel>
      )}
      <Panel title={view.chart.title}>
        {view.chart.rows.map((row) => (
          <p key={row} style={typed}>
            {row}
          </p>
        ))}
      </Panel>
    </Column>
  );
}
