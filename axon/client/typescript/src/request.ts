/**
 * A request that an agent answers, and what is kept of it while it does.
 */

import { AxonError } from "./errors.js";
import type { InboundEvent, JsonObject, Message, Progress, Trust } from "./types.js";

/** Longest time that a timer of the runtime can be set for. */
const TIMER_MS_MAX = 2 ** 31 - 1;

/** Why a request needs no answer any more. */
export type EndReason =
  /** Its sender took it back. */
  | "cancelled"
  /** Its deadline has passed. */
  | "timeout"
  /** Its sender has gone, or somebody else has answered it. */
  | "peer_gone"
  /** The connection to the daemon was lost; only for queries, for work goes on. */
  | "disconnected"
  /** The agent stops. */
  | "stopped";

const WHY: Record<EndReason, string> = {
  cancelled: "its sender took it back",
  timeout: "its deadline has passed",
  peer_gone: "nobody waits for the answer any more",
  disconnected: "the connection to the daemon was lost",
  stopped: "the agent stops",
};

/** What the agent keeps of a request under way.
 * @internal */
export class Run {
  readonly request: Request;
  readonly #abort: AbortController;
  readonly #timer: NodeJS.Timeout | undefined;
  #stopped: () => void = () => undefined;
  /** Settles when the agent stops while this is under way. */
  readonly whenStopped: Promise<void>;
  /** Settles when the handler has returned. */
  settled: Promise<void> = Promise.resolve();
  ended: EndReason | undefined;
  /** Whether its sender has asked to stop it, and whether that came too late to be heeded. */
  cancelling: "no" | "asked" | "late" = "no";
  /** Whether the handler has returned, and its answer is being given. */
  answered = false;

  constructor(request: Request, abort: AbortController, deadline_ms: number | undefined) {
    this.request = request;
    this.#abort = abort;
    this.whenStopped = new Promise((resolve) => (this.#stopped = resolve));
    if (deadline_ms !== undefined && deadline_ms <= TIMER_MS_MAX) {
      this.#timer = setTimeout(() => this.end("timeout"), deadline_ms);
    }
  }

  /** It needs no answer any more. The first reason counts. */
  end(reason: EndReason): void {
    if (this.ended !== undefined) return;
    this.ended = reason;
    this.#signal(reason);
    if (reason === "stopped") this.#stopped();
  }

  /** Asks the handler to stop, and leaves it open whether it does. */
  cancel(): void {
    this.cancelling = "asked";
    this.#signal("cancelled");
  }

  /** All is said. */
  over(): void {
    clearTimeout(this.#timer);
  }

  #signal(reason: EndReason): void {
    if (!this.#abort.signal.aborted) this.#abort.abort(new AxonError(reason, WHY[reason]));
  }
}

/** A request to answer. */
export class Request {
  /** The whole message. */
  readonly message: Message;
  /** How far its sender is trusted. What an unknown one says is to be read as a stranger's words. */
  readonly trust: Trust;
  /** What its sender is called here, else what it calls itself. */
  readonly from_name: string | null;
  /** Whether the name is only what the sender claims: never decide by it. */
  readonly claimed: boolean;
  /** Whether it had waited for an agent. */
  readonly queued: boolean;
  /** Aborted when the request needs no answer any more; the reason is an {@link AxonError} that says why. */
  readonly signal: AbortSignal;
  /** When its answer is due, in Unix milliseconds, if there is a limit. */
  readonly deadline: number | undefined;
  /** @internal */
  readonly run: Run;
  readonly #progress: (progress: Progress) => Promise<boolean>;

  /** @internal */
  constructor(inbound: InboundEvent, progress: (progress: Progress) => Promise<boolean>) {
    const { envelope, trust, from_name, claimed = false, queued = false, deadline_ms } = inbound;
    const abort = new AbortController();
    this.message = envelope;
    this.trust = trust;
    this.from_name = from_name;
    this.claimed = claimed;
    this.queued = queued;
    this.signal = abort.signal;
    this.deadline = deadline_ms === undefined ? undefined : Date.now() + deadline_ms;
    this.run = new Run(this, abort, deadline_ms);
    this.#progress = progress;
  }

  /** Its id. */
  get id(): string {
    return this.message.id;
  }

  /** `query` or `delegate`. */
  get kind(): string {
    return this.message.kind;
  }

  /** Who sent it: an agent id, proven by the connection that it came on. */
  get from(): string {
    return this.message.from;
  }

  /** All that it says. */
  get payload(): JsonObject {
    return this.message.payload;
  }

  /** What is asked or to be done: the `question` or the `task`. */
  get subject(): string {
    return this.#text("question") ?? this.#text("task") ?? "";
  }

  /** What a query is about. */
  get domain(): string | undefined {
    return this.#text("domain");
  }

  /** How long the answer may be; undefined means any length. */
  get max_tokens(): number | undefined {
    const tokens = this.payload["max_tokens"];
    return typeof tokens === "number" && tokens > 0 ? tokens : undefined;
  }

  /** Why it needs no answer any more, if so. */
  get ended(): EndReason | undefined {
    return this.run.ended ?? (this.run.cancelling === "no" ? undefined : "cancelled");
  }

  /**
   * Tells the sender of a delegation how far it is, and gives whether it was told. Progress that cannot be
   * told now, or that its sender does not take, is left out; that is no error.
   */
  progress(progress: Progress): Promise<boolean> {
    return this.#progress(progress);
  }

  #text(field: string): string | undefined {
    const text = this.payload[field];
    return typeof text === "string" ? text : undefined;
  }
}
