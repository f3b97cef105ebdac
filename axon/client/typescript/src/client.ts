/**
 * The client: one method a command.
 */

import { Agent, type AgentOptions } from "./agent.js";
import { type Connection, type Json, PATIENCE_MS } from "./connection.js";
import { AxonError } from "./errors.js";
import { EventStream, read } from "./events.js";
import { Link, type Address } from "./link.js";
import { MessageStream, type MessagesOptions } from "./messages.js";
import { address, type ConnectOptions } from "./options.js";
import { type ListenOptions, TopicStream } from "./topics.js";
import type {
  Cancelled,
  Capabilities,
  Delegation,
  Delegations,
  DelegationState,
  FindOptions,
  FoundAgent,
  Inbox,
  Message,
  Outbox,
  Peer,
  Pong,
  Presence,
  Published,
  ResponsePayload,
  SendState,
  Sent,
  Status,
  Subscribed,
  Subscription,
  TopicPeer,
  Topics,
  TopicSubscribed,
  TopicSubscription,
  Welcome,
  Whoami,
} from "./types.js";
import { Bell, limited, orAborted } from "./waiting.js";

/** How long a peer may take to answer when nothing is said, and the longest that may be said of a query. */
const REQUEST_MS = 30_000;
const DEADLINE_MS_MAX = 3_600_000;
/** How long a command may take that waits for a peer as long as the daemon does. */
const ANSWER_MS = REQUEST_MS + PATIENCE_MS;
/** Events are given to so many streams at most. */
const STREAMS_MAX = 64;
/** States in which a delegation has ended. */
const ENDS: readonly string[] = ["completed", "partial", "failed", "cancelled", "refused", "expired"];

/** What every call takes. */
export interface CallOptions {
  /** Ends the wait: the call rejects with the signal's reason. What was sent stays sent. */
  signal?: AbortSignal | undefined;
}

/** How a question is asked. */
export interface QueryOptions extends CallOptions {
  /** What it is about, such as `family.calendar`. */
  domain?: string;
  /** How long the answer may be; left out: any length. */
  max_tokens?: number;
  /** How long the answer may take; 30,000 when left out. */
  deadline_ms?: number;
}

/** How work is given away. */
export interface DelegateOptions extends CallOptions {
  /** What it helps to know: any JSON. */
  context?: unknown;
  priority?: "normal" | "urgent";
  /** False: no result is wanted. */
  report_back?: boolean;
  /** How long the work may take. */
  deadline_ms?: number;
  /** How long it is kept when the peer cannot be reached. Left out: that is an error at once. */
  hold_secs?: number;
}

/** How something is told. */
export interface NotifyOptions extends CallOptions {
  importance?: "low" | "medium" | "high";
  /** How long it is kept when the peer cannot be reached. Left out: that is an error at once. */
  hold_secs?: number;
  /** Whether to be told when an agent has read it, as a {@link DeliveryEvent} with state `read`. */
  read_receipt?: boolean;
}

/** What {@link Client.send} takes beside peer, kind and payload. */
export interface SendOptions extends CallOptions {
  /** The message that this one refers to. */
  ref?: string;
  deadline_ms?: number;
  hold_secs?: number;
  read_receipt?: boolean;
}

/** How long to wait for a delegation. */
export interface WaitOptions extends CallOptions {
  /** Left out: as long as it takes. When it passes, the call rejects with `timeout`. */
  timeout_ms?: number;
}

/** Which rows of the outbox to give. */
export interface OutboxFilter {
  id?: string;
  to?: string;
  state?: SendState;
  /** 1 to 1000; 100 when left out. */
  limit?: number;
}

/** Which delegations to give. */
export interface DelegationFilter {
  id?: string;
  peer?: string;
  state?: DelegationState;
  direction?: "in" | "out";
  /** 1 to 1000; 50 when left out. */
  limit?: number;
  /** True: each change of any delegation comes as a {@link DelegationEvent} from now on; false: no longer. */
  watch?: boolean;
}

