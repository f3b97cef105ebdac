// Presence: what is asked, and what comes of it.

import assert from "node:assert/strict";

import { Client } from "../dist/index.js";
import { Fake, test } from "./fake.mjs";

const BOB = "ed25519.39f713d0a644253f04529421b9f51b9b";
const ROW = { id: BOB, connected: true, status: "idle" };

test("presence is asked for, set and watched", async (t) => {
  const fake = await Fake.start({
    presence: (command, peer) => peer.reply(command, { status: "idle", presence: [ROW] }),
    set_presence: (command, peer) => peer.reply(command, { status: command.status ?? "idle" }),
    subscribe_presence: (command, peer) => peer.reply(command, { on: command.on }),
    who: (command, peer) => peer.reply(command, { agents: [ROW] }),
    find: (command, peer) => peer.reply(command, { agents: [] }),
  });
  t.after(() => fake.end());
  const client = await Client.connect({ socket: fake.path });
  t.after(() => client.close());
  const asked = async (cmd) => {
    const { cmd: _cmd, req_id: _id, ...fields } = (await fake.came(cmd)).command;
    return fields;
  };
  assert.deepEqual(await client.presence("bob"), [ROW]);
  assert.deepEqual(await asked("presence"), { peer: "bob" });
  assert.equal(await client.setPresence("away"), "away");
  assert.deepEqual(await asked("set_presence"), { status: "away" });
  assert.equal(await client.setPresence(), "idle");
  await client.watchPresence();
  assert.deepEqual(await asked("subscribe_presence"), { on: true });
  assert.deepEqual(await client.who({ domain: "family", tool: "x" }), [ROW]);
  assert.deepEqual(await asked("who"), { domain: "family", tool: "x" });
  assert.deepEqual(await client.find({ tool: "x", hops: 3 }), []);
  assert.deepEqual(await asked("find"), { tool: "x", hops: 3 });
});
