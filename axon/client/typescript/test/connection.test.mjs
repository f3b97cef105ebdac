// Lines, replies, errors and signals: what goes over one connection.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { AxonError, Client } from "../dist/index.js";
import { LineReader, LINE_BYTES_MAX } from "../dist/lines.js";
import { Fake, test } from "./fake.mjs";

async function stage(t, commands, hello) {
  const fake = await Fake.start(commands, hello);
  t.after(() => fake.end());
  const connect = async (options = {}) => {
    const client = await Client.connect({ socket: fake.path, ...options });
    t.after(() => client.close());
    return client;
  };
  return { fake, connect };
}

const code = (wanted) => (error) => {
  assert.ok(error instanceof AxonError, String(error));
  assert.equal(error.code, wanted);
  assert.notEqual(error.message, "");
  return true;
};

test("characters may be cut between chunks, and lines share a chunk", () => {
  const text = `{"a":"é🦀東"}`;
  const bytes = Buffer.from(`${text}\n${text}\n`);
  for (let size = 1; size <= bytes.length; size += 1) {
    const reader = new LineReader();
    const lines = [];
    for (let at = 0; at < bytes.length; at += size) lines.push(...reader.push(bytes.subarray(at, at + size)));
    assert.deepEqual(lines, [
      { text, bytes: Buffer.byteLength(text) },
      { text, bytes: Buffer.byteLength(text) },
    ]);
  }
});

test("a line has a bound, to the byte", () => {
  const line = Buffer.alloc(LINE_BYTES_MAX, "x");
  const end = Buffer.from("\n");
  const reader = new LineReader();
  assert.deepEqual(reader.push(line), []);
  assert.equal(reader.push(end)[0].bytes, LINE_BYTES_MAX);
  assert.deepEqual(reader.push(line), []);
  assert.throws(() => reader.push(Buffer.from("x")), code("protocol"));
  assert.throws(() => new LineReader().push(Buffer.from([0xff, 0x0a])), code("protocol"));
});

test("a reply of two mebibytes comes whole, in pieces that cut characters", async (t) => {
  const summary = "é🦀".repeat(340_000);
  const { connect } = await stage(t, {
    async whoami(command, peer) {
      const bytes = Buffer.from(`${JSON.stringify({ ok: true, req_id: command.req_id, summary })}\n`);
      assert.ok(bytes.length > 2_000_000 && bytes.length < LINE_BYTES_MAX);
      for (let at = 0; at < bytes.length; at += 65_537) {
        await new Promise((written) => peer.socket.write(bytes.subarray(at, at + 65_537), written));
      }
    },
  });
  const client = await connect();
  assert.equal((await client.whoami()).summary, summary);
});

test("a line that is too long ends the connection, and the next call makes another", async (t) => {
  const { fake, connect } = await stage(t, {
    status: (_, peer) => peer.socket.write(Buffer.alloc(LINE_BYTES_MAX + 1, "x")),
    whoami: (command, peer) => peer.reply(command, { agent_id: "me" }),
  });
  const client = await connect();
  await assert.rejects(client.status(), code("protocol"));
  assert.equal((await client.whoami()).agent_id, "me");
  assert.equal(fake.peers.length, 2);
});

test("replies come in any order, and lines of version 1 are passed over", async (t) => {
  const held = [];
  const { connect } = await stage(t, {
    hello(command, peer) {
      peer.line({ inbound: true, envelope: {} });
      peer.line({ event: "inbound", seq: 1 });
      peer.reply(command, { version: 2, features: [], agent_id: "me" });
    },
    status: (command) => held.push(command),
    whoami(command, peer) {
      peer.line({ event: "brand_new", x: 1 });
      peer.reply(command, { agent_id: "me", of_the_future: [1] });
      peer.reply(held[0], { clients: 7 });
    },
  });
  const client = await connect();
  const events = client.events();
  const status = client.status();
  assert.deepEqual(await client.whoami(), { agent_id: "me", of_the_future: [1] });
  assert.equal((await status).clients, 7);
  const { value } = await events.next();
  assert.deepEqual(value, { event: "other", name: "brand_new", line: { event: "brand_new", x: 1 } });
});

test("an error without req_id is that of the only call, else the likely reason of the end", async (t) => {
  const { connect } = await stage(t, {
    whoami: (_, peer) => peer.line({ ok: false, error: "command_too_large", message: "too long" }),
    status() {},
    peers(_, peer) {
      peer.line({ ok: false, error: "invalid_command", message: "not ended in time" });
      peer.socket.end();
    },
  });
  const client = await connect();
  await assert.rejects(client.whoami(), code("command_too_large"));
  const status = assert.rejects(client.status(), code("invalid_command"));
  await assert.rejects(client.peers(), code("invalid_command"));
  await status;
});

