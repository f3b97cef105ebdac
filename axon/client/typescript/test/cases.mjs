// Plays the shared cases of the client libraries (tests/clients/README.md) over this library.

import { readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

import { Answer, AnswerError, AxonError, Client } from "../dist/index.js";

/** Longest that a step may take. */
const STEP_MS = 15_000;

const { AXON_CASES, AXON_A, AXON_B, AXON_ONLY } = process.env;
const SOCKETS = { A: AXON_A, B: AXON_B, none: join(tmpdir(), "no-daemon-here", "axon.sock") };
const input = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

/** What one case has made. */
class Stage {
  constructor(id) {
    this.consumer = id;
    this.saved = {};
    this.named = {};
    this.tasks = {};
    this.gates = new Map();
  }

  gate(name) {
    if (!this.gates.has(name)) {
      let open;
      const opened = new Promise((resolve) => (open = resolve));
      this.gates.set(name, { opened, open });
    }
    return this.gates.get(name);
  }

  async end() {
    const named = Object.values(this.named);
    for (const gate of this.gates.values()) gate.open();
    await Promise.all(named.map((one) => one.agent?.stop()));
    for (const one of named) one.stream?.close();
    for (const one of named) one.client?.close();
    await Promise.all(Object.values(this.tasks).map((task) => task.catch(() => undefined)));
  }
}

/** Puts in what was saved, and long texts. */
function filled(stage, value) {
  if (typeof value === "string" && value.startsWith("$")) {
    const [name, ...path] = value.slice(1).split(".");
    if (!(name in stage.saved)) throw new Error(`nothing was saved as ${name}`);
    return path.reduce((part, field) => part?.[field], stage.saved[name]);
  }
  if (Array.isArray(value)) return value.map((one) => filled(stage, one));
  if (typeof value !== "object" || value === null) return value;
  if ("$text" in value) return value.$text[0].repeat(value.$text[1]);
  return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, filled(stage, one)]));
}

/** Why a value does not match, or nothing. */
function mismatch(wanted, got, at = "it") {
  const no = `${at}: wanted ${JSON.stringify(wanted)}, got ${brief(got)}`;
  if (wanted === null || wanted === undefined) return got === null || got === undefined ? undefined : no;
  if (Array.isArray(wanted)) {
    if (!Array.isArray(got) || got.length !== wanted.length) return no;
    return first(wanted.map((one, index) => mismatch(one, got[index], `${at}.${index}`)));
  }
  if (typeof wanted !== "object") return wanted === got ? undefined : no;
  if ("$any" in wanted) return got === null || got === undefined ? no : undefined;
  if ("$gt" in wanted) return typeof got === "number" && got > wanted.$gt ? undefined : no;
  if ("$len" in wanted) return got?.length === wanted.$len ? undefined : no;
  if ("$in" in wanted) return wanted.$in.some((one) => mismatch(one, got) === undefined) ? undefined : no;
  if ("$has" in wanted) {
    if (typeof got === "string") return got.includes(wanted.$has) ? undefined : no;
    const some = Array.isArray(got) && got.some((one) => mismatch(wanted.$has, one) === undefined);
    return some ? undefined : no;
  }
  if (typeof got !== "object" || got === null || Array.isArray(got)) return no;
  return first(Object.entries(wanted).map(([name, one]) => mismatch(one, got[name], `${at}.${name}`)));
}

const first = (list) => list.find((one) => one !== undefined);
const brief = (value) => (JSON.stringify(value) ?? "nothing").slice(0, 300);

/** Only the arguments that are there, of those named. */
function picked(step, ...names) {
  return Object.fromEntries(names.filter((name) => name in step).map((name) => [name, step[name]]));
}

/** Does to a request what the script says; what it returns is the answer. */
async function play(script, request, stage) {
  if ("echo" in script) return request.subject;
  if ("say" in script) return Answer.text(script.say, "data" in script ? { data: script.data } : {});
  if ("fail" in script) throw new AnswerError(script.fail, script.message);
  if ("throw" in script) throw new Error(script.throw);
  if ("by" in script) return play(script.by[request.subject], request, stage);
  const ended = new Promise((resolve) => {
    if (request.signal.aborted) resolve();
    request.signal.addEventListener("abort", resolve, { once: true });
  });
  if ("until_end" in script) {
    await ended;
    return "";
  }
  if ("gate" in script) {
    await Promise.race([stage.gate(script.gate).opened, ended]);
    if (request.signal.aborted) return "";
    return play(script.then, request, stage);
  }
  for (const progress of script.progress) await request.progress(progress);
  return play(script.then, request, stage);
}

/** A list to which is added, and that can be waited for. */
class Seen {
  #all = [];
  #waiting = new Set();

