/**
 * One connection: lines out, lines in, replies to whom they belong, events to whoever listens.
 */

import { connect, type Socket } from "node:net";

import { AxonError, closed, ofSystem, protocol } from "./errors.js";
import { LineReader, type Line } from "./lines.js";
import type { Welcome } from "./types.js";
import { orAborted, Places } from "./waiting.js";

/** The version of the socket's protocol that this library speaks. */
export const IPC_VERSION = 2;
/** Longest line that the daemon takes. */
const COMMAND_BYTES_MAX = 65_536;
/** Commands that wait for a peer, and all others, that one connection has under way. */
const PENDING_MAX = 256;
/** Calls that wait for a place among those. */
const WAITING_MAX = 65_536;
/** How long a command that waits for no peer may take before the daemon is held to be stuck. */
export const PATIENCE_MS = 10_000;
/** Longest path that a Unix socket can have on every system. */
const PATH_BYTES_MAX = 103;

/** A line of the daemon, read. */
export type Json = Record<string, unknown>;

/** How a call is made. */
export interface CallOptions {
  /** Whether it waits for a peer. */
  slow?: boolean;
  /** How long its reply may take. */
  limit_ms?: number;
  signal?: AbortSignal | undefined;
}

/** How a connection is opened. */
export interface OpenOptions {
  path: string;
  consumer: string;
  token: string | undefined;
  /** Hears of each event, with the length of its line in bytes. It must not throw. */
  onEvent: (event: Json, bytes: number) => void;
  /** Hears of the end, once. */
  onEnd: (error: AxonError) => void;
}

interface Pending {
  resolve: (reply: Json) => void;
  reject: (error: AxonError) => void;
  places: Places;
}

/** One connection to the daemon, after its hello. It ends once, and stays ended. */
export class Connection {
  readonly #socket: Socket;
  readonly #options: OpenOptions;
  readonly #reader = new LineReader();
  readonly #pending = new Map<string, Pending>();
  readonly #slow = new Places(PENDING_MAX);
  readonly #quick = new Places(PENDING_MAX);
  #calls = 0;
  /** An error that was addressed to nobody: the likely reason of the end that follows it. */
  #lastWord: AxonError | undefined;
  #ended: AxonError | undefined;
  #welcome: Welcome | undefined;

