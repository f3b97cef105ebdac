/**
 * What an agent says to a request, and how it becomes a payload that a message can hold.
 */

import { AxonError } from "./errors.js";
import type { JsonObject } from "./types.js";

/** Longest payload, encoded: a message less the rest of its envelope and of the command that carries it. */
export const PAYLOAD_BYTES_MAX = 65_536 - 512;
/** How many bytes of text a token is taken for. */
const BYTES_PER_TOKEN = 4;
/** A summary made of data is no longer than this, in bytes. */
const SUMMARY_BYTES = 200;
/** Codes of the peer protocol by which the same request may succeed later. */
const RETRYABLE = ["overloaded", "internal", "timeout", "unhandled"];

type Content =
  | { is: "text"; summary: string; data: unknown; truncated: boolean }
  | { is: "payload"; fields: JsonObject }
  | { is: "error"; code: string; message: string };

/** A reply to a request: its kind and payload. */
export interface Reply {
  kind: "response" | "result" | "error";
  payload: JsonObject;
}

/** An agent's answer: a `response` to a query, the `result` of a delegation, or an error. */
export class Answer {
  readonly #content: Content;

  private constructor(content: Content) {
    this.#content = content;
  }

  /**
   * An answer in words, and the same for programs if there is something. The words are cut near the query's
   * `max_tokens`, and to what a message can hold; `truncated` says that they are not all there is.
   */
  static text(summary: string, more: { data?: unknown; truncated?: boolean } = {}): Answer {
    const { data = null, truncated = false } = more;
    return new Answer({ is: "text", summary, data, truncated });
  }

  /**
   * A payload of your own. Required fields that it lacks are filled in; an object without any field of an
   * answer becomes its `data`.
   */
  static payload(fields: object): Answer {
    return new Answer({ is: "payload", fields: { ...fields } });
  }

  /**
   * No answer: a code of the peer protocol or your own, and a sentence that says what to do instead. To a
   * query this is an `error`; a delegation, which was taken on, ends in a failed `result`.
   */
  static error(code: string, message: string): Answer {
    return new Answer({ is: "error", code, message });
  }

  /** What a handler gave back, as an answer. Throws where it is none. */
  static from(given: unknown): Answer {
    if (given instanceof Answer) return given;
    if (typeof given === "string") return Answer.text(given);
    if (typeof given === "object" && given !== null && !Array.isArray(given)) return Answer.payload(given);
    throw new TypeError("a handler must return a text, an object or an Answer");
  }

  /** The reply to a request of this kind (`query` or `delegate`). */
  reply(request: string, max_tokens?: number): Reply {
    const reply = this.#reply(request === "delegate", max_tokens);
    const bytes = encoded(reply.payload);
    if (bytes <= PAYLOAD_BYTES_MAX) return reply;
    const message = `the answer has ${bytes} bytes and a message holds ${PAYLOAD_BYTES_MAX}: ask for less`;
    return Answer.error("internal", message).#reply(request === "delegate");
  }

  #reply(work: boolean, max_tokens = 0): Reply {
    const content = this.#content;
    if (content.is === "text") return words(work, content, max_tokens);
    if (content.is === "payload") {
      if (work) return { kind: "result", payload: outcome(content.fields) };
      return { kind: "response", payload: response(content.fields) };
    }
    const { code, message } = content;
    if (work) {
      // The outcome is for people, the error for logs: both must say what went wrong.
      const said = fit(message, PAYLOAD_BYTES_MAX / 2 - 256);
      return { kind: "result", payload: { status: "failed", outcome: said, error: `${code}: ${said}` } };
    }
    const said = fit(message, PAYLOAD_BYTES_MAX - 256);
    return { kind: "error", payload: { code, message: said, retryable: RETRYABLE.includes(code) } };
  }
}

/** What an agent throws to answer with an error that the peer is to read. Other errors are not told. */
export class AnswerError extends AxonError {
  override name = "AnswerError";
}

/** The beginning of a text, at most this many bytes of UTF-8, whole characters only. */
export function truncate(text: string, bytes_max: number): string {
  return begin(text, bytes_max, (character) => Buffer.byteLength(character));
}

function words(work: boolean, said: Content & { is: "text" }, max_tokens: number): Reply {
  const data = said.data ?? null;
  const room = PAYLOAD_BYTES_MAX - encoded(data) - 128;
  const wished = max_tokens > 0 ? truncate(said.summary, max_tokens * BYTES_PER_TOKEN) : said.summary;
  const text = fit(wished, room);
  const cut = said.truncated || text.length < said.summary.length ? { truncated: true } : {};
  if (!work) return { kind: "response", payload: { data, summary: text, ...cut } };
  const more = data === null ? {} : { data };
  return { kind: "result", payload: { status: "completed", outcome: text, ...more, ...cut } };
}

function response(given: JsonObject): JsonObject {
  const fields = "data" in given || "summary" in given ? { ...given } : { data: given };
  const { summary, data = null } = fields as { summary?: unknown; data?: unknown };
  return { ...fields, data, summary: typeof summary === "string" ? summary : brief(summary ?? data) };
}

function outcome(given: JsonObject): JsonObject {
  const own = ["status", "outcome", "summary", "data"].some((field) => field in given);
  const fields: JsonObject = own ? { ...given } : { data: given };
  const said = fields["outcome"];
  const text = typeof said === "string" ? said : brief(said ?? fields["summary"] ?? fields["data"]);
  return { status: "completed", ...fields, outcome: text };
}

/** A value in few words. */
function brief(value: unknown): string {
  if (value === null || value === undefined) return "";
  const text = typeof value === "string" ? value : (JSON.stringify(value) ?? "");
  const cut = truncate(text, SUMMARY_BYTES);
  return cut.length < text.length ? `${cut}…` : text;
}

/** The beginning of a text that takes at most this many bytes as JSON. */
function fit(text: string, bytes_max: number): string {
  return begin(text, bytes_max, (character) => encoded(character) - 2);
}

function begin(text: string, bytes_max: number, bytes: (character: string) => number): string {
  // A unit of a text takes at most 6 bytes, so most texts need not be measured.
  if (6 * text.length <= bytes_max) return text;
  let sum = 0;
  let at = 0;
  for (const character of text) {
    sum += bytes(character);
    if (sum > bytes_max) return text.slice(0, at);
    at += character.length;
  }
  return text;
}

function encoded(value: unknown): number {
  return Buffer.byteLength(JSON.stringify(value) ?? "null");
}