  add(one) {
    this.#all.push(one);
    for (const look of this.#waiting) look();
  }

  reach(count) {
    return new Promise((resolve) => {
      const look = () => {
        if (this.#all.length < count) return;
        this.#waiting.delete(look);
        resolve([...this.#all]);
      };
      this.#waiting.add(look);
      look();
    });
  }
}

const VERBS = {
  async connect(stage, step) {
    const socket = step.path ?? SOCKETS[step.daemon];
    const client = await Client.connect({ socket, consumer: step.consumer ?? stage.consumer });
    stage.named[step.as] = { client, events: client.events() };
    return { agent_id: client.welcome.agent_id };
  },
  async close(_, __, { client, stream, agent }) {
    stream?.close();
    await agent?.stop();
    client?.close();
  },
  whoami: (_, __, { client }) => client.whoami(),
  status: (_, __, { client }) => client.status(),
  peers: (_, __, { client }) => client.peers(),
  ping: (_, { to }, { client }) => client.ping(to),
  discover: (_, { to }, { client }) => client.discover(to),
  ask: (_, { to, question }, { client }) => client.ask(to, question),
  query: (_, step, { client }) =>
    client
      .query(step.to, step.question, picked(step, "domain", "max_tokens", "deadline_ms"))
      .then(({ from, payload }) => ({ from, payload })),
  delegate: (_, step, { client }) =>
    client.delegate(step.to, step.task, picked(step, "context", "priority", "deadline_ms", "hold_secs")),
  wait: (_, step, { client }) => client.wait(step.id, picked(step, "timeout_ms")),
  cancel: (_, { id, reason }, { client }) => client.cancel(id, reason),
  async notify(_, step, { client }) {
    const options = picked(step, "importance", "hold_secs", "read_receipt");
    const { msg_id, state } = await client.notify(step.to, step.topic, step.data, options);
    return { id: msg_id, state };
  },
  outbox: async (_, step, { client }) =>
    (await client.outbox(picked(step, "id", "to", "state", "limit"))).outbox,
  take_back: (_, { id }, { client }) => client.takeBack(id),
  delegations: async (_, step, { client }) =>
    (await client.delegations(picked(step, "id", "peer", "state", "direction", "limit"))).delegations,
  advertise: (_, step, { client }) => client.advertise(step.capabilities, picked(step, "persist")),
  inbox: (_, step, { client }) => client.inbox(picked(step, "limit", "kinds")),
  ack: (_, { seq }, { client }) => client.ack(seq),
  async drain(_, __, { client }) {
    for (let rows = 0; ; ) {
      const page = await client.inbox({ limit: 1000 });
      rows += page.messages.length;
      const upTo = page.next_seq ?? (page.lost_before_seq ?? 0) - 1;
      if (upTo > 0) await client.ack(upTo);
      if (page.messages.length === 0) return rows;
    }
  },
  watch: (_, __, { client }) => client.delegations({ watch: true, limit: 1 }),
  subscribe: (_, step, { client }) =>
    client.subscribe(picked(step, "kinds", "replay", "answer", "domains", "capacity", "lease")),
  async event(_, { where }, { events }) {
    for (;;) {
      const { done, value } = await events.next();
      if (done) throw new Error("there are no more events");
      if (mismatch(where, value) === undefined) return value;
    }
  },
  publish: (_, { topic, message }, { client }) => client.publish(topic, message),
  subscribe_topic: (_, step, { client }) => {
    const from = step.from_any ? { from: "any" } : {};
    return client.subscribeTopic(step.topic, { ...picked(step, "kept", "history"), ...from });
  },
  unsubscribe_topic: (_, { topic }, { client }) => client.unsubscribeTopic(topic),
  topics: (_, __, { client }) => client.topics(),
  topic_peers: (_, { topic }, { client }) => client.topicPeers(topic),
  topic_keep: (_, step, { client }) => client.topicKeep(step.topic, picked(step, "last", "hours", "off")),
  async wanted(_, { topic }, { client }) {
    for (;;) {
      const peers = await client.topicPeers(topic);
      if (peers.length > 0) return peers;
      // The peer tells when it likes to: nothing tells here that it has.
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  },
  async subscribed(_, { topic }, { client }) {
    for (;;) {
      const { subscriptions } = await client.topics();
      if (subscriptions.some((row) => row.topic === topic)) return;
      // It is another client that comes back, when it likes to.
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  },
  reply: (_, { ref, kind, payload }, { client }) => client.reply(ref, kind, payload ?? {}),
  command: (_, { cmd, fields }, { client }) => client.command(cmd, fields),
  async messages(stage, step) {
    const socket = step.path ?? SOCKETS[step.daemon];
    const client = await Client.connect({ socket, consumer: step.consumer ?? stage.consumer });
    const named = { client, lost: null };
    const onLost = (before) => (named.lost = before);
    named.stream = client.messages({ ...picked(step, "kinds"), onLost });
    stage.named[step.as] = named;
  },
  async next(_, __, { stream }) {
    const { done, value } = await stream.next();
    if (done) throw new Error("the stream has ended");
    return value;
  },
  ack_to: (_, { seq }, { stream }) => stream.ack(seq),
  lost: (_, __, { lost }) => ({ lost_before_seq: lost }),
  async answer(stage, step) {
    const [attached, begun, handled] = [new Seen(), new Seen(), new Seen()];
    const socket = step.path ?? SOCKETS[step.daemon];
    const client = await Client.connect({ socket, consumer: step.consumer ?? stage.consumer });
    const onAttached = () => attached.add(true);
    // What a script throws is meant; a failure to answer is seen by the peer.
    const onError = (error) => process.stderr.write(`(${stage.consumer}: ${error})\n`);
    const agent = client.agent({ ...picked(step, "capacity"), onAttached, onError });
    const handler = async (request) => {
      begun.add(request);
      try {
        return await play(step.script, request, stage);
      } finally {
        const { kind, subject, domain = null, from_name, trust, ended = null } = request;
        handled.add({ kind, subject, domain, from_name, trust, ended });
      }
    };
    for (const kind of step.kinds ?? ["query", "delegate"]) {
      agent.answer(kind, kind === "query" ? picked(step, "domains") : {}, handler);
    }
    stage.named[step.as] = { client, agent, attached, begun, handled };
    await agent.start();
  },
  attached: (_, { times }, { attached }) => attached.reach(times).then(() => undefined),
  begun: (_, { count }, { begun }) => begun.reach(count).then(() => undefined),
  handled: (_, { count }, { handled }) => handled.reach(count),
  release: (stage, { gate }) => stage.gate(gate).open(),
  join(stage, { task }) {
    if (!(task in stage.tasks)) throw new Error(`nothing was started as ${task}`);
    return stage.tasks[task];
  },
  async repeat(stage, { times, steps }) {
    for (let round = 0; round < times; round += 1) for (const step of steps) await run(stage, step);
  },
  async harness(_, { say }) {
    process.stdout.write(`${say}\n`);
    const { value } = await input.next();
    if (value !== "done") throw new Error(`the harness said: ${value}`);
  },
};
/** These wait for more than one thing, each of which has its own bound. */
const LONG = ["repeat", "harness"];

async function run(stage, step) {
  const verb = VERBS[step.do];
  if (verb === undefined) throw new Error(`no such verb: ${step.do}`);
  // What a repeated step names is looked up when its turn comes.
  const { save, expect, error, start, ...rest } = step;
  const given = step.do === "repeat" ? rest : filled(stage, rest);
  const on = given.on === undefined ? {} : stage.named[given.on];
  if (on === undefined) throw new Error(`there is no ${given.on}`);
  const result = (async () => verb(stage, given, on))();
  if (start !== undefined) {
    result.catch(() => undefined);
    stage.tasks[start] = result;
    return;
  }
  const bounded = LONG.includes(step.do) ? result : within(result);
  if (error !== undefined) return fails(bounded, error);
  const got = await bounded;
  const why = expect === undefined ? undefined : mismatch(filled(stage, expect), got);
  if (why !== undefined) throw new Error(why);
  if (save !== undefined) stage.saved[save] = JSON.parse(JSON.stringify(got ?? null));
}

async function fails(result, code) {
  let got;
  try {
    got = await result;
  } catch (error) {
    if (error instanceof AxonError && error.code === code && error.message !== "") return;
    throw new Error(`wanted the error ${code}, got ${error.code ?? ""}: ${error.message}`);
  }
  throw new Error(`wanted the error ${code}, got ${brief(got)}`);
}

function within(result) {
  return new Promise((resolve, reject) => {
    const late = () => reject(new Error(`no end after ${STEP_MS} ms`));
    const timer = setTimeout(late, STEP_MS);
    result.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}

let failed = 0;
const { format, cases } = JSON.parse(readFileSync(AXON_CASES, "utf8"));
if (format !== 1) throw new Error(`this runner plays cases of format 1, not ${format}`);
for (const { id, steps } of cases) {
  if (AXON_ONLY && AXON_ONLY !== id) continue;
  const stage = new Stage(id);
  let why;
  for (const [at, step] of steps.entries()) {
    try {
      await run(stage, step);
    } catch (error) {
      why = `step ${at + 1} (${step.do}): ${error.message}`.replaceAll("\n", " ");
      break;
    }
  }
  await stage.end();
  if (why !== undefined) failed += 1;
  process.stdout.write(why === undefined ? `ok ${id}\n` : `FAILED ${id} ${why}\n`);
}
process.exit(failed === 0 ? 0 : 1);
