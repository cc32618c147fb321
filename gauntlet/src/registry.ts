// The components of the puzzles by type: every file in puzzles/ under its name, so a new type needs no line here.

import type { ComponentType } from "react";

import type { Props } from "./puzzles/contract";

interface Module {
  default: ComponentType<Props<any>> | null; // null: it could not be built
}

export const components: Record<string, ComponentType<Props<any>>> = {};
for (const [path, module] of Object.entries(import.meta.glob<Module>("./puzzles/*.tsx", { eager: true }))) {
  const name = path.slice("./puzzles/".length, -".tsx".length);
  if (module.default) components[name] = module.default;
}
