// The agent's bookkeeping, against a daemon that is played.

import assert from "node:assert/strict";

import { Agent, Answer, AnswerError } from "../dist/index.js";
import { PAYLOAD_BYTES_MAX } from "../dist/answer.js";
import { Fake, row, test } from "./fake.mjs";

async function stage(t, options, set, replies = {}) {
  const fake = await Fake.start({
    subscribe: (command, peer) => peer.reply(command, { subscribed: true }),
    advertise: (command, peer) => peer.reply(command),
    reply: (command, peer) => {
      const error = replies[command.kind]?.(command);
      if (error === undefined) peer.reply(command, { msg_id: "1" });
      else peer.refuse(command, error);
    },
  });
  const errors = [];
  const onError = (error) => errors.push(error);
  const agent = set(new Agent({ socket: fake.path, onError, ...options }));
  t.after(async () => {
    await agent.stop();
    await fake.end();
  });
  await agent.start();
  const hand = (seq, kind, payload, more = {}) => {
    const event = { event: "inbound", replay: false, answer: true, ...row(seq, kind, payload), ...more };
    fake.peers.at(-1).line(event);
    return row(seq).envelope.id;
  };
  return { fake, agent, errors, hand };
}

const query = (question, more = {}) => ({ question, ...more });
const reply = async (fake, times = 1) => {
  const { ref, kind, payload } = (await fake.came("reply", times)).command;
  return { ref, kind, payload };
};
const ended = (request) =>
  new Promise((resolve) => {
    if (request.signal.aborted) resolve(request.ended);
    request.signal.addEventListener("abort", () => resolve(request.ended));
  });
/** Something that can be waited for until it is there so often. */
class Count {
  all = [];
  bell = () => undefined;
  add(one) {
    this.all.push(one);
    this.bell();
  }
  async reach(count) {
    while (this.all.length < count) await new Promise((resolve) => (this.bell = resolve));
  }
}

test("it says what it answers, of which domains, and that it hears cancels", async (t) => {
  const handler = () => "";
  const { fake } = await stage(t, { capacity: 3, capabilities: { tools: ["x"] } }, (agent) =>
    agent
      .answer("query", { domains: ["family"] }, handler)
      .answer("query", { domains: ["sport", "family"] }, handler)
      .answer("delegate", handler),
  );
  const { command } = await fake.came("subscribe");
  assert.deepEqual(command.answer, ["query", "delegate", "cancel"]);
  assert.deepEqual(command.domains, ["family", "sport"]);
  assert.equal(command.capacity, 3);
  assert.deepEqual((await fake.came("advertise")).command.capabilities, { tools: ["x"] });
});

test("the narrowest handler answers, and one without domains what is left", async (t) => {
  const { fake, hand } = await stage(t, {}, (agent) =>
    agent
      .answer("query", () => "all")
      .answer("query", { domains: ["family"] }, () => "family")
      .answer("query", { domains: ["family.calendar", "sport"] }, () => "calendar"),
  );
  const cases = [
    [undefined, "all"],
    ["family", "family"],
    ["family.calendar.today", "calendar"],
    ["familyx", "all"],
    ["sport", "calendar"],
  ];
  for (const [at, [domain, wanted]] of cases.entries()) {
    const ref = hand(at + 1, "query", query("?", { domain }));
    const said = await reply(fake, at + 1);
    assert.deepEqual([said.ref, said.kind, said.payload.summary], [ref, "response", wanted]);
  }
});

