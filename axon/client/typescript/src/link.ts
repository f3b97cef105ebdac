/**
 * A connection that comes back: made anew, with growing pauses, whenever it was lost.
 */

import { Connection, type OpenOptions } from "./connection.js";
import { AxonError, closed, passes } from "./errors.js";
import { limited, orAborted, sleep } from "./waiting.js";

/** First and longest pause before the daemon is tried again. */
const BACKOFF_MS = { first: 50, longest: 2_000 };
/** A connection that lasted so long was a good one: the next is made at once. */
const LIVED_MS = 2_000;
/** How long a command waits for a connection that was lost. */
const SOON_MS = 2_000;

/** Where the daemon is and who asks. */
export type Address = Pick<OpenOptions, "path" | "consumer" | "token">;

/** What the owner of a link does with its connections. */
export interface LinkHooks {
  onEvent: OpenOptions["onEvent"];
  /** Makes a new connection ready. Nobody else gets it before; when it fails, it is closed. */
  onUp: (connection: Connection) => Promise<void>;
  /** A connection was lost. */
  onDown?: (error: AxonError) => void;
  /** Whether to make a new one at once, and not only when somebody asks. */
  wanted: () => boolean;
  /** Trying again is of no use: the link is closed. */
  onFatal?: (error: unknown) => void;
}

/** Keeps one connection to the daemon, or none. */
export class Link {
  readonly #address: Address;
  readonly #hooks: LinkHooks;
  readonly #stop = new AbortController();
  #live: Connection | undefined;
  #attempt: Promise<Connection> | undefined;
  #trying: Promise<void> | undefined;
  /** Pause before the next attempt. Connections that end at once make it grow as well. */
  #pause = 0;
  /** How many wait for a connection. */
  #askers = 0;
  /** Why the last attempt failed. */
  #last: unknown;
  #fatal: unknown;

  constructor(address: Address, hooks: LinkHooks) {
    this.#address = address;
    this.#hooks = hooks;
  }

  /** The connection, if there is one. */
  get live(): Connection | undefined {
    return this.#live;
  }

  /** Whether it was closed, or has failed for good. */
  get isClosed(): boolean {
    return this.#stop.signal.aborted;
  }

  /** The connection, or one attempt to make it. */
  first(signal?: AbortSignal): Promise<Connection> {
    if (this.isClosed) return Promise.reject(this.#why());
    if (this.#live !== undefined) return Promise.resolve(this.#live);
    this.#attempt ??= this.#open().finally(() => (this.#attempt = undefined));
    return orAborted(this.#attempt, signal);
  }

  /** The connection, as soon as there is one. */
  async ready(signal?: AbortSignal): Promise<Connection> {
    this.#askers += 1;
    try {
      for (;;) {
        signal?.throwIfAborted();
        if (this.isClosed) throw this.#why();
        if (this.#live !== undefined) return this.#live;
        this.retry();
        await orAborted(this.#trying ?? Promise.resolve(), signal);
      }
    } finally {
      this.#askers -= 1;
    }
  }

  /** The connection; one that was lost is awaited for a little, since a daemon may just be starting. */
  async soon(signal?: AbortSignal): Promise<Connection> {
    if (this.#live !== undefined) return this.#live;
    const time = limited(signal, SOON_MS);
    try {
      return await this.ready(time.signal);
    } catch (error) {
      throw time.isOver() ? (this.#last ?? closed()) : error;
    } finally {
      time.end();
    }
  }

  /** Goes on trying in the background until there is a connection. */
  retry(): void {
    if (this.isClosed || this.#live !== undefined) return;
    this.#trying ??= this.#try().finally(() => {
      this.#trying = undefined;
      // It may have been lost again before anybody saw it.
      if (this.#hooks.wanted()) this.retry();
    });
  }

  /** Ends it for good. */
  close(): void {
    this.#fatal ??= new AxonError("closed", "it was closed here: make a new one");
    this.#stop.abort(this.#fatal);
    const live = this.#live;
    this.#live = undefined;
    live?.close();
  }

  #why(): unknown {
    return this.#fatal ?? closed();
  }

  async #try(): Promise<void> {
    while (!this.isClosed && (this.#askers > 0 || this.#hooks.wanted())) {
      // Not all who lost the same daemon are to come back in the same moment.
      const wait = this.#pause * (0.5 + Math.random() / 2);
      if (wait > 0) await sleep(wait, this.#stop.signal).catch(() => undefined);
      if (this.isClosed) return;
      try {
        await this.first();
        return;
      } catch (error) {
        this.#last = error;
        this.#pause = longer(this.#pause);
        if (this.isClosed) return;
        if (!passes(error)) {
          this.#fatal = error;
          this.close();
          this.#hooks.onFatal?.(error);
          return;
        }
      }
    }
  }

  async #open(): Promise<Connection> {
    let up = false;
    const since = Date.now();
    const connection: Connection = await Connection.open({
      ...this.#address,
      onEvent: this.#hooks.onEvent,
      onEnd: (error) => {
        if (!up) return;
        this.#pause = Date.now() - since < LIVED_MS ? longer(this.#pause) : 0;
        this.#down(connection, error);
      },
    });
    try {
      await this.#hooks.onUp(connection);
    } catch (error) {
      connection.close();
      throw error;
    }
    if (this.isClosed) connection.close();
    if (connection.ended !== undefined) throw connection.ended;
    up = true;
    this.#live = connection;
    return connection;
  }

  #down(connection: Connection, error: AxonError): void {
    if (this.#live !== connection) return;
    this.#live = undefined;
    this.#last = error;
    this.#hooks.onDown?.(error);
    if (this.#hooks.wanted()) this.retry();
  }
}

function longer(pause: number): number {
  return Math.min(Math.max(2 * pause, BACKOFF_MS.first), BACKOFF_MS.longest);
}
