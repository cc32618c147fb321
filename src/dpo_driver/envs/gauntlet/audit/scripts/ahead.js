// Lets the browser fetch the addresses `given` ahead, in every way there is.

for (const path of given) {
  for (const rel of ["prefetch", "prerender", "preload", "modulepreload", "next", "dns-prefetch", "stylesheet"]) {
    const link = document.createElement("link");
    link.rel = rel;
    link.href = path;
    if (rel === "preload") link.as = "document";
    document.head.append(link);
  }
  const anchor = document.createElement("a");
  anchor.href = path;
  anchor.download = "shell.html";
  document.body.append(anchor);
  anchor.click();
}
const rules = document.createElement("script");
rules.type = "speculationrules";
rules.nonce = document.querySelector("script[nonce]")?.nonce ?? "";
const all = [{ urls: given, eagerness: "immediate" }];
rules.textContent = JSON.stringify({ prerender: all, prefetch: all });
document.head.append(rules);
await turns(30);
