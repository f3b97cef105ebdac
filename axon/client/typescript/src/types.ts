/**
 * What is said over the socket. Fields have the names of `spec/IPC.md`, and what the daemon says is given as
 * it came, with fields that this library does not know.
 */

/** How far a peer is trusted. */
export type Trust = "blocked" | "unknown" | "known" | "trusted";

/** How far a message has come. */
export type SendState = "held" | "sent" | "delivered" | "read" | "expired" | "refused" | "cancelled";

/** How far a delegation is. The last six are ends. */
export type DelegationState =
  | "held"
  | "sent"
  | "queued"
  | "accepted"
  | "running"
  | "completed"
  | "partial"
  | "failed"
  | "cancelled"
  | "refused"
  | "expired";

/** A JSON object. */
export type JsonObject = { [field: string]: unknown };

/** The daemon's reply to hello. */
export interface Welcome {
  version: number;
  daemon_max_version: number;
  /** Who this daemon is. */
  agent_id: string;
  /** What else it can do. */
  features: string[];
  daemon_version: string;
}

/** Who this daemon is. */
export interface Whoami {
  agent_id: string;
  /** Standard base64 of the 32-byte key. */
  public_key: string;
  name?: string;
  version: string;
  ipc_version: number;
  uptime_secs: number;
  /** Where it listens for peers. */
  listen: string[];
  pid: number;
  root?: string;
}

/** What the daemon counts. */
export interface Status {
  uptime_secs: number;
  peers_connected: number;
  messages_sent: number;
  messages_received: number;
  clients: number;
  answerers: number;
  active_tasks: number;
  capacity: number;
  open_requests: number;
  queued: number;
  /** Messages that this consumer has not acknowledged. */
  inbox_unread: number;
  /** Whether all inbound work is paused. */
  paused: boolean;
  set_aside: number;
  knocks: number;
  invites: number;
  strangers: number;
  /** Messages that were turned away, by reason. */
  dropped: Record<string, number>;
}

/** A peer that the daemon knows. */
export interface Peer {
  id: string;
  name?: string;
  /** Whether the name is only what the peer claims. */
  claimed?: boolean;
  addr: string | null;
  status: "connected" | "connecting" | "disconnected";
  /** Round trip in milliseconds. */
  rtt_ms: number | null;
  source: "static" | "contact" | "mdns" | "cached";
  trust: Trust;
  paused?: boolean;
  /** Since when it is connected, in Unix milliseconds. */
  since_ms?: number;
  features?: string[];
  /** Whether its hello travelled in 0-RTT. */
  early?: boolean;
  /** Why it is not connected. */
  error?: string;
}

/** A message between agents: the envelope of `spec/WIRE_FORMAT.md`. */
export interface Message<Payload = JsonObject> {
  v: number;
  id: string;
  /** Who sent it; proven by the connection that it came on. */
  from: string;
  to: string;
  /** When it was made, in Unix milliseconds. */
  ts: number;
  kind: string;
  /** The message that this one answers. */
  ref?: string;
  payload: Payload;
}

/** The payload of an answer to a query. */
export interface ResponsePayload {
  /** The answer for programs; null when there is only text. */
  data: unknown;
  /** The answer as text. */
  summary: string;
  tokens_used?: number;
  /** Whether it was cut to `max_tokens`. */
  truncated?: boolean;
}

/** What a peer's agents say they can do. All of it is claims. */
export interface Capabilities {
  agent_name?: string;
  domains?: string[];
  channels?: string[];
  tools?: string[];
  max_concurrent_tasks?: number;
  model?: string;
  [field: string]: unknown;
}

/** What a peer's daemon says to a ping. */
export interface Pong {
  status: "idle" | "busy" | "overloaded";
  uptime_secs: number;
  active_tasks: number;
  agent_name?: string;
}

/** How far the work of a delegation is. */
export interface Progress {
  /** `accepted` or `running`; a daemon also says `queued`. `running` when it is left out. */
  state?: "queued" | "accepted" | "running";
  /** 0 to 100. */
  percent?: number;
  /** One sentence for a reader. */
  note?: string;
  /** How long it may still take. */
  eta_ms?: number;
}

/** What came of a delegation. */
export interface ResultPayload {
  status: "completed" | "partial" | "failed";
  /** As text. */
  outcome: string;
  /** For programs. */
  data?: unknown;
  /** What went wrong. */
  error?: string;
}

/** What came of a `send`. */
export interface Sent {
  /** The message's id. */
  msg_id: string;
  /** The peer's answer, for a kind that is answered. It may be of kind `error`. */
  response?: Message;
  /** How far it has come, for a kind that is not answered and for what may be held. */
  state?: SendState;
}

