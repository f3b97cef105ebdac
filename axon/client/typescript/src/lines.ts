/**
 * Bytes into lines.
 */

import { protocol } from "./errors.js";

/** Longest line taken from the daemon: an inbox reply, with room for the row that goes beyond its bound. */
export const LINE_BYTES_MAX = 2 * 1_048_576;

/** A line, and how many bytes it had. */
export interface Line {
  text: string;
  bytes: number;
}

/** Cuts a stream of bytes into lines. Characters may be cut between chunks: only whole lines are decoded. */
export class LineReader {
  readonly #decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  #begun: Uint8Array[] = [];
  #bytes = 0;

  /** The lines that end in this chunk. Throws when one is too long or not UTF-8. */
  push(chunk: Uint8Array): Line[] {
    const lines: Line[] = [];
    let start = 0;
    for (;;) {
      const end = chunk.indexOf(0x0a, start);
      const piece = chunk.subarray(start, end < 0 ? chunk.length : end);
      this.#bytes += piece.length;
      if (this.#bytes > LINE_BYTES_MAX) throw protocol("a line is too long");
      if (piece.length > 0) this.#begun.push(piece);
      if (end < 0) return lines;
      lines.push(this.#whole());
      start = end + 1;
    }
  }

  #whole(): Line {
    const [only] = this.#begun;
    const all = this.#begun.length === 1 && only !== undefined ? only : Buffer.concat(this.#begun);
    this.#begun = [];
    this.#bytes = 0;
    try {
      return { text: this.#decoder.decode(all), bytes: all.length };
    } catch {
      throw protocol("a line is not UTF-8");
    }
  }
}
