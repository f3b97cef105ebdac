/**
 * The inbox as a stream: at least once, in order, over as many connections as it takes.
 *
 * Live events are given as they come. When they come faster than they are taken, and after a new connection,
 * the stream reads the inbox from its consumer's cursor until it has caught up.
 */

import type { Connection, Json } from "./connection.js";
import { AxonError } from "./errors.js";
import { read } from "./events.js";
import { Link, type Address } from "./link.js";
import type { Inbox, Row, Subscribed } from "./types.js";
import { Bell, orAborted } from "./waiting.js";

/** Live messages that wait to be taken; others stay in the daemon's inbox. */
const QUEUE_MAX = 256;
const QUEUE_BYTES_MAX = 1_048_576;
/** Rows read from the inbox at once, and where many are given and not acknowledged yet. */
const PAGE = 100;
const PAGE_MAX = 1000;

/** How a stream of messages is opened. */
export interface MessagesOptions {
  /** Only messages of these kinds. An acknowledgement passes those of other kinds that came before. */
  kinds?: string[];
  /**
   * Messages below this number went out of the inbox, which is bounded, before this consumer had acknowledged
   * them. Called before the first message behind the gap is given. Without it a warning is emitted on
   * `process`.
   */
  onLost?: (lost_before_seq: number) => void;
  /** Ends the stream: iterating rejects with the signal's reason. */
  signal?: AbortSignal | undefined;
}

/** One message of the inbox. */
export interface InboxMessage extends Row {
  /** Says that this message, and all before it, are done with. Resolves when that is on the daemon's disk. */
  ack(): Promise<void>;
}

/**
 * Kept messages from the consumer's cursor on, then new ones as they come. Iterate over it with `for await`;
 * leaving the loop closes it.
 *
 * What was not acknowledged comes again with the next stream of the same consumer; this one gives no message
 * twice, also when the daemon was restarted meanwhile. It has a connection of its own.
 */
export class MessageStream implements AsyncIterableIterator<InboxMessage> {
  readonly #link: Link;
  readonly #options: MessagesOptions;
  readonly #bell = new Bell();
  #queue: { row: Row; bytes: number }[] = [];
  #bytes = 0;
  /** Whether something is in the inbox, or may be, that is not in the queue. */
  #behind = true;
  /** Numbers: the last row looked at, the last given, and how far the cursor is known to be. */
  #seen = 0;
  #given = 0;
  #acked = 0;
  #lost: number | undefined;
  /** Counts the stores that rows were given from: their numbers begin anew in another one. */
  #store = 0;
  #agent: string | undefined;
  #fatal: unknown;
  #closed = false;
  #taking: Promise<unknown> = Promise.resolve();
  readonly #onClose: () => unknown;

