// Registers service workers from a frame with the document `given`. Gives how many tries.

const frame = document.createElement("iframe");
const loaded = new Promise((done) => { frame.onload = done; setTimeout(done, 1500); });
if (given === "srcdoc") frame.srcdoc = "<p>here</p>";
else frame.src = given;
document.body.append(frame);
await loaded;
let tries = 0;
try {
  const inside = frame.contentWindow;
  const text = "onfetch = (e) => e.respondWith(new Response('owned'))";
  const bad = new inside.Blob([text], { type: "text/javascript" });
  for (const script of [inside.URL.createObjectURL(bad), "/app/app.js"]) {
    for (const scope of ["/", "/step/"]) {
      tries++;
      await inside.navigator.serviceWorker.register(script, { scope }).catch(() => 0);
    }
  }
} catch {}
frame.remove();
return Math.max(1, tries);
