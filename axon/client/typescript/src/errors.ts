/**
 * What can go wrong, each with a sentence that says what to do.
 */

import { basename, dirname } from "node:path";

/** What a peer said when it refused: the payload of its `error`, and of which message. */
export interface Refusal {
  /** Whose word it is: the peer's agent id. */
  from: string;
  /** The message that it refused. */
  msg_id: string;
  /** Whether the same request may succeed later. */
  retryable: boolean;
  /** Not before so many milliseconds from then. */
  retry_after_ms?: number;
}

/**
 * A call that failed.
 *
 * `code` is for programs: one of the daemon's (`spec/IPC.md`, "Errors"), one of the peer's where
 * {@link AxonError.peer} is there, or one of this library: `no_daemon`, `io`, `closed`, `stuck`, `protocol`,
 * `declined` (the peer's agent does not take the work), `timeout` (also of a wait that took long enough).
 * `message` is for people, and says what to do.
 *
 * A call that was given an `AbortSignal` and is aborted rejects with the signal's reason instead, as
 * everywhere in Node.
 */
export class AxonError extends Error {
  /** A short code for programs. Treat one that you do not know like `internal_error`. */
  readonly code: string;
  /** There when a peer answered with an `error`. */
  readonly peer: Refusal | undefined;

  constructor(code: string, message: string, peer?: Refusal) {
    super(message);
    this.name = "AxonError";
    this.code = code;
    this.peer = peer;
  }

  /** Whether the connection to the daemon is over. The next call makes a new one. */
  get endsConnection(): boolean {
    return this.peer === undefined && ["no_daemon", "io", "closed", "protocol"].includes(this.code);
  }
}

/** The connection has ended before the reply.
 * @internal */
export function closed(): AxonError {
  return new AxonError(
    "closed",
    "the connection to the daemon ended before its reply, so what was asked may be done or not: " +
      "look, then try again",
  );
}

/** The daemon said what is not in the specification.
 * @internal */
export function protocol(what: string): AxonError {
  const why = `the daemon does not speak as expected (${what})`;
  return new AxonError("protocol", `${why}: are this library and the daemon of one version?`);
}

/** Nobody listens on the socket. Who has only a scoped one cannot start the daemon. */
function nobody(path: string): AxonError {
  const dir = dirname(path);
  const scoped = basename(dirname(dir)) === "sockets";
  return new AxonError(
    "no_daemon",
    scoped
      ? `nobody listens on ${path}: its daemon is down, or it was removed`
      : `no daemon runs on ${dir}: start one with \`axon --root ${dir} daemon\``,
  );
}

/** What the system said of the socket, as an error of ours.
 * @internal */
export function ofSystem(path: string, error: NodeJS.ErrnoException): AxonError {
  if (error.code === "ENOENT" || error.code === "ECONNREFUSED") return nobody(path);
  if (error.code === "ECONNRESET" || error.code === "EPIPE") return closed();
  return new AxonError("io", `cannot talk to ${path}: ${error.message}; check the path and who may use it`);
}

/** Whether trying again after a while may help. Otherwise something here must be changed first.
 * @internal */
export function passes(error: unknown): boolean {
  const lasting = [
    "auth_failed",
    "auth_required",
    "hello_required",
    "invalid_command",
    "not_authorized",
    "unsupported_version",
  ];
  return error instanceof AxonError && !lasting.includes(error.code);
}
