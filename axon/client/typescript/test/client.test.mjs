// Connections that come back, events, waits, and the inbox as a stream.

import assert from "node:assert/strict";

import { Client } from "../dist/index.js";
import { Box, Fake, row, test } from "./fake.mjs";

async function stage(t, commands, hello) {
  const fake = await Fake.start(commands, hello);
  t.after(() => fake.end());
  const client = await Client.connect({ socket: fake.path, consumer: "me" });
  t.after(() => client.close());
  return { fake, client };
}

const seqs = (rows) => rows.map(({ seq }) => seq);

async function taken(stream, count) {
  const rows = [];
  while (rows.length < count) rows.push((await stream.next()).value);
  return rows;
}

test("what was under way when the connection ended is closed, and the next call connects", async (t) => {
  const { fake, client } = await stage(t, {
    status: (_, peer) => peer.socket.destroy(),
    whoami: (command, peer) => peer.reply(command, { agent_id: "me" }),
  });
  await assert.rejects(client.status(), { code: "closed" });
  assert.equal((await client.whoami()).agent_id, "me");
  assert.equal((await fake.came("hello", 2)).command.consumer, "me");
});

test("a call waits a little for a daemon that is just starting", async (t) => {
  const { fake, client } = await stage(t, {
    status() {},
    whoami: (command, peer) => peer.reply(command, { agent_id: "me" }),
  });
  const lost = assert.rejects(client.status(), { code: "closed" });
  await fake.came("status");
  await fake.down();
  await lost;
  const asked = client.whoami();
  await fake.up();
  assert.equal((await asked).agent_id, "me");
});

test("a call without a daemon fails after that little, and says so", async (t) => {
  const { fake, client } = await stage(t, { status() {} });
  const lost = assert.rejects(client.status(), { code: "closed" });
  await fake.came("status");
  await fake.down();
  await lost;
  await assert.rejects(client.whoami(), { code: "no_daemon" });
  await fake.up();
});

test("a closed client does not come back", async (t) => {
  const { client } = await stage(t);
  const events = client.events();
  const waiting = events.next();
  client.close();
  assert.deepEqual(await waiting, { done: true, value: undefined });
  await assert.rejects(client.whoami(), { code: "closed" });
  assert.equal((await client.messages().next()).done, true);
  assert.equal((await client.events().next()).done, true);
});

test("adverts, subscriptions and watches are told again to a new connection, before any call", async (t) => {
  const ok = (command, peer) => peer.reply(command, { delegations: [], has_more: false });
  const { fake, client } = await stage(t, { advertise: ok, subscribe: ok, delegations: ok });
  const events = client.events();
  await client.advertise({ agent_name: "me" });
  await client.advertise({ tools: ["x"] });
  await client.subscribe({ kinds: ["notify"], replay: false });
  await client.delegations({ watch: true, limit: 1 });
  fake.peers[0].socket.destroy();
  assert.deepEqual((await events.next()).value, { event: "missed", why: "reconnected" });
  await fake.came("subscribe", 2);
  const again = fake.seen.filter(({ peer }) => peer === fake.peers[1]).map(({ command }) => command);
  assert.deepEqual(
    again.map(({ cmd }) => cmd),
    ["hello", "advertise", "delegations", "subscribe"],
  );
  assert.deepEqual(again[1].capabilities, { tools: ["x"] });
});

test("a slow reader of events is told what it missed, and holds up nothing", async (t) => {
  const { fake, client } = await stage(t, { whoami: (command, peer) => peer.reply(command) });
  const events = client.events();
  const peer = fake.peers[0];
  for (let at = 0; at < 1500; at += 1) peer.line({ event: "delivery", id: `m${at}`, state: "read" });
  await client.whoami();
  for (let at = 0; at < 1024; at += 1) assert.equal((await events.next()).value.id, `m${at}`);
  assert.deepEqual((await events.next()).value, { event: "missed", why: "overflow" });
  peer.line({ event: "delivery", id: "later", state: "read" });
  assert.equal((await events.next()).value.id, "later");
});

