/**
 * Where the daemon is, and who asks.
 */

import { homedir } from "node:os";
import { join } from "node:path";

import type { Address } from "./link.js";

/** How a client or agent finds its daemon. */
export interface ConnectOptions {
  /**
   * The daemon's socket, or a scoped one. Left out: `$AXON_SOCKET`, else `axon.sock` in `$AXON_ROOT`, else in
   * `~/.axon`.
   */
  socket?: string;
  /** Whose cursor in the inbox it uses; at most 64 bytes, `default` when left out. */
  consumer?: string;
  /** Content of `ipc-token` in the root; only needed where the daemon cannot see who connects. */
  token?: string;
}

/** Where the options lead.
 * @internal */
export function address({ socket, consumer = "default", token }: ConnectOptions): Address {
  const { AXON_SOCKET, AXON_ROOT } = process.env;
  const path = socket ?? (AXON_SOCKET || join(AXON_ROOT || join(homedir(), ".axon"), "axon.sock"));
  return { path, consumer, token };
}
