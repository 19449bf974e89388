// A client whose retries get through the restart of a node's network agent.
//
//	node client.mjs URL [SECONDS TO CONNECT] [ATTEMPTS]
import http from "node:http";
import net from "node:net";

const [url, connect = "2", attempts = "20"] = process.argv.slice(2);
const begin = Date.now();
const seconds = () => ((Date.now() - begin) / 1000).toFixed(1);

function once() {
  return new Promise((resolve, reject) => {
    // No localPort: each connection then has a new source port. Node itself waits for the kernel, two minutes.
    const createConnection = ({ host, port }) => {
      const socket = net.connect({ host, port });
      const timer = setTimeout(() => socket.destroy(new Error("no connection in time")), Number(connect) * 1000);
      socket.once("connect", () => clearTimeout(timer)).once("close", () => clearTimeout(timer));
      return socket;
    };
    http.get(url, { createConnection }, (response) => {
      response.resume().once("end", () => resolve(response.statusCode));
    }).once("error", reject);
  });
}

for (let attempt = 1; ; attempt++) {
  try {
    console.log(`${await once()} after ${seconds()} s, attempt ${attempt}`);
    break;
  } catch (error) {
    if (attempt >= Number(attempts)) {
      console.log(`failed after ${seconds()} s, attempt ${attempt}: ${error.message}`);
      process.exit(1);
    }
    await new Promise((go) => setTimeout(go, Math.random() * Math.min(100 * 2 ** attempt, 2000)));
  }
}
