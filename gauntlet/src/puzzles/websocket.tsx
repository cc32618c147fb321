import { useEffect, useState } from "react";

import { Button, Column, Note, Panel } from "../kit";
import type { Control, Props, View } from "./contract";

interface Feed extends View {
  connect: Control;
  feed: string | null; // path of the WebSocket, once it may be opened
  calls: number; // how often it was asked for
  states: Record<"opening" | "open" | "closed", string>;
}

const KEPT = 40; // lines; the oldest go first

export default function Websocket({ view }: Props<Feed>) {
  const { feed, calls } = view;
  const [state, setState] = useState<keyof Feed["states"] | null>(null);
  const [lines, setLines] = useState<string[]>([]);

  useEffect(() => {
    if (!feed) return;
    setState("opening");
    setLines([]);
    const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${feed}`);
    socket.onopen = () => setState("open");
    socket.onclose = () => setState("closed");
    socket.onmessage = (message) => setLines((before) => [...before, String(message.data)].slice(-KEPT));
    return () => {
      socket.onopen = socket.onclose = socket.onmessage = null;
      socket.close();
    };
  }, [feed, calls]);

  return (
    <Column>
      <Button {...view.connect} />
      {state && <Note>{view.states[state]}</Note>}
      {lines.length > 0 && (
        <Panel>
          <ul role="log" style={{ listStyle: "none", padding: 0, margin: 0 }}>
            {lines.map((line, index) => (
              <li key={index}>{line}</li>
            ))}
          </ul>
        </Panel>
      )}
    </Column>
  );
}
