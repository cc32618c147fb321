import { useEffect, useRef } from "react";

import { Button, Column, Panel, Row } from "../kit";
import type { Control, Props, View } from "./contract";

interface Film extends View {
  play: Control;
  film: string | null;
  plays: number;
  on: Control;
  back: Control;
  still: string | null; // the picture that is looked at by hand, in the film's place
  told: string;
}

const screen = { display: "block", width: "min(320px, 100%)", aspectRatio: "4 / 3" };

export default function Video({ view }: Props<Film>) {
  const player = useRef<HTMLVideoElement>(null);
  const { film, plays, still } = view;

  useEffect(() => {
    const video = player.current;
    if (!video || !plays) return;
    video.currentTime = 0;
    video.play().catch(() => undefined); // a browser that does not let it begin shows its own controls
  }, [film, plays]);

  useEffect(() => {
    if (still) player.current?.pause();
  }, [still]);

  return (
    <Column>
      <Button {...view.play} />
      {film && (
        <>
          <video ref={player} src={film} controls muted loop playsInline aria-label={view.title} style={{ ...screen, display: still ? "none" : "block" }} />
          {still && <img src={still} alt={view.title} style={screen} />}
          <Row>
            <Button {...view.back} />
            <Button {...view.on} />
          </Row>
          <Panel>
            <p aria-live="polite" style={{ minHeight: "1.5em" }}>
              {view.told}
            </p>
          </Panel>
        </>
      )}
    </Column>
  );
}
