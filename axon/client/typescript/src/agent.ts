/**
 * An agent: functions that answer what peers ask, with the bookkeeping around them.
 *
 * A query is answered when its function returns. A delegation is taken on at once and its result sent when
 * the function returns, over a new connection if the daemon was restarted meanwhile.
 */

import { Answer, AnswerError, type Reply } from "./answer.js";
import type { Connection, Json } from "./connection.js";
import { AxonError, closed } from "./errors.js";
import { read } from "./events.js";
import { Link } from "./link.js";
import { address, type ConnectOptions } from "./options.js";
import { Request, type EndReason, type Run } from "./request.js";
import type { Capabilities, InboundEvent, WithdrawnEvent } from "./types.js";
import { Places, settles, sleep } from "./waiting.js";

/** How many requests an agent takes at once when it does not say. */
const CAPACITY = 16;
/** Requests that the daemon may have handed out: its largest capacity, and those that were taken back. */
const RUNS_MAX = 2048;
/** How long work may take to stop when it is cancelled, before its sender is told that it does not. */
const CANCEL_MS = 5_000;
/** The last words of an agent that stops are given this long. */
const STOP_MS = 3_000;
/** How often, and how far apart, a result is given to a daemon that has no room for it. */
const RETRY = { times: 120, ms: 5_000 };
/** A `reply` that waits for the peer's receipt. */
const RECEIPT_MS = 40_000;

/** Why progress is left out: its sender takes none, or cannot take it now. */
const UNTOLD = ["not_offered", "not_authorized", "overloaded", "peer_unreachable", "stuck", "timeout"];
/** The answer of an agent whose handler threw. The peer is not told what. */
const FELL = Answer.error("internal", "the agent failed on this request: ask it something else");

/** What a handler may return: a text, an object (see {@link Answer.payload}) or an {@link Answer}. */
export type Answered = string | object;

/** A function that answers a request. */
export type Handler = (request: Request) => Answered | Promise<Answered>;

/** Which requests a handler answers. */
export interface AnswerOptions {
  /** Only queries of these domains; `family` covers `family.calendar`. The narrowest handler is taken. */
  domains?: string[];
  /**
   * Whether a delegation is taken on: called before its handler. False or a reason declines it.
   */
  accept?: (request: Request) => boolean | string | Promise<boolean | string>;
}

/** How an agent is made. */
export interface AgentOptions extends ConnectOptions {
  /** How many requests it takes at once, 1 to 1024; 16 when left out. */
  capacity?: number;
  /** Whether requests stay its own while it is not connected, until their deadline. */
  lease?: boolean;
  /** What `discover` says of it. */
  capabilities?: Capabilities;
  /** Called each time that it is attached and requests can come. */
  onAttached?: () => void;
  /** Called when the connection to the daemon was lost; the agent connects again by itself. */
  onLost?: (error: AxonError) => void;
  /**
   * Called when a handler failed, and when an answer or result could not be given. The peer is told no more
   * than that the agent failed. Without it a warning is emitted on `process`.
   */
  onError?: (error: unknown, request: Request) => void;
}

interface Entry {
  kind: "query" | "delegate";
  options: AnswerOptions;
  handler: Handler;
}

/**
 * A program that answers requests of peers. It has a connection of its own, and comes back by itself when the
 * daemon does.
 */
export class Agent {
  readonly #options: AgentOptions;
  readonly #entries: Entry[] = [];
  readonly #runs = new Map<string, Run>();
  readonly #tasks = new Set<Promise<void>>();
  readonly #places: Places;
  readonly #link: Link;
  /** The present connection, also while it is being made ready. */
  #connection: Connection | undefined;
  readonly #over: Promise<void>;
  #end: (error?: unknown) => void = () => undefined;
  #started: Promise<void> | undefined;
  #stopping: Promise<void> | undefined;