test("what a handler throws stays here, but for what is meant for the peer", async (t) => {
  const { fake, hand, errors } = await stage(t, {}, (agent) =>
    agent.answer("query", ({ subject }) => {
      if (subject === "meant") throw new AnswerError("out_of_office", "Ask on Monday.");
      if (subject === "nothing") return undefined;
      if (subject === "circle") {
        const data = {};
        return Answer.text("x", { data: Object.assign(data, { data }) });
      }
      throw new Error("secret path");
    }),
  );
  hand(1, "query", query("meant"));
  const refusal = { code: "out_of_office", message: "Ask on Monday.", retryable: false };
  assert.deepEqual((await reply(fake)).payload, refusal);
  hand(2, "query", query("fall"));
  const { payload } = await reply(fake, 2);
  assert.deepEqual([payload.code, payload.retryable], ["internal", true]);
  assert.doesNotMatch(payload.message, /secret/);
  hand(3, "query", query("nothing"));
  assert.equal((await reply(fake, 3)).payload.code, "internal");
  hand(4, "query", query("circle"));
  assert.equal((await reply(fake, 4)).payload.code, "internal");
  assert.match(String(errors), /secret path.*must return.*circular/s);
});

test("work is acked, done and told", async (t) => {
  const { fake, hand } = await stage(t, {}, (agent) =>
    agent.answer("delegate", async (request) => {
      await request.progress({ percent: 40 });
      return { status: "partial", outcome: "half" };
    }),
  );
  const ref = hand(1, "delegate", { task: "t" });
  assert.deepEqual(await reply(fake, 1), { ref, kind: "ack", payload: { accepted: true } });
  const progress = { state: "running", percent: 40 };
  assert.deepEqual(await reply(fake, 2), { ref, kind: "progress", payload: progress });
  const result = { status: "partial", outcome: "half" };
  assert.deepEqual(await reply(fake, 3), { ref, kind: "result", payload: result });
});

test("progress that cannot be told is left out, and what is wrong is the handler's", async (t) => {
  const refusals = ["not_offered", "peer_unreachable", undefined, "invalid_command"];
  const replies = { progress: () => refusals.shift() };
  const told = [];
  const handler = async (request) => {
    for (const percent of [1, 2, 3, 400]) {
      told.push(await request.progress({ percent }).catch(({ code }) => code));
    }
    return "done";
  };
  const { fake, hand } = await stage(t, {}, (agent) => agent.answer("delegate", handler), replies);
  hand(1, "delegate", { task: "t" });
  assert.equal((await reply(fake, 6)).payload.outcome, "done");
  assert.deepEqual(told, [false, false, true, "invalid_command"]);
});

test("work may be declined, with a reason", async (t) => {
  const accept = ({ trust, subject }) => {
    if (subject === "throw") throw new Error("fell");
    return trust === "trusted" || "too much";
  };
  const set = (agent) => agent.answer("delegate", { accept }, () => "done");
  const { fake, hand, errors } = await stage(t, {}, set);
  hand(1, "delegate", { task: "t" });
  assert.deepEqual((await reply(fake, 1)).payload, { accepted: false, reason: "too much" });
  hand(2, "delegate", { task: "t" }, { trust: "trusted" });
  assert.deepEqual((await reply(fake, 2)).payload, { accepted: true });
  assert.equal((await reply(fake, 3)).payload.outcome, "done");
  hand(3, "delegate", { task: "throw" });
  assert.deepEqual((await reply(fake, 4)).payload.status, "failed");
  assert.equal(errors.length, 1);
});

test("work that is cancelled stops before that is said", async (t) => {
  let stopped = false;
  const begun = new Count();
  const { fake, hand, errors } = await stage(t, {}, (agent) =>
    agent.answer("delegate", async (request) => {
      begun.add(request);
      assert.equal(await ended(request), "cancelled");
      stopped = true;
      throw request.signal.reason;
    }),
  );
  const id = hand(1, "delegate", { task: "t" });
  await begun.reach(1);
  const ref = hand(2, "cancel", {}, { envelope: { ...row(2, "cancel", {}).envelope, ref: id } });
  assert.deepEqual(await reply(fake, 2), { ref, kind: "ack", payload: { accepted: true } });
  assert.equal(stopped, true);
  hand(3, "cancel", {}, { envelope: { ...row(3, "cancel", {}).envelope, ref: id } });
  const { payload } = await reply(fake, 3);
  assert.equal(payload.accepted, false);
  assert.notEqual(payload.reason, "");
  assert.deepEqual(errors, []);
});

