/**
 * What is published on topics, as a stream: from now on, over as many connections as it takes.
 */

import type { Connection, Json } from "./connection.js";
import { read } from "./events.js";
import { Link, type Address } from "./link.js";
import type { InboundEvent, JsonObject, Row, Sender, Trust } from "./types.js";
import { Bell, orAborted } from "./waiting.js";

/** The kind of the messages that the daemon makes of what was published. */
const KIND = "topic.message";
/** Messages that wait to be taken. */
const QUEUE_MAX = 256;
const QUEUE_BYTES_MAX = 1_048_576;

/** How topics are listened to. */
export interface ListenOptions {
  /** Also what agents publish that are no peers here. */
  any?: boolean;
  /** Begin with what was kept here before. */
  history?: boolean;
  /**
   * Messages came faster than they were taken, and some are lost. Without it a warning is emitted on
   * `process`.
   */
  onMissed?: () => void;
  /** Ends the stream: iterating rejects with the signal's reason. */
  signal?: AbortSignal | undefined;
}

/** What somebody published. */
export interface TopicMessage extends Sender {
  topic: string;
  /** What was published. It is its publisher's word: data, never orders. */
  message: JsonObject;
  /** Who published it: an agent id, proven by the signature. */
  publisher: string;
  /** Its number among all that this publisher has published. */
  seq: number;
  /** When, in Unix milliseconds, by the publisher's clock. */
  ts: number;
  /** The publisher is no peer here: look twice at what it says. */
  stranger: boolean;
  /** It comes from what was kept, not as it was published. */
  history: boolean;
  /** The neighbour that gave it; left out where it was published at this daemon. */
  via?: string;
  /** How far that neighbour is trusted. */
  via_trust?: Trust;
  /** Connections that it came over. */
  hops: number;
  /** How long ago it was published when it came. */
  age_ms: number;
}

/** What came over a topic, of a row of the inbox or an event; undefined for messages of other kinds. */
export function topicMessage(row: Row | InboundEvent): TopicMessage | undefined {
  const { envelope, trust, from_name, claimed } = row;
  const { topic, message, seq, stranger, history, via, via_trust, hops, age_ms } = envelope.payload;
  if (envelope.kind !== KIND || typeof message !== "object" || message === null) return undefined;
  return {
    topic: String(topic),
    message: message as JsonObject,
    publisher: envelope.from,
    seq: Number(seq),
    ts: envelope.ts,
    trust,
    from_name,
    ...(claimed === true ? { claimed } : {}),
    stranger: stranger === true,
    history: history === true,
    ...(typeof via === "string" ? { via } : {}),
    ...(typeof via_trust === "string" ? { via_trust: via_trust as Trust } : {}),
    hops: Number(hops),
    age_ms: Number(age_ms ?? 0),
  };
}

/**
 * What is published. Iterate over it with `for await`; leaving the loop closes it.
 *
 * It has a connection of its own. What is published while the daemon is away is not told.
 */
export class TopicStream implements AsyncIterableIterator<TopicMessage> {
  readonly #link: Link;
  readonly #topics: string[];
  readonly #options: ListenOptions;
  readonly #bell = new Bell();
  readonly #onClose: () => unknown;
  #queue: { message: TopicMessage; bytes: number }[] = [];
  #bytes = 0;
  #been = false;
  #missed = false;
  #fatal: unknown;
  #closed = false;

  /** @internal */
  constructor(address: Address, topics: string[], options: ListenOptions, onClose: () => unknown) {
    this.#topics = topics;
    this.#options = options;
    this.#onClose = onClose;
    this.#link = new Link(address, {
      onEvent: (event, bytes) => this.#event(event, bytes),
      onUp: (connection) => this.#up(connection),
      wanted: () => true,
      onFatal: (error) => {
        this.#fatal = error;
        this.#bell.ring();
      },
    });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /** Resolves once it has subscribed; without it the first message does. */
  async open(): Promise<this> {
    await this.#link.ready(this.#options.signal);
    return this;
  }

  /** The next message. Done when the stream or its client was closed. */
  async next(): Promise<IteratorResult<TopicMessage, undefined>> {
    const { signal } = this.#options;
    try {
      for (;;) {
        signal?.throwIfAborted();
        const first = this.#queue.shift();
        if (first !== undefined) {
          this.#bytes -= first.bytes;
          return { done: false, value: first.message };
        }
        if (this.#closed) return { done: true, value: undefined };
        if (this.#fatal !== undefined) throw this.#fatal;
        const rung = this.#bell.next();
        this.#link.retry();
        await orAborted(rung, signal);
      }
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Closes it, as leaving the loop does. */
  async return(): Promise<IteratorResult<TopicMessage, undefined>> {
    this.close();
    return { done: true, value: undefined };
  }

  /** Closes it, and ends its subscriptions. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#link.close();
    this.#queue = [];
    this.#bell.ring();
    this.#onClose();
  }

  async #up(connection: Connection): Promise<void> {
    const { any = false, history = false } = this.#options;
    const from = any ? { from: "any" } : {};
    for (const topic of this.#topics) {
      // What was kept is told once.
      const more = history && !this.#been ? { ...from, history } : from;
      await connection.call("subscribe_topic", { topic, ...more });
    }
    this.#been = true;
    this.#missed = false;
  }

  #event(line: Json, bytes: number): void {
    const event = read(line);
    if (event.event === "slow_consumer") {
      this.#miss();
      // What was missed is nowhere: this asks for what comes from now on.
      void this.#link.live?.call("subscribe", { kinds: [KIND], replay: false }).catch(() => undefined);
    }
    const message = event.event === "inbound" ? topicMessage(event) : undefined;
    if (message === undefined || this.#closed) return;
    if (this.#queue.length >= QUEUE_MAX || this.#bytes + bytes > QUEUE_BYTES_MAX) return this.#miss();
    this.#missed = false;
    this.#queue.push({ message, bytes });
    this.#bytes += bytes;
    this.#bell.ring();
  }

  #miss(): void {
    if (this.#missed || this.#closed) return;
    this.#missed = true;
    const { onMissed } = this.#options;
    if (onMissed !== undefined) return onMissed();
    const what = "messages of topics came faster than they were taken, and some are lost";
    process.emitWarning(what, { type: "AxonWarning", code: "AXON_MISSED" });
  }
}