  /** An agent on the socket that the options name. Add handlers with {@link Agent.answer}, then start it. */
  constructor(options: AgentOptions = {}) {
    this.#options = options;
    this.#places = new Places(options.capacity ?? CAPACITY);
    this.#over = new Promise((resolve, reject) => {
      this.#end = (error) => (error === undefined ? resolve() : reject(error));
    });
    // Who does not wait for the end does not want to hear of it.
    this.#over.catch(() => undefined);
    this.#link = new Link(address(options), {
      onEvent: (line) => this.#event(line),
      onUp: (connection) => this.#up(connection),
      onDown: (error) => this.#down(error),
      wanted: () => true,
      onFatal: (error) => this.#fatal(error),
    });
  }

  /** Has this function answer requests of this kind. */
  answer(kind: "query" | "delegate", handler: Handler): this;
  /** Has this function answer requests of this kind, as the options say. */
  answer(kind: "query" | "delegate", options: AnswerOptions, handler: Handler): this;
  answer(kind: "query" | "delegate", first: Handler | AnswerOptions, second?: Handler): this {
    if (this.#started !== undefined) throw misuse("this agent has started: add handlers before");
    const [options, handler] = typeof first === "function" ? [{}, first] : [first, second];
    if (handler === undefined) throw misuse("an answer needs a function");
    this.#entries.push({ kind, options, handler });
    return this;
  }

  /** Attaches the agent. Resolves when requests can come; rejects when the daemon is not there. */
  start(signal?: AbortSignal): Promise<void> {
    if (this.#entries.length === 0) {
      return Promise.reject(misuse("this agent answers nothing: add a handler"));
    }
    this.#started ??= this.#link.first(signal).then(
      () => undefined,
      (error) => {
        this.#started = undefined;
        throw error;
      },
    );
    return this.#started;
  }

  /**
   * Attaches the agent and answers until the signal comes or {@link Agent.stop} is called; resolves then.
   * Rejects when the daemon is not there at the beginning, and when trying again is of no use.
   */
  async serve(options: { signal?: AbortSignal } = {}): Promise<void> {
    const { signal } = options;
    const stop = (): void => void this.stop();
    if (signal?.aborted) return;
    signal?.addEventListener("abort", stop, { once: true });
    try {
      await this.start();
      await this.#over;
    } catch (error) {
      if (!signal?.aborted) throw error;
      await this.#stopping;
    } finally {
      signal?.removeEventListener("abort", stop);
    }
  }

  /**
   * Stops. Requests under way are told so, and have a few seconds for their last words; a delegation that has
   * none then ends as failed. What had not begun is the daemon's again, for another agent.
   */
  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  async #stop(): Promise<void> {
    for (const run of this.#runs.values()) run.end("stopped");
    if (this.#link.live !== undefined) await settles(Promise.all(this.#tasks), STOP_MS + 1_000);
    this.#link.close();
    this.#end();
  }

  #fatal(error: unknown): void {
    for (const run of this.#runs.values()) run.end("stopped");
    this.#end(error);
  }

  async #up(connection: Connection): Promise<void> {
    const { capabilities, capacity = CAPACITY, lease = false } = this.#options;
    this.#connection = connection;
    if (capabilities !== undefined) await connection.call("advertise", { capabilities });
    const answer = new Set<string>(this.#entries.map((entry) => entry.kind));
    // Who takes work must hear when it is taken back.
    if (answer.has("delegate")) answer.add("cancel");
    const queries = this.#entries.filter((entry) => entry.kind === "query");
    const all = queries.some(({ options }) => options.domains === undefined);
    const domains = all ? [] : [...new Set(queries.flatMap(({ options }) => options.domains ?? []))];
    const some = domains.length > 0 ? { domains } : {};
    await connection.call("subscribe", { answer: [...answer], ...some, capacity, lease });
    this.#options.onAttached?.();
  }

  #down(error: AxonError): void {
    this.#connection = undefined;
    // A query that was not answered goes to somebody else, or fails; work goes on.
    for (const run of this.#runs.values()) {
      if (run.request.kind === "query" && this.#options.lease !== true) run.end("disconnected");
    }
    this.#options.onLost?.(error);
  }

  #event(line: Json): void {
    const event = read(line);
    if (event.event === "withdrawn") this.#withdrawn(event);
    else if (event.event === "inbound" && event.answer === true) this.#take(event);
  }

  #withdrawn({ ref, reason }: WithdrawnEvent): void {
    const known: Record<string, EndReason> = { timeout: "timeout", cancelled: "cancelled" };
    this.#runs.get(ref)?.end(known[reason] ?? "peer_gone");
  }

  #take(inbound: InboundEvent): void {
    const { envelope } = inbound;
    const running = this.#runs.get(envelope.id);
    if (envelope.kind === "cancel") return this.#spawn(this.#cancel(envelope.id, envelope.ref));
    if (running !== undefined && running.ended === undefined) {
      // The daemon was restarted and hands out again what is still being worked on.
      return this.#spawn(this.#reply(envelope.id, "ack", { accepted: true }));
    }
    if (this.#runs.size >= RUNS_MAX) {
      const message = "this agent has too much under way: try again later";
      const refusal = { code: "overloaded", message, retryable: true };
      return this.#spawn(this.#reply(envelope.id, "error", refusal));
    }
    const request = new Request(inbound, (progress) => this.#progress(envelope.id, progress));
    const run = request.run;
    this.#runs.set(envelope.id, run);
    if (this.#stopping !== undefined) run.end("stopped");
    const done = this.#run(run).finally(() => {
      run.over();
      if (this.#runs.get(envelope.id) === run) this.#runs.delete(envelope.id);
    });
    this.#spawn(done);
  }

  #spawn(task: Promise<unknown>): void {
    const done = task.then(
      () => undefined,
      // What can fail here and matters was told where it failed.
      () => undefined,
    );
    this.#tasks.add(done);
    void done.finally(() => this.#tasks.delete(done));
  }

  async #run(run: Run): Promise<void> {
    const { request } = run;
    const entry = this.#entry(request);
    if (entry === undefined) {
      const refusal = { code: "unhandled", message: "this agent does not answer it", retryable: false };
      return this.#reply(request.id, "error", refusal);
    }
    if (request.kind === "delegate" && !(await this.#accepted(run, entry))) return;
    // A handler that does not listen to its end keeps its place until it returns: so many run at most.
    if (!this.#places.takeNow()) await this.#places.take();
    try {
      if (run.ended === undefined) await this.#work(run, entry);
    } finally {
      this.#places.give();
    }
  }

  /** Takes a delegation on, or declines it. */
  async #accepted(run: Run, entry: Entry): Promise<boolean> {
    const { request } = run;
    try {
      const verdict = await (entry.options.accept?.(request) ?? true);
      if (run.ended !== undefined) return false;
      const reason = typeof verdict === "string" ? verdict : "the agent does not take this";
      const payload = verdict === true ? { accepted: true } : { accepted: false, reason };
      // One that had waited was acked by the daemon already, and goes on all the same.
      await this.#reply(request.id, "ack", payload).catch((error) => {
        if (!request.queued) throw error;
      });
      return verdict === true;
    } catch (error) {
      this.#failed(error, request);
      if (!(error instanceof AxonError)) await this.#give(FELL, run);
      return false;
    }
  }

  async #work(run: Run, entry: Entry): Promise<void> {
    const { request } = run;
    // In a function of its own, so that one that throws at once fails in the same way.
    const working = (async () => Answer.from(await entry.handler(request)))();
    run.settled = working.then(
      () => undefined,
      () => undefined,
    );
    const tooLong = run.whenStopped.then(() => settles(run.settled, STOP_MS)).then(() => undefined);
    let answer = await Promise.race([working, tooLong]).catch((error) => this.#fell(error, run));
    if (run.cancelling === "asked") run.end("cancelled");
    if (run.ended === "stopped" && request.kind === "delegate") {
      answer ??= Answer.error("internal", "the agent was stopped before the work was done");
    } else if (run.ended !== undefined && run.ended !== "stopped") {
      // The daemon has told the peer, or hands the query to somebody else.
      return;
    }
    if (answer === undefined) return;
    run.answered = true;
    await this.#give(answer, run);
    await run.settled;
  }

  /** What is answered for a handler that threw. */
  #fell(error: unknown, run: Run): Answer | undefined {
    if (error instanceof AnswerError) return Answer.error(error.code, error.message);
    if (run.ended !== undefined || run.cancelling === "asked") return undefined;
    if (run.cancelling === "late" && error === run.request.signal.reason) {
      return Answer.error("cancelled", "stopped, as its sender asked");
    }
    this.#failed(error, run.request);
    return FELL;
  }

  async #give(answer: Answer, { request }: Run): Promise<void> {
    try {
      const { kind, payload } = this.#written(answer, request);
      if (kind === "result") await this.#result(request.id, payload);
      else await this.#reply(request.id, kind, payload);
    } catch (error) {
      this.#failed(error, request);
    }
  }

  #written(answer: Answer, request: Request): Reply {
    try {
      return answer.reply(request.kind, request.max_tokens);
    } catch (error) {
      // What cannot be written as JSON.
      this.#failed(error, request);
      return FELL.reply(request.kind);
    }
  }

  #failed(error: unknown, request: Request): void {
    const { onError } = this.#options;
    if (onError !== undefined) return onError(error, request);
    const why = error instanceof Error ? (error.stack ?? error.message) : String(error);
    const warning = `the ${request.kind} ${request.id}: ${why}`;
    process.emitWarning(warning, { type: "AxonWarning", code: "AXON_AGENT" });
  }

  async #cancel(id: string, ref: string | undefined): Promise<void> {
    const run = ref === undefined ? undefined : this.#runs.get(ref);
    if (run === undefined || run.ended !== undefined || run.answered) {
      const reason = "this work is finished or was never here";
      return this.#reply(id, "ack", { accepted: false, reason });
    }
    run.cancel();
    // So that "cancelled" is true when it is said.
    if (await settles(run.settled, CANCEL_MS)) {
      run.end("cancelled");
      return this.#reply(id, "ack", { accepted: true });
    }
    run.cancelling = "late";
    const reason = "this work does not stop before it is done";
    return this.#reply(id, "ack", { accepted: false, reason });
  }

  async #progress(ref: string, progress: object): Promise<boolean> {
    const connection = this.#connection;
    if (connection === undefined) return false;
    const payload = { state: "running", ...progress };
    try {
      const limits = { slow: true, limit_ms: RECEIPT_MS };
      await connection.call("reply", { ref, kind: "progress", payload }, limits);
      return true;
    } catch (error) {
      // Progress that cannot be told now is left out: the result says the rest.
      const left = error instanceof AxonError && (error.endsConnection || UNTOLD.includes(error.code));
      if (left) return false;
      throw error;
    }
  }

  async #reply(ref: string, kind: string, payload: object): Promise<void> {
    const connection = this.#connection;
    if (connection === undefined) throw closed();
    await connection.call("reply", { ref, kind, payload });
  }

  /** Gives a result, over as many connections as it takes. */
  async #result(ref: string, payload: object): Promise<void> {
    let before = false;
    for (let tries = RETRY.times; ; ) {
      const connection = await this.#link.ready();
      try {
        const limits = { slow: true, limit_ms: RECEIPT_MS };
        await connection.call("reply", { ref, kind: "result", payload }, limits);
        return;
      } catch (error) {
        if (!(error instanceof AxonError) || this.#link.isClosed) throw error;
        // It had arrived, and the word of that was lost.
        if (before && error.code === "already_answered") return;
        if (error.endsConnection) before = true;
        else if (error.code === "overloaded" && tries > 0 && this.#stopping === undefined) {
          tries -= 1;
          await sleep(RETRY.ms);
        } else throw error;
      }
    }
  }

  /** The handler for a request: of the narrowest domain that covers it. */
  #entry(request: Request): Entry | undefined {
    const { kind, domain } = request;
    let best: Entry | undefined;
    let labels = -1;
    for (const entry of this.#entries.filter((one) => one.kind === kind)) {
      const covering = covers(entry.options.domains, kind === "query" ? domain : undefined);
      if (covering > labels) [best, labels] = [entry, covering];
    }
    return best;
  }
}

/** How many labels the narrowest of these domains has that covers this one; -1: none does. */
function covers(domains: string[] | undefined, domain: string | undefined): number {
  if (domains === undefined || domain === undefined) return 0;
  const fitting = domains.filter((one) => domain === one || domain.startsWith(`${one}.`));
  return Math.max(-1, ...fitting.map((one) => one.split(".").length));
}

function misuse(message: string): AxonError {
  return new AxonError("invalid_command", message);
}