  private constructor(socket: Socket, options: OpenOptions) {
    this.#socket = socket;
    this.#options = options;
    socket.on("data", (chunk: Buffer) => this.#read(chunk));
    socket.on("error", (error: NodeJS.ErrnoException) => this.#end(ofSystem(options.path, error)));
    socket.on("close", () => this.#end(closed()));
  }

  /** Connects, says hello, and shows the token if there is one. */
  static async open(options: OpenOptions): Promise<Connection> {
    const { path, consumer, token } = options;
    if (Buffer.byteLength(path) > PATH_BYTES_MAX) {
      const why = `its path is longer than ${PATH_BYTES_MAX} bytes, which a Unix socket cannot have`;
      throw new AxonError("io", `cannot talk to ${path}: ${why}; use a shorter root directory`);
    }
    const socket = await dial(path);
    const connection = new Connection(socket, options);
    try {
      const reply = await connection.call("hello", { version: IPC_VERSION, consumer });
      const welcome = reply as unknown as Welcome;
      if (welcome.version !== IPC_VERSION) {
        throw new AxonError(
          "unsupported_version",
          `the daemon speaks IPC version ${welcome.version} and this library ${IPC_VERSION}: ` +
            "start a newer daemon",
        );
      }
      connection.#welcome = welcome;
      if (token !== undefined) await connection.call("auth", { token });
      return connection;
    } catch (error) {
      connection.close();
      throw error;
    }
  }

  /** What the daemon said to hello. */
  get welcome(): Welcome {
    if (this.#welcome === undefined) throw closed();
    return this.#welcome;
  }

  /** Why it has ended, if it has. */
  get ended(): AxonError | undefined {
    return this.#ended;
  }

  /** Sends one command and gives its reply, without `ok` and `req_id`. */
  async call(cmd: string, fields: object, options: CallOptions = {}): Promise<Json> {
    const { slow = false, limit_ms = PATIENCE_MS, signal } = options;
    signal?.throwIfAborted();
    const id = String(++this.#calls);
    const line = encode(cmd, id, fields);
    const places = slow ? this.#slow : this.#quick;
    if (places.waiting >= WAITING_MAX) {
      throw new AxonError("overloaded", `${WAITING_MAX} calls wait already: await some of them first`);
    }
    await places.take(signal);
    if (this.#ended !== undefined) {
      places.give();
      throw this.#ended;
    }
    // The place is given back when the reply is there, even when nobody waits for it any more: the daemon
    // counts it until then.
    const reply = new Promise<Json>((resolve, reject) => this.#pending.set(id, { resolve, reject, places }));
    this.#socket.write(line);
    return orAborted(within(reply, limit_ms), signal);
  }

  /** Ends it. What waits for a reply fails. */
  close(): void {
    this.#end(closed());
  }

  #end(why: AxonError): void {
    if (this.#ended !== undefined) return;
    const error = this.#lastWord ?? why;
    this.#ended = error;
    this.#socket.destroy();
    for (const { reject, places } of this.#pending.values()) {
      places.give();
      reject(error);
    }
    this.#pending.clear();
    this.#options.onEnd(error);
  }

  #read(chunk: Buffer): void {
    if (this.#ended !== undefined) return;
    try {
      for (const line of this.#reader.push(chunk)) this.#take(line);
    } catch (error) {
      this.#end(error instanceof AxonError ? error : protocol(String(error)));
    }
  }

  #take({ text, bytes }: Line): void {
    const line = parse(text);
    if (typeof line["event"] === "string") {
      // Those of before hello are of another version's.
      if (this.#welcome !== undefined) this.#options.onEvent(line, bytes);
      return;
    }
    // Without `ok` it is a message as clients of version 1 get it: it came before our hello was read.
    if (typeof line["ok"] !== "boolean") return;
    const { ok, req_id, ...reply } = line;
    const failure = ok ? undefined : refused(reply);
    let id = typeof req_id === "string" ? req_id : undefined;
    if (id === undefined) {
      // The daemon could not read to whom it should answer: with a single call under way it is that one.
      const [only] = this.#pending.keys();
      if (this.#pending.size !== 1 || only === undefined) {
        this.#lastWord = failure;
        return;
      }
      id = only;
    }
    const waiting = this.#pending.get(id);
    if (waiting === undefined) return;
    this.#pending.delete(id);
    waiting.places.give();
    if (failure === undefined) waiting.resolve(reply);
    else waiting.reject(failure);
  }
}

function dial(path: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ path });
    const refuse = (error: NodeJS.ErrnoException): void => reject(ofSystem(path, error));
    socket.once("error", refuse);
    socket.once("connect", () => {
      socket.removeListener("error", refuse);
      resolve(socket);
    });
  });
}

function encode(cmd: string, id: string, fields: object): string {
  let line: string;
  try {
    line = `${JSON.stringify({ ...fields, cmd, req_id: id })}\n`;
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new AxonError("invalid_command", `this cannot be written as JSON: ${why}`);
  }
  if (Buffer.byteLength(line) > COMMAND_BYTES_MAX + 1) {
    throw new AxonError(
      "command_too_large",
      `the command is longer than ${COMMAND_BYTES_MAX} bytes: shorten it or split it`,
    );
  }
  return line;
}

function parse(text: string): Json {
  let line: unknown;
  try {
    line = JSON.parse(text);
  } catch {
    throw protocol("a line is not JSON");
  }
  if (typeof line !== "object" || line === null || Array.isArray(line)) throw protocol("a line is no object");
  return line as Json;
}

function refused({ error, message }: Json): AxonError {
  return new AxonError(
    typeof error === "string" ? error : "internal_error",
    typeof message === "string" ? message : "the daemon gave no reason: look at its log",
  );
}

function within(reply: Promise<Json>, limit_ms: number): Promise<Json> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      const secs = Math.round(limit_ms / 1000);
      const why = `the daemon did not answer within ${secs} s: see \`axon doctor\`, or start it again`;
      reject(new AxonError("stuck", why));
    }, limit_ms);
    reply.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}
