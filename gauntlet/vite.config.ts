// What is built, and how: `app` (React, one file) and `seal` (the sealed script, apart: the server writes it into the
// shell). build.mjs calls both and writes the manifest.

import react from "@vitejs/plugin-react";
import { defineConfig, type Plugin } from "vite";

// A component that does not even parse is left out (the page then says so, and build.mjs fails in the end), so that one
// broken type does not stop those who work on the others.
function without(broken: string[]): Plugin {
  return {
    name: "without-broken-types",
    enforce: "pre",
    load: (id) => (broken.some((name) => id.endsWith(`/src/puzzles/${name}`)) ? "export default null;" : null),
  };
}

export default defineConfig(({ mode }) => {
  const output = process.env.GAUNTLET_OUT ?? "out";
  const broken = (process.env.GAUNTLET_BROKEN ?? "").split(",").filter(Boolean);
  const shared = { outDir: output, emptyOutDir: false, target: "es2022", minify: true, modulePreload: false, reportCompressedSize: false } as const;
  if (mode === "seal") {
    return {
      publicDir: false,
      build: { ...shared, lib: { entry: "src/seal.ts", formats: ["iife"], name: "sealed", fileName: () => "seal.js" } },
    };
  }
  return {
    publicDir: false,
    define: { "process.env.NODE_ENV": JSON.stringify("production") },
    plugins: [without(broken), react()],
    build: { ...shared, rolldownOptions: { input: "src/main.tsx", output: { entryFileNames: "app.js" } } },
  };
});
