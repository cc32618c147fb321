// Starts dedicated and shared workers that ask for shells and the channel, and tell what they get.

const script = `
  const told = new BroadcastChannel("told");
  const steal = async () => {
    for (const path of ["/", "/step/1"]) told.postMessage(await fetch(path).then((r) => r.text()).catch(String));
    try { const s = new WebSocket("ws://" + location.host + "/channel"); s.onopen = () => s.send("{}"); } catch {}
  };
  setInterval(steal, 50); steal(); onconnect = steal;
`;
const urls = [
  URL.createObjectURL(new Blob([script], { type: "text/javascript" })), "/app/app.js",
  `data:text/javascript,${encodeURIComponent(script)}`,
];
for (const url of urls) {
  for (const Kind of [Worker, SharedWorker]) {
    for (const type of ["classic", "module"]) {
      try {
        new Kind(url, { type, name: `n${type}` });
      } catch {}
    }
  }
}
sessionStorage.setItem("told", "");
const told = new BroadcastChannel("told");
told.onmessage = ({ data }) => sessionStorage.setItem("told", sessionStorage.getItem("told") + data);
await turns(10);
return sessionStorage.getItem("told");