/** Work that was given away. */
export interface Delegated {
  /** The delegation's id. */
  id: string;
  /** `accepted` by an agent, `queued` for one, or `held` until the peer can be reached. */
  state: "accepted" | "queued" | "held";
  /** The peer's answer; none while it is held. */
  response?: Message;
  /** Waits until it has ended: see {@link Client.wait}. */
  wait(options?: WaitOptions): Promise<Delegation>;
}

/**
 * A client of the daemon. Its calls run at the same time; each gets its own reply.
 *
 * When the connection is lost it is made again: at once while a stream of events, a wait, an advert or a
 * subscription needs it, else with the next call. A call whose reply did not come rejects with `closed`; it
 * is not repeated, for nobody knows whether it was done.
 */
export class Client {
  readonly #address: Address;
  readonly #link: Link;
  readonly #streams = new Set<EventStream>();
  readonly #messages = new Set<MessageStream | TopicStream>();
  readonly #waits = new Map<string, { bell: Bell; count: number }>();
  #welcome: Welcome | undefined;
  /** What a new connection is told again. */
  #advert: Capabilities | undefined;
  #subscription: Subscription | undefined;
  readonly #topics = new Map<string, TopicSubscription>();
  #watching = false;

  private constructor(options: ConnectOptions) {
    this.#address = address(options);
    this.#link = new Link(this.#address, {
      onEvent: (event, bytes) => this.#event(event, bytes),
      onUp: (connection) => this.#up(connection),
      wanted: () => this.#wanted(),
      onFatal: (error) => this.#finish(error),
    });
  }

  /** Connects to the daemon and says hello. */
  static async connect(options: ConnectOptions & CallOptions = {}): Promise<Client> {
    const client = new Client(options);
    try {
      await client.#link.first(options.signal);
    } catch (error) {
      client.#link.close();
      throw error;
    }
    return client;
  }

  /** What the daemon said to the last hello. */
  get welcome(): Welcome {
    if (this.#welcome === undefined) throw new AxonError("closed", "this client was never connected");
    return this.#welcome;
  }

  /** The socket. */
  get socket(): string {
    return this.#address.path;
  }

  /** Whether it was closed. */
  get isClosed(): boolean {
    return this.#link.isClosed;
  }

  /** Closes it, with its streams of events and messages. What waits for a reply fails with `closed`. */
  close(): void {
    this.#link.close();
    this.#finish();
  }

  /** Who this daemon is. */
  async whoami(options: CallOptions = {}): Promise<Whoami> {
    return this.#quick<Whoami>("whoami", {}, options);
  }

  /** What the daemon counts. */
  async status(options: CallOptions = {}): Promise<Status> {
    return this.#quick<Status>("status", {}, options);
  }

  /** The peers that the daemon knows. */
  async peers(options: CallOptions = {}): Promise<Peer[]> {
    return (await this.#quick<{ peers: Peer[] }>("peers", {}, options)).peers;
  }

  /** Asks a peer, and gives the text of its answer. */
  async ask(to: string, question: string, options: QueryOptions = {}): Promise<string> {
    const { summary } = (await this.query(to, question, options)).payload;
    return summary ?? "";
  }

  /** Asks a peer, and gives its whole answer. An `error` of the peer rejects, with the peer's code. */
  async query(to: string, question: string, options: QueryOptions = {}): Promise<Message<ResponsePayload>> {
    const { domain, max_tokens, deadline_ms, signal } = options;
    const payload = { question, domain, max_tokens, deadline_ms };
    const wait = deadline_ms === undefined || deadline_ms === 0 ? REQUEST_MS : deadline_ms;
    const limit_ms = Math.min(wait, DEADLINE_MS_MAX) + PATIENCE_MS;
    const sent = await this.#send({ to, kind: "query", payload }, limit_ms, signal);
    return answerOf(sent) as Message<unknown> as Message<ResponsePayload>;
  }

  /**
   * Gives work to a peer. Resolves when it is taken on, queued or held; its result comes later, see
   * {@link Client.wait}. An agent that says no is the error `declined`.
   */
  async delegate(to: string, task: string, options: DelegateOptions = {}): Promise<Delegated> {
    const { context, priority, report_back, deadline_ms, hold_secs, signal } = options;
    const payload = { task, context, priority, report_back, deadline_ms };
    const command = { to, kind: "delegate", payload, hold_secs };
    const sent = await this.#send(command, ANSWER_MS, signal);
    const id = sent.msg_id;
    const wait = (how?: WaitOptions): Promise<Delegation> => this.wait(id, how);
    if (sent.state === "held") return { id, state: "held", wait };
    const response = answerOf(sent);
    const { accepted, reason, state } = response.payload;
    if (accepted !== true) {
      const why = typeof reason === "string" ? reason : "the peer's agent says no, and gave no reason";
      throw new AxonError("declined", why, { from: response.from, msg_id: id, retryable: false });
    }
    return { id, state: state === "queued" ? "queued" : "accepted", response, wait };
  }

  /**
   * Waits until a delegation has ended, whoever gave it, and gives its row. It may have ended before; the
   * wait goes on over restarts of the daemon.
   */
  async wait(id: string, options: WaitOptions = {}): Promise<Delegation> {
    const { timeout_ms, signal } = options;
    if (timeout_ms === undefined) return this.#wait(id, signal);
    const time = limited(signal, timeout_ms);
    try {
      return await this.#wait(id, time.signal);
    } catch (error) {
      if (!time.isOver()) throw error;
      const why = `the delegation has not ended after ${timeout_ms} ms: wait for it again`;
      throw new AxonError("timeout", why);
    } finally {
      time.end();
    }
  }

  /** Takes a delegation back. One that was still held never leaves. */
  async cancel(id: string, reason?: string, options: CallOptions = {}): Promise<Cancelled> {
    const command = { kind: "cancel", ref: id, payload: { reason } };
    const sent = await this.#send(command, ANSWER_MS, options.signal);
    if (sent.state === "cancelled") return { accepted: true };
    const { accepted, reason: why } = answerOf(sent).payload;
    return { accepted: accepted === true, ...(typeof why === "string" ? { reason: why } : {}) };
  }

  /** Tells a peer something: any JSON, under a topic such as `home.door`. */
  async notify(to: string, topic: string, data: unknown, options: NotifyOptions = {}): Promise<Sent> {
    const { importance, hold_secs, read_receipt, signal } = options;
    const payload = { topic, data: data ?? null, importance };
    const command = { to, kind: "notify", payload, hold_secs, read_receipt };
    return this.#send(command, ANSWER_MS, signal);
  }

  /** Asks a peer what its agents say they can do. */
  async discover(to: string, options: CallOptions = {}): Promise<Capabilities> {
    const sent = await this.#send({ to, kind: "discover" }, ANSWER_MS, options.signal);
    return answerOf(sent).payload;
  }

  /** Asks a peer's daemon how it is. */
  async ping(to: string, options: CallOptions = {}): Promise<Pong> {
    const sent = await this.#send({ to, kind: "ping" }, ANSWER_MS, options.signal);
    return answerOf(sent).payload as unknown as Pong;
  }

  /** Sends a message of any kind. The answer is given as it came, also where it is an `error`. */
  async send(
    to: string | undefined,
    kind: string,
    payload: object,
    options: SendOptions = {},
  ): Promise<Sent> {
    const { signal, ...more } = options;
    const own = Number((payload as { deadline_ms?: unknown }).deadline_ms) || 0;
    const wait = Math.min(Math.max(own, REQUEST_MS), DEADLINE_MS_MAX);
    return this.#send({ to, kind, payload, ...more }, wait + PATIENCE_MS, signal);
  }

  /** Says what this client can do, for peers that ask; forgotten when it closes, or kept for its consumer. */
  async advertise(
    capabilities: Capabilities,
    options: CallOptions & { persist?: boolean } = {},
  ): Promise<void> {
    const { persist = false, signal } = options;
    await this.#quick("advertise", persist ? { capabilities, persist } : { capabilities }, { signal });
    this.#advert = persist ? undefined : capabilities;
  }

  /**
   * Kept messages from this consumer's cursor on, then new ones as they come, each to be acknowledged. The
   * stream has a connection of its own.
   */
  messages(options: MessagesOptions = {}): MessageStream {
    const gone = (): unknown => this.#messages.delete(stream);
    const stream: MessageStream = new MessageStream(this.#address, options, gone);
    if (this.isClosed) stream.close();
    else this.#messages.add(stream);
    return stream;
  }

  /** A page of the inbox, from this consumer's cursor on. Reading does not move the cursor. */
  async inbox(filter: { limit?: number; kinds?: string[] } = {}, options: CallOptions = {}): Promise<Inbox> {
    return this.#quick<Inbox>("inbox", filter, options);
  }

  /** Says that all messages up to this number are done with, for this consumer. Gives the cursor. */
  async ack(up_to_seq: number, options: CallOptions = {}): Promise<number> {
    return (await this.#quick<{ acked_seq: number }>("ack", { up_to_seq }, options)).acked_seq;
  }

  /** Publishes a message to whoever has subscribed to the topic. Who gets it is not told. */
  async publish(topic: string, message: object, options: CallOptions = {}): Promise<Published> {
    return this.#quick<Published>("publish", { topic, payload: message }, options);
  }

  /**
   * What is published on these topics from now on. A topic is a name or a filter: `*` is one level, `>` at
   * its end all that follow. The stream has a connection of its own.
   */
  listen(topics: string | string[], options: ListenOptions = {}): TopicStream {
    const gone = (): unknown => this.#messages.delete(stream);
    const all = typeof topics === "string" ? [topics] : topics;
    const stream: TopicStream = new TopicStream(this.#address, all, options, gone);
    if (this.isClosed) stream.close();
    else this.#messages.add(stream);
    return stream;
  }

  /**
   * Subscribes: what is published comes as an {@link InboundEvent}, see {@link topicMessage}. With `kept` the
   * subscription is the consumer's until {@link Client.unsubscribeTopic}, and what comes waits for
   * {@link Client.messages}.
   */
  async subscribeTopic(
    topic: string,
    subscription: TopicSubscription = {},
    options: CallOptions = {},
  ): Promise<TopicSubscribed> {
    const reply = await this.#quick<TopicSubscribed>("subscribe_topic", { topic, ...subscription }, options);
    // What was kept before is not told again over a new connection.
    if (subscription.kept !== true) this.#topics.set(topic, { ...subscription, history: false });
    return reply;
  }

  /** Ends a subscription of this client or of its consumer; gives whether there was one. */
  async unsubscribeTopic(topic: string, options: CallOptions = {}): Promise<boolean> {
    this.#topics.delete(topic);
    const reply = await this.#quick<{ unsubscribed: boolean }>("unsubscribe_topic", { topic }, options);
    return reply.unsubscribed;
  }

  /** Subscriptions, what is kept and relayed, and topics that were seen. */
  async topics(options: CallOptions = {}): Promise<Topics> {
    return this.#quick<Topics>("topics", {}, options);
  }

  /** Connected peers that offer topics, or those that want this one. */
  async topicPeers(topic?: string, options: CallOptions = {}): Promise<TopicPeer[]> {
    return (await this.#quick<{ peers: TopicPeer[] }>("topic_peers", { topic }, options)).peers;
  }

  /** Has the daemon keep what comes of these topics, or with `off` no longer. The owner's word. */
  async topicKeep(
    topic: string,
    keep: { last?: number; hours?: number; off?: boolean } = {},
    options: CallOptions = {},
  ): Promise<void> {
    await this.#quick("topic_keep", { topic, ...keep }, options);
  }

  /** How one peer is, or all. */
  async presence(peer?: string, options: CallOptions = {}): Promise<Presence[]> {
    return (await this.#quick<{ presence: Presence[] }>("presence", { peer }, options)).presence;
  }

  /**
   * Says how this agent is, until this connection ends; without a status its word is taken back. Gives how
   * the agent is then, by the word of all its clients or by its work.
   */
  async setPresence(status?: "idle" | "busy" | "away" | "dnd", options: CallOptions = {}): Promise<string> {
    return (await this.#quick<{ status: string }>("set_presence", { status }, options)).status;
  }

  /** Asks for an event when a peer comes, goes or changes. It ends with the connection. */
  async watchPresence(on = true, options: CallOptions = {}): Promise<void> {
    await this.#quick("subscribe_presence", { on }, options);
  }

  /** Peers that serve a domain and have a tool, as far as they have said so. */
  async who(able: { domain?: string; tool?: string } = {}, options: CallOptions = {}): Promise<Presence[]> {
    return (await this.#quick<{ agents: Presence[] }>("who", able, options)).agents;
  }

  /** Looks among peers, and their peers, for an agent or for what it can do. */
  async find(find: FindOptions, options: CallOptions = {}): Promise<FoundAgent[]> {
    return (await this.#quick<{ agents: FoundAgent[] }>("find", { ...find }, options)).agents;
  }

  /** Messages that are held or were, and those whose reading was asked for. */
  async outbox(filter: OutboxFilter = {}, options: CallOptions = {}): Promise<Outbox> {
    return this.#quick<Outbox>("outbox", filter, options);
  }

  /** Takes a held message back before it has left. */
  async takeBack(id: string, options: CallOptions = {}): Promise<void> {
    await this.#quick("outbox", { cancel: id }, options);
  }

  /** Work given away and taken in. */
  async delegations(filter: DelegationFilter = {}, options: CallOptions = {}): Promise<Delegations> {
    const reply = await this.#quick<Delegations>("delegations", filter, options);
    if (filter.watch !== undefined) this.#watching = filter.watch;
    return reply;
  }

  /**
   * What the daemon tells from now on: how far messages have come, and, where it was asked for, changes of
   * delegations ({@link Client.delegations} with `watch`), messages and requests ({@link Client.subscribe}).
   */
  events(options: CallOptions = {}): EventStream {
    if (this.#streams.size >= STREAMS_MAX) {
      throw new AxonError("overloaded", `${STREAMS_MAX} streams of events are open: close one`);
    }
    const stream: EventStream = new EventStream({
      onClose: () => this.#streams.delete(stream),
      signal: options.signal,
    });
    if (this.isClosed) stream.close();
    else this.#streams.add(stream);
    return stream;
  }

  /**
   * Asks for messages and requests as events, as the daemon gives them. {@link Client.messages} and
   * {@link Client.agent} do the same with the bookkeeping around it.
   */
  async subscribe(subscription: Subscription, options: CallOptions = {}): Promise<Subscribed> {
    const reply = await this.#quick<Subscribed>("subscribe", subscription, options);
    this.#subscription = subscription;
    return reply;
  }

  /** Answers a request by hand: `response`, `ack`, `error`, `progress`, `result`. */
  async reply(
    ref: string,
    kind: string,
    payload: object,
    options: CallOptions & { hold_secs?: number } = {},
  ): Promise<{ msg_id: string; state?: SendState }> {
    const { hold_secs, signal } = options;
    const connection = await this.#link.soon(signal);
    const waits = kind === "progress" || kind === "result";
    const limits = { slow: waits, limit_ms: waits ? ANSWER_MS : PATIENCE_MS, signal };
    const reply = await connection.call("reply", { ref, kind, payload, hold_secs }, limits);
    return reply as unknown as { msg_id: string; state?: SendState };
  }

  /** An agent on the same socket, with a connection of its own. It outlives this client. */
  agent(options: Omit<AgentOptions, "socket" | "token"> = {}): Agent {
    const { path, consumer, token } = this.#address;
    return new Agent({ consumer, ...options, socket: path, ...(token === undefined ? {} : { token }) });
  }

  /** Any command by its name: for those that this library has no method for. */
  async command(
    cmd: string,
    fields: object = {},
    options: CallOptions & { limit_ms?: number } = {},
  ): Promise<Record<string, unknown>> {
    const { limit_ms = PATIENCE_MS, signal } = options;
    const connection = await this.#link.soon(signal);
    return connection.call(cmd, fields, { limit_ms, signal });
  }

  async #quick<T>(cmd: string, fields: object, { signal }: CallOptions): Promise<T> {
    const connection = await this.#link.soon(signal);
    return (await connection.call(cmd, fields, { signal })) as T;
  }

  async #send(command: object, limit_ms: number, signal: AbortSignal | undefined): Promise<Sent> {
    const connection = await this.#link.soon(signal);
    return (await connection.call("send", command, { slow: true, limit_ms, signal })) as unknown as Sent;
  }

  async #wait(id: string, signal: AbortSignal | undefined): Promise<Delegation> {
    const wait = this.#waits.get(id) ?? { bell: new Bell(), count: 0 };
    wait.count += 1;
    this.#waits.set(id, wait);
    try {
      for (;;) {
        const rung = wait.bell.next();
        const connection = await this.#link.ready(signal);
        let row: Delegation | undefined;
        try {
          const reply = await connection.call("delegations", { id, watch: true }, { signal });
          row = (reply as unknown as Delegations).delegations[0];
        } catch (error) {
          // To ask again does no harm.
          if (error instanceof AxonError && error.endsConnection && !this.isClosed) continue;
          throw error;
        }
        if (row === undefined) {
          throw new AxonError("not_found", `there is no delegation ${id}: see \`axon delegations\``);
        }
        if (ENDS.includes(row.state)) return row;
        await orAborted(rung, signal);
      }
    } finally {
      wait.count -= 1;
      if (wait.count === 0) this.#waits.delete(id);
      if (this.#waits.size === 0 && !this.#watching) {
        const live = this.#link.live;
        void live?.call("delegations", { limit: 1, watch: false }).catch(() => undefined);
      }
    }
  }

  async #up(connection: Connection): Promise<void> {
    const again = this.#welcome !== undefined;
    this.#welcome = connection.welcome;
    if (!again) return;
    for (const stream of this.#streams) {
      if (this.#subscription !== undefined) stream.renew(this.#subscription.replay !== false);
      stream.miss("reconnected");
    }
    if (this.#advert !== undefined) await connection.call("advertise", { capabilities: this.#advert });
    if (this.#watching) await connection.call("delegations", { limit: 1, watch: true });
    if (this.#subscription !== undefined) await connection.call("subscribe", this.#subscription);
    for (const [topic, how] of this.#topics) await connection.call("subscribe_topic", { topic, ...how });
    for (const { bell } of this.#waits.values()) bell.ring();
  }

  #event(line: Json, bytes: number): void {
    const event = read(line);
    if (event.event === "delegation") {
      if (ENDS.includes(event.delegation.state)) this.#waits.get(event.delegation.id)?.bell.ring();
      // One that only a wait has asked for is nobody else's.
      if (!this.#watching) return;
    }
    for (const stream of this.#streams) stream.push(event, bytes);
  }

  #wanted(): boolean {
    const told = this.#advert !== undefined || this.#subscription !== undefined || this.#topics.size > 0;
    return told || this.#watching || this.#streams.size > 0 || this.#waits.size > 0;
  }

  #finish(error?: unknown): void {
    for (const stream of this.#streams) stream.finish(error);
    this.#streams.clear();
    for (const stream of [...this.#messages]) stream.close();
    // Who waits looks again, and finds the end.
    for (const { bell } of this.#waits.values()) bell.ring();
  }
}

/** The peer's answer. Its `error` becomes an error here. */
function answerOf(sent: Sent): Message {
  const { response, msg_id } = sent;
  if (response === undefined) {
    throw new AxonError("protocol", "the daemon gave no answer: are this library and it of one version?");
  }
  if (response.kind !== "error") return response;
  const { code, message, retryable, retry_after_ms } = response.payload;
  const name = typeof code === "string" ? code : "internal";
  const why = typeof message === "string" ? message : `the peer answered with the error ${name}`;
  throw new AxonError(name, why, {
    from: response.from,
    msg_id,
    retryable: retryable === true,
    ...(typeof retry_after_ms === "number" ? { retry_after_ms } : {}),
  });
}