test("a request that needs no answer is told why, and answered by nothing", async (t) => {
  const [begun, ends] = [new Count(), new Count()];
  const { fake, hand } = await stage(t, {}, (agent) =>
    agent.answer("query", async (request) => {
      if (request.subject === "last") return "last";
      begun.add(request);
      ends.add(await ended(request));
      return "too late";
    }),
  );
  for (const [seq, reason] of [[1, "timeout"], [2, "cancelled"], [3, "answered"], [4, "brand_new"]]) {
    const ref = hand(seq, "query", query("?"));
    await begun.reach(seq);
    fake.peers[0].line({ event: "withdrawn", ref, reason });
  }
  hand(5, "query", query("in time"), { deadline_ms: 20 });
  const last = hand(6, "query", query("last"));
  assert.equal((await reply(fake)).ref, last);
  await ends.reach(5);
  assert.deepEqual(ends.all, ["timeout", "cancelled", "peer_gone", "peer_gone", "timeout"]);
  assert.equal(fake.seen.filter(({ command }) => command.cmd === "reply").length, 1);
});

test("a handler that does not listen keeps its place: no more than the capacity run", async (t) => {
  const running = new Count();
  const { fake, hand } = await stage(t, { capacity: 2 }, (agent) =>
    agent.answer("query", (request) => new Promise((resolve) => running.add({ request, resolve }))),
  );
  for (let seq = 1; seq <= 2; seq += 1) {
    const ref = hand(seq, "query", query("?"));
    await running.reach(seq);
    fake.peers[0].line({ event: "withdrawn", ref, reason: "timeout" });
    await ended(running.all[seq - 1].request);
  }
  const third = hand(3, "query", query("?"));
  // A cancel is answered at once, and tells that what came before it was taken.
  hand(4, "cancel", {});
  assert.equal((await reply(fake)).kind, "ack");
  assert.equal(running.all.length, 2);
  running.all[0].resolve("nobody's");
  await running.reach(3);
  running.all[2].resolve("third");
  const said = await reply(fake, 2);
  assert.deepEqual([said.ref, said.payload.summary], [third, "third"]);
  running.all[1].resolve("nobody's");
});

test("work goes on over a lost connection, is acked again, and its result told once", async (t) => {
  const [runs, attached] = [new Count(), new Count()];
  const begun = new Count();
  const set = (agent) =>
    agent
      .answer("delegate", (request) => new Promise((resolve) => runs.add({ request, resolve })))
      .answer("query", async (request) => {
        begun.add(request);
        assert.equal(await ended(request), "disconnected");
        return "nobody's";
      });
  const { fake, hand } = await stage(t, { onAttached: () => attached.add(true) }, set);
  const ref = hand(1, "delegate", { task: "t" });
  hand(2, "query", query("?"));
  await begun.reach(1);
  await runs.reach(1);
  await fake.down();
  await fake.up();
  await fake.came("subscribe", 2);
  hand(1, "delegate", { task: "t" }, { queued: true });
  assert.deepEqual(await reply(fake, 2), { ref, kind: "ack", payload: { accepted: true } });
  assert.deepEqual([runs.all.length, attached.all.length], [1, 2]);
  runs.all[0].resolve("done");
  assert.equal((await reply(fake, 3)).payload.outcome, "done");
});

test("a result whose word was lost is given again, and that it is there already is well", async (t) => {
  let lost = false;
  const { fake, hand, errors } = await stage(t, {}, (agent) => agent.answer("delegate", () => "done"), {
    result: () => (lost ? "already_answered" : undefined),
  });
  const { reply: answer } = fake.commands;
  fake.commands.reply = (command, peer) => {
    if (command.kind !== "result" || lost) return answer(command, peer);
    lost = true;
    peer.socket.destroy();
  };
  hand(1, "delegate", { task: "t" });
  assert.equal((await reply(fake, 3)).payload.outcome, "done");
  assert.deepEqual(errors, []);
});

