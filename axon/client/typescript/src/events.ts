/**
 * What the daemon tells without being asked, in a bounded queue for each who listens.
 */

import type { Json } from "./connection.js";
import { protocol } from "./errors.js";
import type { Event } from "./types.js";
import { Bell, orAborted } from "./waiting.js";

/** As many and as long as the daemon itself keeps for a client. */
const EVENTS_MAX = 1024;
const EVENT_BYTES_MAX = 4_194_304;
/** Requests to answer: the daemon hands out no more than the capacity, which is 1024 at most. */
const REQUESTS_MAX = 2048;

/** Who fills a stream, and hears when it is closed.
 * @internal */
export interface StreamHooks {
  onClose: () => void;
  signal: AbortSignal | undefined;
}

/**
 * Events in the order of their coming. Iterate over it with `for await`; leaving the loop closes it.
 *
 * A full queue holds up nothing: messages that do not fit stay in the daemon's inbox, and
 * {@link SlowConsumerEvent} stands where they are missing; for other events it is {@link MissedEvent}.
 * Requests that are to be answered always fit.
 */
export class EventStream implements AsyncIterableIterator<Event> {
  readonly #hooks: StreamHooks;
  readonly #bell = new Bell();
  #queue: { event: Event; bytes: number }[] = [];
  #bytes = 0;
  #requests = 0;
  #lagging = false;
  #missed = false;
  #closed = false;
  #error: unknown;

  /** @internal */
  constructor(hooks: StreamHooks) {
    this.#hooks = hooks;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /** The next event. Done when the stream or its client was closed. */
  async next(): Promise<IteratorResult<Event, undefined>> {
    for (;;) {
      this.#hooks.signal?.throwIfAborted();
      const first = this.#queue.shift();
      if (first !== undefined) {
        this.#taken(first.event, first.bytes);
        return { done: false, value: first.event };
      }
      if (this.#error !== undefined) throw this.#error;
      if (this.#closed) return { done: true, value: undefined };
      await orAborted(this.#bell.next(), this.#hooks.signal);
    }
  }

  /** Closes it, as leaving the loop does. */
  async return(): Promise<IteratorResult<Event, undefined>> {
    this.close();
    return { done: true, value: undefined };
  }

  /** Closes it. What was not taken yet is dropped. */
  close(): void {
    this.#queue = [];
    this.finish();
    this.#hooks.onClose();
  }

  /** There will be no more: by an error, or because it was closed.
   * @internal */
  finish(error?: unknown): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#error = error;
    this.#bell.ring();
  }

  /** @internal */
  push(event: Event, bytes: number): void {
    if (this.#closed) return;
    if (this.#queue.length > EVENTS_MAX + 2 * REQUESTS_MAX) throw protocol("more events than there can be");
    const full = this.#queue.length >= EVENTS_MAX || this.#bytes + bytes > EVENT_BYTES_MAX;
    if (event.event === "inbound" && event.answer === true) {
      if (this.#requests >= REQUESTS_MAX) throw protocol("more requests were handed out than the capacity");
      this.#requests += 1;
      bytes = 0;
    } else if (event.event === "inbound") {
      if (this.#lagging) return;
      if (full) {
        this.#lagging = true;
        event = { event: "slow_consumer", resume_from_seq: event.seq };
        bytes = 0;
      }
    } else if (event.event === "withdrawn") {
      // What nobody has taken yet need not be.
      if (this.#forget(event.ref)) return;
    } else if (event.event !== "slow_consumer" && full) {
      return this.miss("overflow");
    }
    this.#put(event, bytes);
  }

  /** Notes that some were not told.
   * @internal */
  miss(why: "overflow" | "reconnected"): void {
    if (this.#missed || this.#closed) return;
    this.#missed = true;
    this.#put({ event: "missed", why }, 0);
  }

  /** Drops what a new connection tells again: requests, and with a replay all messages.
   * @internal */
  renew(replay: boolean): void {
    const again = ({ event }: { event: Event }): boolean =>
      event.event === "withdrawn" ||
      (event.event === "inbound" && (replay || event.answer === true)) ||
      (event.event === "slow_consumer" && replay);
    this.#queue = this.#queue.filter((entry) => !again(entry));
    this.#bytes = this.#queue.reduce((sum, { bytes }) => sum + bytes, 0);
    this.#requests = 0;
    if (replay) this.#lagging = false;
  }

  #put(event: Event, bytes: number): void {
    this.#bytes += bytes;
    this.#queue.push({ event, bytes });
    this.#bell.ring();
  }

  #taken(event: Event, bytes: number): void {
    this.#bytes -= bytes;
    if (event.event === "inbound" && event.answer === true) this.#requests -= 1;
    else if (event.event === "slow_consumer") this.#lagging = false;
    else if (event.event === "missed") this.#missed = false;
  }

  #forget(ref: string): boolean {
    const waits = ({ event }: { event: Event }): boolean =>
      event.event === "inbound" && event.answer === true && event.envelope.id === ref;
    const at = this.#queue.findIndex(waits);
    if (at < 0) return false;
    this.#queue.splice(at, 1);
    this.#requests -= 1;
    return true;
  }
}

/** An event's line, typed. One that this library does not know, or that lacks what it needs, is `other`.
 * @internal */
export function read(line: Json): Event {
  const name = String(line["event"]);
  const whole =
    (name === "inbound" && typeof line["seq"] === "number" && isMessage(line["envelope"])) ||
    (name === "slow_consumer" && typeof line["resume_from_seq"] === "number") ||
    (name === "withdrawn" && typeof line["ref"] === "string") ||
    (name === "delivery" && typeof line["id"] === "string" && typeof line["state"] === "string") ||
    (name === "delegation" && typeof (line["delegation"] as Json | null | undefined)?.["id"] === "string") ||
    (name === "presence" && typeof (line["peer"] as Json | null | undefined)?.["id"] === "string") ||
    (name === "knock" && typeof line["id"] === "string");
  return whole ? (line as unknown as Event) : { event: "other", name, line };
}

function isMessage(envelope: unknown): boolean {
  if (typeof envelope !== "object" || envelope === null) return false;
  const { id, kind, payload } = envelope as Json;
  const named = typeof id === "string" && typeof kind === "string";
  return named && typeof payload === "object" && payload !== null;
}