test("messages beyond the queue are slow_consumer, and requests always fit", async (t) => {
  const { fake, client } = await stage(t, { whoami: (command, peer) => peer.reply(command) });
  const events = client.events();
  const peer = fake.peers[0];
  const big = { topic: "t", data: "x".repeat(60_000) };
  const put = (one) => peer.line({ event: "inbound", replay: false, ...one });
  for (let seq = 1; seq <= 100; seq += 1) put(row(seq, "notify", big));
  put({ ...row(101, "query"), answer: true });
  put({ ...row(102, "query"), answer: true });
  peer.line({ event: "withdrawn", ref: row(102).envelope.id, reason: "timeout" });
  peer.line({ event: "withdrawn", ref: row(99).envelope.id, reason: "timeout" });
  await client.whoami();
  let { value } = await events.next();
  let last = 0;
  for (; value.event === "inbound"; { value } = await events.next()) last = value.seq;
  assert.deepEqual(value, { event: "slow_consumer", resume_from_seq: last + 1 });
  assert.ok(last > 60 && last < 75, `4 MiB of 60 kB, not ${last}`);
  ({ value } = await events.next());
  assert.deepEqual([value.seq, value.answer], [101, true]);
  ({ value } = await events.next());
  assert.deepEqual([value.event, value.ref], ["withdrawn", row(99).envelope.id]);
  put(row(103));
  assert.equal((await events.next()).value.seq, 103);
});

test("leaving the loop, and a signal, end a stream of events", async (t) => {
  const { fake, client } = await stage(t);
  const stop = new AbortController();
  const other = client.events({ signal: stop.signal });
  const events = client.events();
  fake.peers[0].line({ event: "delivery", id: "m", state: "read" });
  for await (const event of events) {
    assert.equal(event.id, "m");
    break;
  }
  assert.equal((await events.next()).done, true);
  assert.equal((await other.next()).value.id, "m");
  const waiting = other.next();
  stop.abort(new Error("enough"));
  await assert.rejects(waiting, /enough/);
});

test("a wait ends with its delegation, with its time, and with its signal", async (t) => {
  let state = "accepted";
  const { fake, client } = await stage(t, {
    delegations(command, peer) {
      const known = command.id === "d" ? [{ id: "d", state, task: "t" }] : [];
      peer.reply(command, { delegations: known, has_more: false });
    },
  });
  await assert.rejects(client.wait("x"), { code: "not_found" });
  await assert.rejects(client.wait("d", { timeout_ms: 20 }), { code: "timeout" });
  const stop = new AbortController();
  const aborted = client.wait("d", { signal: stop.signal, timeout_ms: 60_000 });
  const waiting = client.wait("d");
  const events = client.events();
  await fake.came("delegations", 6);
  stop.abort(new Error("enough"));
  await assert.rejects(aborted, /enough/);
  state = "completed";
  fake.peers[0].line({ event: "delegation", delegation: { id: "d", state } });
  assert.deepEqual(await waiting, { id: "d", state: "completed", task: "t" });
  // Nobody else had asked for those events.
  fake.peers[0].line({ event: "delivery", id: "m", state: "read" });
  assert.equal((await events.next()).value.id, "m");
  const told = (await fake.came("delegations", 8)).command;
  assert.equal(told.watch, false);
});

test("a wait goes on over a lost connection", async (t) => {
  let state = "accepted";
  const { fake, client } = await stage(t, {
    delegations(command, peer) {
      peer.reply(command, { delegations: [{ id: "d", state }], has_more: false });
    },
  });
  const waiting = client.wait("d");
  const { peer } = await fake.came("delegations");
  await fake.down();
  await peer.gone;
  state = "completed";
  await fake.up();
  assert.equal((await waiting).state, "completed");
});

test("a stream gives what is there and what comes, once, and reads no more than it must", async (t) => {
  const box = new Box();
  box.rows.push(row(1), row(2));
  const { client } = await stage(t, box.commands);
  const stream = client.messages();
  assert.deepEqual(seqs(await taken(stream, 2)), [1, 2]);
  box.put(row(4), row(7));
  const [four, seven] = await taken(stream, 2);
  assert.deepEqual(seqs([four, seven]), [4, 7]);
  assert.equal(box.reads, 1);
  await four.ack();
  assert.equal(box.acked, 4);
  await stream.ack(7);
  assert.equal(box.acked, 7);
});

test("a stream that is not read leaves its messages in the inbox", async (t) => {
  const box = new Box();
  const { fake, client } = await stage(t, box.commands);
  const stream = client.messages();
  const first = stream.next();
  await fake.came("inbox");
  const rows = Array.from({ length: 2500 }, (_, at) => row(at + 1));
  box.put(...rows);
  const message = (await first).value;
  assert.equal(message.seq, 1);
  await message.ack();
  for (let seq = 2; seq <= 2500; seq += 1) {
    const { value } = await stream.next();
    assert.equal(value.seq, seq);
    await value.ack();
  }
  assert.ok(box.reads > 10, "it read the inbox by pages");
  box.put(row(2501));
  assert.equal((await stream.next()).value.seq, 2501);
});