  /** @internal */
  constructor(address: Address, options: MessagesOptions, onClose: () => unknown) {
    this.#options = options;
    this.#link = new Link(address, {
      onEvent: (event, bytes) => this.#event(event, bytes),
      onUp: (connection) => this.#up(connection),
      wanted: () => true,
      onFatal: (error) => {
        this.#fatal = error;
        this.#bell.ring();
      },
    });
    this.#onClose = onClose;
  }

  /** Messages below this number went out of the inbox unread, as far as the stream has been told. */
  get lostBeforeSeq(): number | undefined {
    return this.#lost;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /** The next message. Done when the stream or its client was closed. Calls take turns. */
  next(): Promise<IteratorResult<InboxMessage, undefined>> {
    const turn = this.#taking.then(() => this.#next());
    this.#taking = turn.catch(() => undefined);
    return turn;
  }

  /** Closes it, as leaving the loop does. */
  async return(): Promise<IteratorResult<InboxMessage, undefined>> {
    this.close();
    return { done: true, value: undefined };
  }

  /** Closes it and its connection. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#link.close();
    this.#drop();
    this.#bell.ring();
    this.#onClose();
  }

  /**
   * Says that all messages up to this number are done with. Resolves when that is on the daemon's disk; while
   * the daemon is away, it waits for it.
   */
  async ack(seq: number, options: { signal?: AbortSignal } = {}): Promise<void> {
    await this.#ack(seq, this.#store, options.signal);
  }

  async #next(): Promise<IteratorResult<InboxMessage, undefined>> {
    const { signal } = this.#options;
    try {
      for (;;) {
        signal?.throwIfAborted();
        if (this.#closed) return { done: true, value: undefined };
        if (this.#fatal !== undefined) throw this.#fatal;
        const rung = this.#bell.next();
        const row = this.#take();
        if (row !== undefined) return { done: false, value: this.#give(row) };
        if (this.#behind) await this.#read(signal);
        else await orAborted(rung, signal);
      }
    } catch (error) {
      // A loop that ends by an error does not close what it iterates over.
      this.close();
      throw error;
    }
  }

  /** The next row of the queue that was not looked at yet. */
  #take(): Row | undefined {
    for (;;) {
      const first = this.#queue.shift();
      if (first === undefined) return undefined;
      this.#bytes -= first.bytes;
      if (first.row.seq <= this.#seen) continue;
      this.#seen = first.row.seq;
      const { kinds } = this.#options;
      if (kinds === undefined || kinds.includes(first.row.envelope.kind)) return first.row;
    }
  }

  #give(row: Row): InboxMessage {
    this.#given = row.seq;
    const store = this.#store;
    return { ...row, ack: () => this.#ack(row.seq, store, undefined) };
  }

  /** Reads a page of the inbox into the queue; it is empty, for it is read when all was taken. */
  async #read(signal: AbortSignal | undefined): Promise<void> {
    const rung = this.#bell.next();
    const store = this.#store;
    try {
      const connection = await orAborted(Promise.race([this.#link.ready(signal), rung]), signal);
      if (connection === undefined || this.#link.live !== connection) return;
      this.#behind = false;
      const waits = this.#given > this.#acked;
      const page = await connection.call("inbox", { limit: waits ? PAGE_MAX : PAGE }, { signal });
      if (store !== this.#store) return;
      const { messages, has_more, lost_before_seq } = page as unknown as Inbox;
      if (lost_before_seq !== undefined) this.#tellLost(lost_before_seq);
      const rows = messages.filter((row) => row.seq > this.#seen).map((row) => ({ row, bytes: 0 }));
      if (!has_more) {
        // What came live meanwhile is newer than what was read.
        this.#queue = [...rows, ...this.#queue];
        return;
      }
      // And here what is not read yet is older than that.
      this.#drop();
      this.#queue = rows;
      this.#behind = true;
      if (rows.length > 0) return;
      // All of this page was looked at. Where nothing of it waits for its word, the cursor may go past it;
      // otherwise the next page is there after the next word.
      const last = messages.at(-1)?.seq ?? 0;
      if (this.#given <= this.#acked) await this.#ack(last, store, signal);
      else await orAborted(rung, signal);
    } catch (error) {
      this.#behind = true;
      if (this.#link.isClosed) return;
      if (!(error instanceof AxonError) || !error.endsConnection) throw error;
    }
  }

  #tellLost(before: number): void {
    if (this.#lost !== undefined && before <= this.#lost) return;
    this.#lost = before;
    const { onLost } = this.#options;
    if (onLost !== undefined) return onLost(before);
    const what = `messages below number ${before} went out of the inbox before they were acknowledged`;
    process.emitWarning(what, { type: "AxonWarning", code: "AXON_LOST" });
  }

  async #ack(seq: number, store: number, signal: AbortSignal | undefined): Promise<void> {
    for (;;) {
      const connection = await this.#link.ready(signal);
      // The store that it was in is gone, and with it the message.
      if (store !== this.#store) return;
      try {
        const { acked_seq } = await connection.call("ack", { up_to_seq: seq }, { signal });
        if (store === this.#store) this.#acked = Math.max(this.#acked, Number(acked_seq));
        return this.#bell.ring();
      } catch (error) {
        if (this.#link.isClosed || !(error instanceof AxonError) || !error.endsConnection) throw error;
      }
    }
  }

  async #up(connection: Connection): Promise<void> {
    const { kinds } = this.#options;
    this.#drop();
    const wanted = kinds === undefined ? { replay: false } : { kinds, replay: false };
    const reply = await connection.call("subscribe", wanted);
    const { replay_to_seq } = reply as unknown as Subscribed;
    const { agent_id, features } = connection.welcome;
    const again = this.#agent !== undefined;
    // Without a replay this is the cursor, which never goes back in one store.
    const kept = this.#agent === agent_id && features.includes("durable") && replay_to_seq >= this.#acked;
    this.#agent = agent_id;
    if (again && !kept) {
      this.#store += 1;
      [this.#seen, this.#given, this.#acked, this.#lost] = [0, 0, 0, undefined];
    }
    this.#behind = true;
    this.#bell.ring();
  }

  #event(line: Json, bytes: number): void {
    const event = read(line);
    if (event.event === "slow_consumer") this.#behind = true;
    else if (event.event !== "inbound" || this.#behind) return this.#bell.ring();
    else if (this.#queue.length >= QUEUE_MAX || this.#bytes + bytes > QUEUE_BYTES_MAX) {
      // All of it is in the inbox, and is read from there in order.
      this.#drop();
      this.#behind = true;
    } else {
      const { seq, buffered_at_ms, trust, from_name, claimed, envelope } = event;
      const name = claimed === true ? { from_name, claimed } : { from_name };
      this.#queue.push({ row: { seq, buffered_at_ms, trust, ...name, envelope }, bytes });
      this.#bytes += bytes;
    }
    this.#bell.ring();
  }

  #drop(): void {
    this.#queue = [];
    this.#bytes = 0;
  }
}