test("who is turned away at once is told why", async (t) => {
  const { connect } = await stage(t, {
    hello(_, peer) {
      peer.line({ ok: false, error: "too_many_clients", message: "close one" });
      peer.socket.end();
    },
  });
  await assert.rejects(connect(), code("too_many_clients"));
});

test("a daemon of another version is refused", async (t) => {
  const { connect } = await stage(t, {}, { version: 1, features: [] });
  await assert.rejects(connect(), code("unsupported_version"));
});

test("the token is shown after hello", async (t) => {
  const { fake, connect } = await stage(t, { auth: (command, peer) => peer.reply(command) });
  await connect({ token: "00112233" });
  assert.equal((await fake.came("auth")).command.token, "00112233");
});

test("nobody listens, and what the system refuses", async (t) => {
  const dir = mkdtempSync(join(tmpdir(), "axf"));
  t.after(() => rmSync(dir, { recursive: true }));
  const at = (socket) => Client.connect({ socket });
  await assert.rejects(at(join(dir, "axon.sock")), (error) => {
    assert.match(error.message, /axon --root .* daemon/);
    return code("no_daemon")(error);
  });
  await assert.rejects(at(join(dir, "sockets", "box", "axon.sock")), (error) => {
    assert.doesNotMatch(error.message, /--root/);
    return code("no_daemon")(error);
  });
  await assert.rejects(at(dir), (error) => ["io", "no_daemon"].includes(error.code));
  await assert.rejects(at(join(dir, "x".repeat(120))), code("io"));
});

test("what cannot be sent is refused here", async (t) => {
  const { connect } = await stage(t, { whoami: (command, peer) => peer.reply(command) });
  const client = await connect();
  await assert.rejects(client.notify("bob", "t", "x".repeat(70_000)), code("command_too_large"));
  const circle = {};
  circle.circle = circle;
  await assert.rejects(client.notify("bob", "t", circle), code("invalid_command"));
  await assert.rejects(client.notify("bob", "t", 10n), code("invalid_command"));
  await client.whoami();
});

test("a call that is aborted ends with the signal's reason, and its reply is nobody's", async (t) => {
  const { fake, connect } = await stage(t, {
    whoami: (command, peer) => peer.reply(command, { agent_id: "me" }),
  });
  const client = await connect();
  const stop = new AbortController();
  const asked = client.ask("bob", "?", { signal: stop.signal });
  const { command, peer } = await fake.came("send");
  stop.abort(new Error("no longer wanted"));
  await assert.rejects(asked, /no longer wanted/);
  peer.reply(command, { msg_id: "1" });
  assert.equal((await client.whoami()).agent_id, "me");
  await assert.rejects(client.whoami({ signal: AbortSignal.abort() }), { name: "AbortError" });
  assert.equal(fake.seen.filter(({ command: { cmd } }) => cmd === "whoami").length, 1);
});

test("so many calls wait for peers at once, and others pass them", async (t) => {
  const held = [];
  const { fake, connect } = await stage(t, {
    send: (command, peer) => held.push([command, peer]),
    whoami: (command, peer) => peer.reply(command),
  });
  const client = await connect();
  const stop = new AbortController();
  const asks = Array.from({ length: 257 }, () => client.send("bob", "ping", {}));
  const dropped = client.send("bob", "ping", {}, { signal: stop.signal });
  await fake.came("send", 256);
  await client.whoami();
  assert.equal(held.length, 256);
  stop.abort();
  await assert.rejects(dropped, { name: "AbortError" });
  // A place becomes free by a reply, and the next in line has it.
  const [command, peer] = held[0];
  peer.reply(command, { msg_id: "1" });
  await fake.came("send", 257);
  for (const [other] of held.slice(1)) peer.reply(other, { msg_id: "1" });
  assert.equal((await Promise.all(asks)).length, 257);
});

test("an error of the peer has its code and says whose it is", async (t) => {
  const payload = { code: "overloaded", message: "later", retryable: true, retry_after_ms: 5 };
  const { connect } = await stage(t, {
    send: (command, peer) =>
      peer.reply(command, { msg_id: "1", response: { kind: "error", from: "them", payload } }),
  });
  const client = await connect();
  await assert.rejects(client.ask("bob", "?"), (error) => {
    assert.deepEqual(error.peer, { from: "them", msg_id: "1", retryable: true, retry_after_ms: 5 });
    assert.equal(error.endsConnection, false);
    return code("overloaded")(error);
  });
});

test("options that are left out are not sent", async (t) => {
  const { fake, connect } = await stage(t, {
    send: (command, peer) => peer.reply(command, { msg_id: "1", state: "sent" }),
  });
  const client = await connect();
  await client.notify("bob", "t", undefined);
  const { command } = await fake.came("send");
  const { req_id, ...rest } = command;
  assert.equal(typeof req_id, "string");
  assert.deepEqual(rest, { cmd: "send", to: "bob", kind: "notify", payload: { topic: "t", data: null } });
});