test("an agent that stops tells its work, and says how it ended", async (t) => {
  const begun = new Count();
  const { fake, hand, agent } = await stage(t, {}, (one) =>
    one.answer("delegate", async (request) => {
      begun.add(request);
      if (request.subject === "ready") {
        await ended(request);
        return "as far as it is";
      }
      await ended(request);
      request.signal.throwIfAborted();
    }),
  );
  const ready = hand(1, "delegate", { task: "ready" });
  const not = hand(2, "delegate", { task: "not" });
  await begun.reach(2);
  await agent.stop();
  const results = Object.fromEntries(
    [await reply(fake, 3), await reply(fake, 4)].map(({ ref, payload }) => [ref, payload]),
  );
  assert.equal(results[ready].outcome, "as far as it is");
  assert.equal(results[not].status, "failed");
  await fake.peers[0].gone;
});

test("serve ends with its signal, and rejects where there is no daemon or trying is of no use", async (t) => {
  const nobody = new Agent({ socket: "/nowhere/axon.sock" }).answer("query", () => "");
  await assert.rejects(nobody.serve(), { code: "no_daemon" });
  await assert.rejects(new Agent({ socket: "/nowhere/axon.sock" }).serve(), { code: "invalid_command" });

  const { agent } = await stage(t, {}, (one) => one.answer("query", () => ""));
  assert.throws(() => agent.answer("query", () => ""), { code: "invalid_command" });
  const stop = new AbortController();
  const serving = agent.serve({ signal: stop.signal });
  stop.abort();
  await serving;

  const other = await stage(t, {}, (one) => one.answer("query", () => ""));
  const refused = assert.rejects(other.agent.serve(), { code: "not_authorized" });
  other.fake.commands.subscribe = (command, peer) => peer.refuse(command, "not_authorized");
  other.fake.peers[0].socket.destroy();
  await refused;
});

test("every answer fits into a message", () => {
  const [plain, control, quotes] = ["x".repeat(200_000), "\u0001".repeat(70_000), '"'.repeat(70_000)];
  for (const text of [plain, control, quotes, "€".repeat(70_000)]) {
    for (const kind of ["query", "delegate"]) {
      const { payload } = Answer.text(text).reply(kind);
      const bytes = Buffer.byteLength(JSON.stringify(payload));
      assert.ok(bytes <= PAYLOAD_BYTES_MAX && bytes > PAYLOAD_BYTES_MAX - 200, String(bytes));
      assert.equal(payload.truncated, true);
      const failed = Answer.error("internal", text).reply(kind).payload;
      assert.ok(Buffer.byteLength(JSON.stringify(failed)) <= PAYLOAD_BYTES_MAX);
    }
  }
  const { kind, payload } = Answer.payload({ data: "x".repeat(70_000), summary: "" }).reply("query");
  assert.deepEqual([kind, payload.code], ["error", "internal"]);
});

test("words are cut near the tokens asked for, and objects have what they lack", () => {
  const said = (answer, kind = "query", tokens = 0) => answer.reply(kind, tokens).payload;
  const cut = { data: null, summary: "ääää", truncated: true };
  assert.deepEqual(said(Answer.text("ä".repeat(10)), "query", 2), cut);
  assert.equal(said(Answer.text("🦀🦀"), "query", 1).summary, "🦀");
  assert.deepEqual(said(Answer.text("abc")), { data: null, summary: "abc" });
  assert.deepEqual(said(Answer.payload({ summary: "hi" })), { data: null, summary: "hi" });
  assert.deepEqual(said(Answer.payload({ data: "hi" })), { data: "hi", summary: "hi" });
  assert.deepEqual(said(Answer.payload({ t: 21 })), { data: { t: 21 }, summary: '{"t":21}' });
  const outcome = { status: "completed", outcome: '{"t":21}', data: { t: 21 } };
  assert.deepEqual(said(Answer.payload({ t: 21 }), "delegate"), outcome);
  const half = { status: "partial", outcome: "half" };
  assert.deepEqual(said(Answer.payload(half), "delegate"), half);
  const failed = { status: "failed", outcome: "later", error: "overloaded: later" };
  assert.deepEqual(said(Answer.error("overloaded", "later"), "delegate"), failed);
});
