import { useEffect, useState } from "react";

import { Button, Column, Note } from "../kit";
import type { Control, Props, View } from "./contract";

interface Worker extends View {
  start: Control;
  worker: string | null; // its script, once it may be registered
  scope: string;
  states: Record<State, string>;
  windows: (Control & { address: string | null })[];
}

type State = "off" | "starting" | "ready" | "failed";

const active = (registration: ServiceWorkerRegistration): Promise<void> =>
  new Promise((done, failed) => {
    const worker = registration.installing ?? registration.waiting ?? registration.active;
    if (!worker) return failed(new Error("no worker"));
    const look = () => {
      if (worker.state === "activated") done();
      else if (worker.state === "redundant") failed(new Error("thrown away"));
    };
    worker.addEventListener("statechange", look);
    look();
  });

function useWorker(script: string | null, scope: string): State {
  const [state, setState] = useState<State>("off");
  useEffect(() => {
    if (!script) return;
    let left = false;
    let registered: ServiceWorkerRegistration | undefined;
    setState("starting");
    (async () => {
      registered = await navigator.serviceWorker.register(script, { scope });
      await active(registered);
    })().then(
      () => !left && setState("ready"),
      () => !left && setState("failed"),
    );
    return () => {
      left = true;
      registered?.unregister().catch(() => undefined);
    };
  }, [script, scope]);
  return state;
}

export default function ServiceWorker({ view }: Props<Worker>) {
  const state = useWorker(view.worker, view.scope);
  return (
    <Column>
      <Button {...view.start} />
      <Note>{view.states[state]}</Note>
      {view.windows.map((window) => (
        <div key={window.part}>
          <Button part={window.part} label={window.label} />
          {window.address && state === "ready" && (
            <iframe src={window.address} title={window.label} style={{ display: "block", width: "100%", height: "3rem", border: "1px solid currentColor" }} />
          )}
        </div>
      ))}
    </Column>
  );
}
