// `npm run build`: writes src/dpo_driver/envs/gauntlet/site/ and its manifest.json, which holds the SHA-256 of every source
// and of every built file; tests/unit/test_gauntlet_site.py compares without Node. One build at a time.

import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";

import { build } from "vite";

const HERE = dirname(fileURLToPath(import.meta.url));
const SITE = join(HERE, "..", "src", "dpo_driver", "envs", "gauntlet", "site");
const ROOT_SOURCES = ["build.mjs", "package.json", "package-lock.json", "tsconfig.json", "vite.config.ts"];
const LOCK = join(HERE, "node_modules", ".building");
const LOCK_S = 120;

const sha256 = (content) => createHash("sha256").update(content).digest("hex");
const walk = (folder) =>
  readdirSync(folder, { withFileTypes: true }).flatMap((entry) =>
    entry.isDirectory() ? walk(join(folder, entry.name)) : [join(folder, entry.name)],
  );
const sources = () =>
  [...ROOT_SOURCES.map((name) => join(HERE, name)), ...walk(join(HERE, "src"))].sort();
const hashes = (files, base) =>
  Object.fromEntries(files.map((file) => [relative(base, file).replaceAll("\\", "/"), sha256(readFileSync(file))]));

async function lock() {
  const deadline = Date.now() + LOCK_S * 1000;
  for (;;) {
    try {
      mkdirSync(LOCK);
      return;
    } catch (error) {
      if (error.code !== "EEXIST") throw error;
      let age = 0;
      try {
        age = Date.now() - statSync(LOCK).mtimeMs;
      } catch {
        continue; // gone meanwhile
      }
      if (age > LOCK_S * 1000) rmSync(LOCK, { recursive: true, force: true });
      else if (Date.now() > deadline) throw new Error(`another build holds ${LOCK}`);
      else await new Promise((done) => setTimeout(done, 200));
    }
  }
}

// What the built file holds of others, with the words that their licence asks to keep.
function licences() {
  const packages = ["react", "react-dom", "scheduler"].map((name) => join(HERE, "node_modules", name));
  return packages
    .map((folder) => {
      const { name, version } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
      return `${name} ${version}\n\n${readFileSync(join(folder, "LICENSE"), "utf8").trim()}\n`;
    })
    .join("\n---\n\n");
}

async function main() {
  await lock();
  const out = mkdtempSync(join(tmpdir(), "gauntlet-build-"));
  try {
    const before = hashes(sources(), HERE);
    process.env.GAUNTLET_OUT = out;
    for (const mode of ["app", "seal"]) {
      await build({ root: HERE, configFile: join(HERE, "vite.config.ts"), mode, logLevel: "warn" });
    }
    writeFileSync(join(out, "licences.txt"), licences());
    const built = walk(out).sort();
    const manifest = { sources: before, built: hashes(built, out) };
    mkdirSync(SITE, { recursive: true });
    for (const file of built) {
      writeFileSync(join(SITE, `.${basename(file)}`), readFileSync(file));
      renameSync(join(SITE, `.${basename(file)}`), join(SITE, basename(file)));
    }
    writeFileSync(join(SITE, "manifest.json"), JSON.stringify(manifest, null, 2) + "\n");
    const kept = new Set([...built.map((file) => basename(file)), "manifest.json"]);
    for (const name of readdirSync(SITE)) if (!kept.has(name)) rmSync(join(SITE, name), { recursive: true });
    console.log(`${built.map((file) => `${basename(file)} ${(statSync(file).size / 1024).toFixed(0)} KiB`).join(", ")} -> ${relative(process.cwd(), SITE)}`);
  } finally {
    rmSync(out, { recursive: true, force: true });
    rmSync(LOCK, { recursive: true, force: true });
  }
}

await main();
