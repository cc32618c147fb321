// What is built, and how: `app` (React, one file) and `seal` (the sealed script, apart: the server writes it into the
// shell). build.mjs calls both and writes the manifest.

import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

export default defineConfig(({ mode }) => {
  const output = process.env.GAUNTLET_OUT ?? "out";
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
    plugins: [react()],
    build: { ...shared, rolldownOptions: { input: "src/main.tsx", output: { entryFileNames: "app.js" } } },
  };
});
