// Topics: what is asked, and what is made of what comes.

import assert from "node:assert/strict";

import { Client, topicMessage } from "../dist/index.js";
import { Fake, row, test } from "./fake.mjs";

async function stage(t, commands) {
  const fake = await Fake.start(commands);
  t.after(() => fake.end());
  const client = await Client.connect({ socket: fake.path });
  t.after(() => client.close());
  return { fake, client };
}

const said = (seq, more = {}) => ({
  event: "inbound",
  replay: false,
  ...row(seq, "topic.message", { topic: "build.main", seq: 40 + seq, hops: 2, message: { n: seq }, ...more }),
});

const subscribed = (command, peer) =>
  peer.reply(command, { subscribed: command.topic, neighbours: 1, since_seq: 1 });

test("topics are published, listed and kept", async (t) => {
  const { fake, client } = await stage(t, {
    publish: (command, peer) => peer.reply(command, { seq: 5, neighbours: 1, subscribers: 0 }),
    subscribe_topic: subscribed,
    unsubscribe_topic: (command, peer) => peer.reply(command, { unsubscribed: true }),
    topics: (command, peer) => peer.reply(command, { subscriptions: [], keeps: [], relay: [">"], seen: [] }),
    topic_peers: (command, peer) => peer.reply(command, { peers: [] }),
    topic_keep: (command, peer) => peer.reply(command, { kept: command.topic }),
  });
  const asked = async (cmd) => {
    const { cmd: _cmd, req_id: _id, ...fields } = (await fake.came(cmd)).command;
    return fields;
  };
  assert.equal((await client.publish("a", { x: 1 })).seq, 5);
  assert.deepEqual(await asked("publish"), { topic: "a", payload: { x: 1 } });
  assert.equal((await client.subscribeTopic("a.>", { kept: true, from: "any" })).neighbours, 1);
  assert.deepEqual(await asked("subscribe_topic"), { topic: "a.>", kept: true, from: "any" });
  assert.equal(await client.unsubscribeTopic("a.>"), true);
  assert.deepEqual((await client.topics()).relay, [">"]);
  assert.deepEqual(await client.topicPeers("a"), []);
  assert.deepEqual(await asked("topic_peers"), { topic: "a" });
  await client.topicKeep("a.>", { last: 5 });
  assert.deepEqual(await asked("topic_keep"), { topic: "a.>", last: 5 });
});

test("what was subscribed is subscribed again over a new connection", async (t) => {
  const { fake, client } = await stage(t, { subscribe_topic: subscribed });
  const events = client.events();
  await client.subscribeTopic("a", { history: true });
  await client.subscribeTopic("b", { kept: true });
  fake.peers[0].socket.destroy();
  const { command, peer } = await fake.came("subscribe_topic", 3);
  assert.deepEqual([command.topic, command.history], ["a", false]);
  peer.line(said(3));
  for await (const event of events) {
    if (event.event !== "inbound") continue;
    assert.deepEqual(topicMessage(event).message, { n: 3 });
    break;
  }
});

test("a stream gives what was published, and goes on when the daemon is back", async (t) => {
  const { fake, client } = await stage(t, {
    subscribe_topic: subscribed,
    subscribe: (command, peer) => peer.reply(command, { subscribed: true, replayed: 0, replay_to_seq: 0 }),
  });
  let missed = 0;
  const stream = client.listen(["build.>", "chat"], { any: true, onMissed: () => (missed += 1) });
  await stream.open();
  const { command, peer } = await fake.came("subscribe_topic", 2);
  assert.deepEqual([command.topic, command.from], ["chat", "any"]);
  peer.line(said(1, { stranger: true, via: "ed25519.00" }));
  const { value } = await stream.next();
  assert.deepEqual([value.topic, value.seq, value.hops, value.via], ["build.main", 41, 2, "ed25519.00"]);
  assert.deepEqual([value.message, value.stranger, value.history], [{ n: 1 }, true, false]);
  // A note is none of its own.
  peer.line({ event: "inbound", replay: false, ...row(2) });
  peer.line({ event: "slow_consumer", resume_from_seq: 3 });
  assert.equal((await fake.came("subscribe")).command.replay, false);
  assert.equal(missed, 1);
  peer.socket.destroy();
  const waiting = stream.next();
  const again = await fake.came("subscribe_topic", 4);
  again.peer.line(said(4));
  assert.deepEqual((await waiting).value.message, { n: 4 });
  const last = stream.next();
  client.close();
  assert.equal((await last).done, true);
});

test("a stream that may not subscribe says so", async (t) => {
  const { client } = await stage(t, {
    subscribe_topic: (command, peer) => peer.refuse(command, "invalid_command", "no filter"),
  });
  const stream = client.listen("a..b");
  await assert.rejects(stream.next(), { code: "invalid_command" });
  assert.equal((await stream.next()).done, true);
  assert.equal(topicMessage(row(1)), undefined);
});