/** What became of a `cancel`. */
export interface Cancelled {
  /** Whether the work is stopped, or never left. */
  accepted: boolean;
  /** Why not. */
  reason?: string;
}

/** What is known of a message's sender beside its id. */
export interface Sender {
  trust: Trust;
  /** What it is called here, else what it calls itself. */
  from_name: string | null;
  /** Whether the name is only what it claims: never decide by it. */
  claimed?: boolean;
}

/** One kept message. */
export interface Row extends Sender {
  /** Its number; numbers only grow. */
  seq: number;
  /** When it came, in Unix milliseconds. */
  buffered_at_ms: number;
  envelope: Message;
}

/** A part of the inbox, from this consumer's cursor on. */
export interface Inbox {
  /** Oldest first. */
  messages: Row[];
  /** The number of the last of them: what to acknowledge. */
  next_seq: number | null;
  has_more: boolean;
  /** Messages below this number went out of the inbox unread. Told until an acknowledgement goes past it. */
  lost_before_seq?: number;
}

/** One message of the outbox. */
export interface Outgoing {
  id: string;
  to: string;
  kind: string;
  state: SendState;
  /** Since when it is in that state, in Unix milliseconds. */
  since_ms: number;
  /** Until when it is held, in Unix milliseconds. */
  expires_ms: number;
  /** How often it has left. */
  attempts: number;
  /** Why it is in this state. */
  reason?: string;
}

/** A part of the outbox. */
export interface Outbox {
  /** Oldest first. */
  outbox: Outgoing[];
  has_more: boolean;
}

/** One delegation, as the daemon's ledger has it. */
export interface Delegation {
  id: string;
  /** The other side. */
  peer: string;
  /** `out`: given away; `in`: taken in. */
  direction: "in" | "out";
  /** What is to be done. An event does not repeat it. */
  task?: string;
  priority: string;
  state: DelegationState;
  /** Since when it is in that state, in Unix milliseconds. */
  since_ms: number;
  /** When its result is due, in Unix milliseconds. */
  deadline_ms?: number;
  progress?: Progress;
  result?: ResultPayload;
  /** Why it is in this state. */
  reason?: string;
}

/** A part of the ledger of delegations. */
export interface Delegations {
  /** Newest first. */
  delegations: Delegation[];
  has_more: boolean;
}

/** How a topic is subscribed to. */
export interface TopicSubscription {
  /** True: it is the consumer's, and what comes waits in the inbox; else it ends with the connection. */
  kept?: boolean;
  /** Whose messages: of this agent and its peers, or of anybody; `peers` when left out. */
  from?: "peers" | "any";
  /** True: begin with what was kept here before. */
  history?: boolean;
}

/** The daemon's reply to `subscribe_topic`. */
export interface TopicSubscribed {
  subscribed: string;
  /** Connected peers that offer topics. */
  neighbours: number;
  /** Its messages have this number or higher ones. */
  since_seq: number;
}

/** What came of `publish`. */
export interface Published {
  /** The message's number among all that this agent has published. */
  seq: number;
  neighbours: number;
  subscribers: number;
}

/** What the daemon has to do with topics. */
export interface Topics {
  /** Of all agents here. Times are Unix milliseconds. */
  subscriptions: {
    topic: string;
    kept: boolean;
    from: "peers" | "any";
    history: boolean;
    /** Whose it is, where it is kept. */
    consumer?: string;
    since_ms: number;
  }[];
  /** What is kept. */
  keeps: { topic: string; last?: number | null; hours?: number | null; messages: number; bytes: number }[];
  /** What is passed on though nobody here has subscribed. */
  relay: string[];
  /** Topics of which messages came or went since the daemon started. */
  seen: { topic: string; messages: number; publishers: number; last_ms: number }[];
}

/** A connected peer that offers topics. */
export interface TopicPeer {
  id: string;
  name?: string;
  /** What it wants. */
  filters: string[];
  /** Of what it keeps the history. */
  keeps: string[];
  /** Trees in which it is told of messages, and given them when it asks. */
  lazy: number;
}

/** What an agent says of what it can do and where it is. */
export interface Said {
  /** The digest of its capabilities: another one when they have changed. */
  capabilities: string;
  domains: string[];
  tools: string[];
  /** Where it may be reached, best first. */
  addrs: string[];
  /** There is more, which `discover` tells. */
  more?: true;
}

