/**
 * Client of the axon daemon's Unix socket.
 *
 * {@link Client} asks and listens; {@link Agent} turns functions into an agent that answers. What goes over
 * the socket is in `spec/IPC.md`, and fields have its names.
 *
 * @packageDocumentation
 */

export { Agent } from "./agent.js";
export type { AgentOptions, Answered, AnswerOptions, Handler } from "./agent.js";
export { Answer, AnswerError, truncate } from "./answer.js";
export type { Reply } from "./answer.js";
export { Client } from "./client.js";
export type {
  CallOptions,
  Delegated,
  DelegateOptions,
  DelegationFilter,
  NotifyOptions,
  OutboxFilter,
  QueryOptions,
  SendOptions,
  WaitOptions,
} from "./client.js";
export { AxonError } from "./errors.js";
export type { Refusal } from "./errors.js";
export type { EventStream } from "./events.js";
export type { InboxMessage, MessagesOptions, MessageStream } from "./messages.js";
export type { ConnectOptions } from "./options.js";
export type { EndReason, Request } from "./request.js";
export { topicMessage } from "./topics.js";
export type { ListenOptions, TopicMessage, TopicStream } from "./topics.js";
export type * from "./types.js";
