// What stands in the way, drawn around the puzzle. The server says what there is and which of it is closed.

import type { Distractor, StepPage } from "../contract";
import { Cookies } from "./cookies";
import { Decoys } from "./decoys";
import { Filler } from "./filler";
import { Modal } from "./modal";
import { Popup } from "./popup";
import { Traps } from "./traps";

export interface Props {
  distractor: Distractor;
}

// Where they stand: beside the puzzle in the page's flow, after everything else in it, or above the page.
const TABLES: Record<Place, Record<string, typeof Modal>> = {
  beside: { traps: Traps, decoys: Decoys },
  after: { filler: Filler },
  above: { cookies: Cookies, prize: Popup, newsletter: Popup, modal: Modal },
};
type Place = "beside" | "after" | "above";

export const coversPage = (distractors: Distractor[]) => distractors.some(({ kind }) => kind === "modal");

export function Distractors({ page, place }: { page: StepPage; place: Place }) {
  return page.distractors.map((distractor) => {
    const Component = TABLES[place][distractor.kind];
    return Component && <Component key={distractor.id} distractor={distractor} />;
  });
}