/** How a peer is, as far as the daemon knows. */
export interface Presence extends Partial<Said> {
  id: string;
  name?: string;
  /** True: only it calls itself so. */
  claimed?: true;
  /** Whether a connection with it is up. */
  connected: boolean;
  /** `idle`, `busy`, `away`, `dnd`, `offline`, `unknown`, or a word of a later version. */
  status: string;
  since_ms?: number;
  /** How sure one may be that it has gone; above 8 it counts as gone. */
  phi?: number;
  /** How long ago it said so. */
  age_ms?: number;
}

/** An agent that was found, perhaps one that is no peer. */
export interface FoundAgent extends Said {
  id: string;
  public_key: string;
  /** How far away it is; 1: a neighbour. */
  hops: number;
  status: string;
  ts_ms: number;
  name?: string;
  claimed?: true;
  /** Its level, where it is a peer. */
  trust?: string;
  /** For `axon connect`. */
  link?: string;
}

/** Whom to find: an agent, or what it can do. */
export interface FindOptions {
  /** Its id, or the name of a peer; then neither `domain` nor `tool`. */
  id?: string;
  domain?: string;
  tool?: string;
  /** How far away at most, 1 to 5; 2 when left out. */
  hops?: number;
}

/** A knock that waits for the owner. */
export interface Knock {
  id: string;
  agent_id: string;
  /** What it calls itself. */
  name?: string;
  claimed: boolean;
  intent?: { category: string; action: string };
  session?: string;
  message?: string;
  at_ms: number;
  /** For a new key of a peer: the id that it had. */
  rekey_of?: string;
}

/** What a client wants to be told, and what it answers by hand. A second subscription replaces the first. */
export interface Subscription {
  /** Only messages of these kinds. Left out: all, or none when `answer` is given. */
  kinds?: string[];
  /** Whether to begin with what this consumer has not acknowledged; true when left out. */
  replay?: boolean;
  /** Requests that this client answers, with `reply`. */
  answer?: ("query" | "delegate" | "cancel")[];
  /** Domains of queries that it answers; left out: all. */
  domains?: string[];
  /** How many requests it holds at once; 16 when left out. */
  capacity?: number;
  /** Whether requests stay its own after its connection has ended. */
  lease?: boolean;
}

/** The daemon's reply to `subscribe`. The replayed messages came before it. */
export interface Subscribed {
  subscribed: true;
  replayed: number;
  replay_to_seq: number;
  /** Messages below this number went out of the inbox unread. */
  lost_before_seq?: number;
}

/** A message from a peer, for who subscribed. */
export interface InboundEvent extends Row {
  event: "inbound";
  /** Whether it was there before the subscription. */
  replay: boolean;
  /** True: this client is to answer it. */
  answer?: boolean;
  /** How much time is left to answer, if there is a limit. */
  deadline_ms?: number;
  /** True: it had waited for somebody to answer it. */
  queued?: boolean;
}

/** Messages came faster than they were taken: read on with `inbox`. Live ones follow after that. */
export interface SlowConsumerEvent {
  event: "slow_consumer";
  /** The first message that was not delivered. */
  resume_from_seq: number;
}

/** A request that was handed to this client needs no answer any more. */
export interface WithdrawnEvent {
  event: "withdrawn";
  ref: string;
  /** `timeout`, `cancelled`, `peer_gone`, `answered`. */
  reason: string;
}

/** A message of this client has come further. */
export interface DeliveryEvent {
  event: "delivery";
  id: string;
  state: SendState;
  reason?: string;
}

/** A delegation has changed. */
export interface DelegationEvent {
  event: "delegation";
  /** Its row, without `task`. */
  delegation: Delegation;
}

/** A stranger has knocked, or a peer has a new key, and the owner is to decide. */
export interface KnockEvent extends Knock {
  event: "knock";
}

/** A peer has come, gone, or says that it is otherwise. */
export interface PresenceEvent {
  event: "presence";
  change: "online" | "offline" | "status";
  peer: Presence;
}

/** Some events were not told: ask for what is wanted again. Those that follow are told. */
export interface MissedEvent {
  event: "missed";
  /** `overflow`: they came faster than they were taken; `reconnected`: the daemon was away. */
  why: "overflow" | "reconnected";
}

/** An event that this library does not know. */
export interface OtherEvent {
  event: "other";
  /** What the daemon calls it. */
  name: string;
  /** The whole line. */
  line: JsonObject;
}

/** What the daemon tells without being asked. */
export type Event =
  | InboundEvent
  | SlowConsumerEvent
  | WithdrawnEvent
  | DeliveryEvent
  | DelegationEvent
  | KnockEvent
  | PresenceEvent
  | MissedEvent
  | OtherEvent;
