// What the server tells the app to draw (envs/gauntlet/visit.py, `Visit.page`). The app only ever receives.

import type { Control, View } from "./puzzles/contract";

export interface Look {
  prefix: string; // of all class names
  hue: number;
  radius: number;
  font: number;
  width: number;
  align: "left" | "center";
  form: "below" | "first"; // the code form's place
}

export interface Distractor {
  kind: string;
  id: string;
  title: string;
  text: string;
  note: string; // what a trap answered
  buttons: (Control & { style: "close" | "plain" | "loud" | "corner" })[];
  sections?: { title: string; text: string[] }[];
  field?: string; // label of a field that leads nowhere
  place?: number; // a small number to vary where it stands
}

interface Page {
  kind: "page";
  path: string;
  skin: "a" | "b";
  look: Look;
  name: string;
  step: number;
  steps: number;
}
export interface StartPage extends Page {
  page: "start";
  text: string;
  button: Control;
}
export interface StepPage extends Page {
  page: "step";
  heading: string;
  puzzle: string;
  view: View;
  region: string;
  form: { name: string; field: Control; submit: Control; message: string };
  distractors: Distractor[];
}
export interface FinishPage extends Page {
  page: "finish";
  title: string;
  text: string;
}
export interface ErrorPage extends Page {
  page: "error";
  text: string;
}
export type AnyPage = StartPage | StepPage | FinishPage | ErrorPage;
export type Message = AnyPage | { kind: "closed" };

declare global {
  interface Window {
    readonly gauntlet?: { subscribe(receive: (message: string) => void): void };
  }
}
