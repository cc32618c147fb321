// `talk(messages)`: opens a channel, or the socket at another path, says them, and gives what is heard in a moment. Put
// before scripts of channel.py.

const talk = (messages, path = "/channel", protocols = undefined) => new Promise((done) => {
  const heard = [];
  let socket;
  try {
    socket = new WebSocket(`ws://${location.host}${path}`, protocols);
  } catch (error) {
    return done([]);
  }
  socket.onopen = () => { for (const message of messages) socket.send(message); };
  socket.onmessage = (event) => heard.push(String(event.data));
  socket.onclose = () => done(heard);
  setTimeout(() => { socket.close(); done(heard); }, 350);
});