test("what is not acked bounds how far a stream reads ahead, and an ack lets it go on", async (t) => {
  const box = new Box();
  for (let seq = 1; seq <= 1500; seq += 1) box.rows.push(row(seq));
  const { fake, client } = await stage(t, box.commands);
  const stream = client.messages();
  await taken(stream, 1000);
  const next = stream.next();
  await fake.came("inbox", 3);
  for (let round = 0; round < 5; round += 1) await client.ack(0);
  assert.equal(box.reads, 3, "it does not ask again and again");
  await stream.ack(1000);
  assert.equal((await next).value.seq, 1001);
});

test("rows of other kinds are passed over, and acked only when nothing waits before them", async (t) => {
  const box = new Box();
  box.rows.push(row(1));
  for (let seq = 2; seq <= 300; seq += 1) box.rows.push(row(seq, "progress"));
  box.rows.push(row(301));
  const { client } = await stage(t, box.commands);
  const stream = client.messages({ kinds: ["notify"] });
  const [one] = await taken(stream, 1);
  const [other] = await taken(stream, 1);
  assert.deepEqual([one.seq, other.seq, box.acked], [1, 301, 0]);
  await other.ack();
  assert.equal(box.acked, 301);

  for (let seq = 302; seq <= 1900; seq += 1) box.rows.push(row(seq, "progress"));
  box.rows.push(row(1901));
  const again = client.messages({ kinds: ["notify"] });
  assert.equal((await again.next()).value.seq, 1901);
});

test("what was lost is told before the first message behind it", async (t) => {
  const box = new Box();
  box.lost = 40;
  box.rows.push(row(41));
  const { client } = await stage(t, box.commands);
  const told = [];
  const stream = client.messages({ onLost: (before) => told.push(before) });
  const [message] = await taken(stream, 1);
  assert.deepEqual([told, message.seq, stream.lostBeforeSeq], [[40], 41, 40]);
  // Told without a hook as well: nobody is to miss it.
  const warned = new Promise((resolve) => process.once("warning", resolve));
  await taken(client.messages(), 1);
  assert.equal((await warned).code, "AXON_LOST");
});

test("slow_consumer of the daemon sends a stream to the inbox", async (t) => {
  const box = new Box();
  const { fake, client } = await stage(t, box.commands);
  const stream = client.messages();
  const first = stream.next();
  await fake.came("inbox");
  box.put(row(1));
  assert.equal((await first).value.seq, 1);
  box.rows.push(row(2), row(3));
  box.peers[0].line({ event: "slow_consumer", resume_from_seq: 2 });
  assert.deepEqual(seqs(await taken(stream, 2)), [2, 3]);
});

test("a stream goes on over a lost connection, gives nothing twice, and acks over it", async (t) => {
  const box = new Box();
  box.rows.push(row(1), row(2));
  const { fake, client } = await stage(t, box.commands);
  const stream = client.messages();
  const [one, two] = await taken(stream, 2);
  const waiting = stream.next();
  await fake.down();
  const acked = one.ack();
  box.rows.push(row(3));
  await fake.up();
  await acked;
  assert.equal(box.acked, 1);
  assert.equal((await waiting).value.seq, 3);
  await two.ack();
  assert.equal(box.acked, 2);
});

test("a store that began anew is read from its beginning, and old acks are void there", async (t) => {
  const hello = { version: 2, daemon_max_version: 2, agent_id: "me", features: [], daemon_version: "1" };
  const box = new Box();
  box.rows.push(row(1), row(2));
  const { fake, client } = await stage(t, box.commands, hello);
  const stream = client.messages();
  const [, two] = await taken(stream, 2);
  const waiting = stream.next();
  await fake.down();
  box.rows = [row(1, "notify", { topic: "new", data: null })];
  await fake.up();
  const { value } = await waiting;
  assert.equal(value.envelope.payload.topic, "new");
  await two.ack();
  assert.equal(box.acked, 0);
  await value.ack();
  assert.equal(box.acked, 1);
});

test("an error that trying again does not help ends a stream", async (t) => {
  const { client } = await stage(t, {
    subscribe: (command, peer) => peer.refuse(command, "not_authorized", "this socket may not"),
  });
  const stream = client.messages();
  await assert.rejects(stream.next(), { code: "not_authorized" });
  assert.equal((await stream.next()).done, true);
});

test("leaving the loop, and a signal, end a stream and its connection", async (t) => {
  const box = new Box();
  box.rows.push(row(1));
  const { fake, client } = await stage(t, box.commands);
  for await (const message of client.messages()) {
    assert.equal(message.seq, 1);
    break;
  }
  await fake.peers[1].gone;
  const stop = new AbortController();
  const stream = client.messages({ signal: stop.signal });
  await stream.next();
  const waiting = stream.next();
  stop.abort(new Error("enough"));
  await assert.rejects(waiting, /enough/);
  await fake.peers[2].gone;
});
