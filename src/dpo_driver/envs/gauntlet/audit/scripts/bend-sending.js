// Bends what sends.

for (const name of ["send", "close", "url", "readyState", "onmessage", "onopen", "onclose", "bufferedAmount"]) {
  bend(WebSocket.prototype, name);
}
for (const name of ["stringify", "parse"]) bend(JSON, name);
bend(window, "fetch");
bend(Navigator.prototype, "sendBeacon");
bend(MessagePort.prototype, "postMessage");
const Old = WebSocket;
window.WebSocket = function (address) {
  const made = new Old(address);
  note(made, [address]);
  return made;
};
for (const [owner, value] of [[String, part], [Object, part], [Number, 7]]) {
  owner.prototype.toJSON = function () {
    note(this, []);
    return value;
  };
}
