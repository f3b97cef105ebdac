// A daemon that says what a test wants: the socket, hello, and whatever the test's own commands answer.

import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test as bare } from "node:test";

const HELLO = {
  version: 2,
  daemon_max_version: 2,
  agent_id: "ed25519.21fe31dfa154a261626bf854046fd227",
  features: ["durable"],
  daemon_version: "0.1.0",
};

/** A test that cannot hang. */
export function test(name, run) {
  return bare(name, { timeout: 30_000 }, run);
}

/** One connection of a client. */
export class Peer {
  constructor(socket) {
    this.socket = socket;
    this.gone = new Promise((resolve) => socket.once("close", resolve));
    // One that writes after the client has left is told by the close.
    socket.on("error", () => undefined);
  }

  line(object) {
    this.socket.write(`${JSON.stringify(object)}\n`);
  }

  reply(command, fields = {}) {
    this.line({ ok: true, req_id: command.req_id, ...fields });
  }

  refuse(command, error, message = "no") {
    this.line({ ok: false, req_id: command.req_id, error, message });
  }
}

export class Fake {
  /** `commands` maps a command's name to what is done: `(command, peer, fake) => …`. */
  constructor(commands = {}, hello = HELLO) {
    this.commands = { hello: (command, peer) => peer.reply(command, hello), ...commands };
    this.dir = mkdtempSync(join(tmpdir(), "axf"));
    this.path = join(this.dir, "axon.sock");
    this.peers = [];
    this.seen = [];
    this.waiting = new Set();
  }

  static async start(commands, hello) {
    const fake = new Fake(commands, hello);
    await fake.up();
    return fake;
  }

  async up() {
    this.server = createServer((socket) => this.#serve(new Peer(socket)));
    await new Promise((resolve) => this.server.listen(this.path, resolve));
  }

  /** Ends it, with all connections. */
  async down() {
    const over = new Promise((resolve) => this.server.close(resolve));
    for (const { socket } of this.peers) socket.destroy();
    await over;
  }

  async end() {
    await this.down();
    rmSync(this.dir, { recursive: true, force: true });
  }

  /** Waits until this command has come so often; gives the last of them. */
  came(cmd, times = 1) {
    return new Promise((resolve) => {
      const look = () => {
        const those = this.seen.filter(({ command }) => command.cmd === cmd);
        if (those.length < times) return;
        this.waiting.delete(look);
        resolve(those[times - 1]);
      };
      this.waiting.add(look);
      look();
    });
  }

  #serve(peer) {
    this.peers.push(peer);
    let text = "";
    peer.socket.setEncoding("utf8");
    peer.socket.on("data", (chunk) => {
      text += chunk;
      for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n")) {
        const command = JSON.parse(text.slice(0, end));
        text = text.slice(end + 1);
        this.commands[command.cmd]?.(command, peer, this);
        this.seen.push({ command, peer });
        for (const look of [...this.waiting]) look();
      }
    });
  }
}

/** A row of the inbox. */
export function row(seq, kind = "notify", payload = { topic: "t", data: seq }) {
  const id = `00000000-0000-4000-8000-${String(seq).padStart(12, "0")}`;
  const from = "ed25519.39f713d0a644253f04529421b9f51b9b";
  const envelope = { v: 1, id, from, to: HELLO.agent_id, ts: 1, kind, payload };
  return { seq, buffered_at_ms: 1, trust: "known", from_name: "bob", envelope };
}

/** An inbox that is kept as the daemon keeps one: rows, a cursor, subscribers. */
export class Box {
  constructor() {
    this.rows = [];
    this.acked = 0;
    this.lost = undefined;
    this.reads = 0;
    this.peers = [];
    this.commands = {
      subscribe: (command, peer) => {
        this.peers.push(peer);
        peer.reply(command, { subscribed: true, replayed: 0, replay_to_seq: this.acked });
      },
      inbox: (command, peer) => {
        this.reads += 1;
        const past = this.rows.filter(({ seq }) => seq > this.acked);
        const messages = past.slice(0, command.limit);
        const lost = this.lost === undefined ? {} : { lost_before_seq: this.lost };
        const more = { next_seq: messages.at(-1)?.seq ?? null, has_more: past.length > messages.length };
        peer.reply(command, { messages, ...more, ...lost });
      },
      ack: (command, peer) => {
        this.acked = Math.max(this.acked, command.up_to_seq);
        peer.reply(command, { acked_seq: this.acked });
      },
    };
  }

  /** A message comes, and is told. */
  put(...rows) {
    this.rows.push(...rows);
    const lines = rows.map((one) => `${JSON.stringify({ event: "inbound", replay: false, ...one })}\n`);
    for (const peer of this.peers) peer.socket.write(lines.join(""));
  }
}
