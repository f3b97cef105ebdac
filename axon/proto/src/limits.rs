//! Every bound of the protocol, by name and with its unit. Source: `spec/WIRE_FORMAT.md`, "Limits".

/// Version of the network protocol that this crate speaks.
pub const PROTOCOL_VERSION: u32 = 1;
/// ALPN protocol name.
pub const ALPN: &[u8] = b"axon/1";
/// Highest IPC version that the daemon speaks.
pub const IPC_VERSION: u32 = 2;
/// UDP port when none is configured.
pub const PORT_DEFAULT: u16 = 7100;

/// Encoded envelope, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 65_536;
/// A client's command line without its newline, in bytes.
pub const LINE_BYTES_MAX: usize = 65_536;
/// How much longer than the envelope it carries a line from the daemon may be, in bytes.
pub const LINE_OVERHEAD_BYTES_MAX: usize = 1_024;
/// Objects and lists inside one another, the envelope's own two included.
pub const DEPTH_MAX: usize = 100;
/// A `kind`, in bytes.
pub const KIND_BYTES_MAX: usize = 64;
/// A claimed agent name, in bytes; longer ones are cut.
pub const NAME_BYTES_MAX: usize = 64;
/// Features of one hello that are remembered.
pub const FEATURES_MAX: usize = 64;
/// A feature's name, in bytes.
pub const FEATURE_BYTES_MAX: usize = 64;
/// A query's domain, in bytes.
pub const DOMAIN_BYTES_MAX: usize = 256;
/// A `boot` id, in bytes.
pub const BOOT_BYTES_MAX: usize = 64;

/// Awaited reply when the request names no deadline.
pub const REQUEST_TIMEOUT_MS: u64 = 30_000;
/// How much longer than the receiver the sender waits, so that the peer's own last word still arrives.
pub const REPLY_GRACE_MS: u64 = 300;
/// A found peer without news is forgotten after this.
pub const STALE_MS: u64 = 60_000;
/// How often stale peers are looked for.
pub const SWEEP_INTERVAL_MS: u64 = 5_000;
/// How often the peer cache is saved when nothing asked for it sooner.
pub const SAVE_INTERVAL_MS: u64 = 60_000;
/// First wait before a peer is dialled again; doubles up to `reconnect_max_backoff_secs`.
pub const BACKOFF_FIRST_MS: u64 = 1_000;
/// How long the higher id leaves redialling to the lower one.
pub const INITIATOR_WAIT_MS: u64 = 2_000;
/// A connection with a request in flight and no packet for this long is doubted.
pub const SILENCE_MS: u64 = 1_000;
/// A dial made beside a doubted connection ends after this.
pub const DOUBT_DIAL_MS: u64 = 3_000;
/// A superseded connection without streams is closed after this long without any.
pub const DRAIN_MS: u64 = 2_000;
/// How long a stop waits for what is in flight.
pub const SHUTDOWN_MS: u64 = 5_000;

/// How long an envelope id is remembered against replay.
pub const REPLAY_TTL_MS: u64 = 300_000;
/// Envelope ids remembered, over all senders.
pub const REPLAY_IDS_MAX: usize = 100_000;
/// Seen ids are written to disk together, this far apart at most.
pub const REPLAY_FLUSH_MS: u64 = 1_000;

/// Peers in the peer table from `[[peers]]`.
pub const STATIC_PEERS_MAX: usize = 1_024;
/// Peers found by discovery.
pub const FOUND_PEERS_MAX: usize = 1_024;
/// Connections that found peers may hold together.
pub const FOUND_CONNECTIONS_MAX: usize = 32;
/// Connections of one peer at once; the oldest goes first.
pub const CONNECTIONS_PER_PEER_MAX: usize = 4;
/// Candidate addresses of one found peer.
pub const ADDRS_PER_PEER_MAX: usize = 8;
/// Handshakes in progress beyond which a new one must prove its address.
pub const HANDSHAKES_FREE_MAX: usize = 64;
/// Handshakes in progress beyond which new ones are refused.
pub const HANDSHAKES_MAX: usize = 256;
/// Streams of each direction that a peer may have open on one connection.
pub const STREAMS_MAX: u32 = 256;

/// Requests of local clients waiting for a peer, together.
pub const PENDING_MAX: usize = 4_096;
/// Queries and delegations under way to one peer; the rest waits here, so that a ping or cancel finds a
/// stream.
pub const WORK_TO_PEER_MAX: usize = 240;
/// Commands of one client that wait for a peer.
pub const CLIENT_PENDING_MAX: usize = 256;
/// Requests of peers that are open here, together.
pub const OPEN_REQUESTS_MAX: usize = 4_096;
/// Requests of peers that wait because all answerers are at capacity, and queued delegations.
pub const QUEUED_REQUESTS_MAX: usize = 1_024;
/// Requests of one peer that are open here.
pub const OPEN_PER_PEER_MAX: usize = 1_024;
/// Requests of one peer that wait for an agent.
pub const QUEUED_PER_PEER_MAX: usize = 512;
/// Ends of requests that are remembered, so that a late reply learns why it is refused.
pub const CLOSED_REQUESTS_MAX: usize = 4_096;
/// Delegations remembered, each direction.
pub const DELEGATIONS_MAX: usize = 4_096;
/// Capacity of an answerer that names none.
pub const CAPACITY_DEFAULT: u32 = 16;
/// Largest capacity an answerer may claim.
pub const CAPACITY_MAX: u32 = 1_024;
/// Domains or kinds that one subscription may name.
pub const SUBSCRIPTION_NAMES_MAX: usize = 64;
/// Capabilities advertised by one client, in bytes.
pub const CAPABILITIES_BYTES_MAX: usize = 16_384;

/// A consumer's name, in bytes.
pub const CONSUMER_BYTES_MAX: usize = 64;
/// Consumers with a cursor; the least recently used goes first.
pub const CONSUMERS_MAX: usize = 1_024;
/// A `req_id`, in bytes.
pub const REQ_ID_BYTES_MAX: usize = 128;
/// `inbox` rows when no limit is given.
pub const INBOX_LIMIT_DEFAULT: u64 = 50;
/// Most `inbox` rows of one reply.
pub const INBOX_LIMIT_MAX: u64 = 1_000;
/// Bytes of one `inbox` reply, about: rows beyond it wait for the next.
pub const INBOX_REPLY_BYTES_MAX: usize = 1_048_576;
/// Events waiting for one client, in bytes.
pub const CLIENT_QUEUE_BYTES_MAX: usize = 4_194_304;
/// Longest wait for the answer to a query, in milliseconds; longer deadlines are cut to it.
pub const DEADLINE_MS_MAX: u64 = 3_600_000;
/// Messages that `subscribe` replays at most; the rest is read from the inbox.
pub const REPLAY_EVENTS_MAX: usize = 1_024;
/// Lines that wait for one client, in bytes; one that leaves more unread is closed.
pub const CLIENT_UNREAD_BYTES_MAX: usize = 33_554_432;

/// Longest time in which a message may be sent again under its id, and its id is remembered.
pub const RESEND_MS_MAX: u64 = 2_592_000_000;
/// Ids of one sender that are remembered longer than `REPLAY_TTL_MS`: the newest.
pub const LONG_IDS_PER_PEER_MAX: usize = 64;
/// The same, as the disk remembered them at the start.
pub const LONG_IDS_RESTORED_MAX: usize = 1_024;
/// Rows of the inbox whose senders wait to hear that they were read.
pub const READ_WAITING_MAX: usize = 10_000;
/// How long word that a message was read is held for its sender.
pub const READ_RECEIPT_HOLD_MS: u64 = 86_400_000;
/// Adverts that outlive the connection.
pub const PERSISTED_ADVERTS_MAX: usize = 64;
/// How long the outbox shows a message after its last change.
pub const OUTBOX_ROW_TTL_MS: u64 = 3_600_000;
/// First wait before a held message that its peer could not take is sent again; doubles.
pub const OUTBOX_RETRY_FIRST_MS: u64 = 1_000;
/// Longest such wait.
pub const OUTBOX_RETRY_MAX_MS: u64 = 60_000;
/// `outbox` rows when no limit is given; `INBOX_LIMIT_MAX` at most.
pub const OUTBOX_LIMIT_DEFAULT: u64 = 100;
/// `delegations` rows when no limit is given; `INBOX_LIMIT_MAX` at most.
pub const DELEGATIONS_LIMIT_DEFAULT: u64 = 50;
/// The last progress of a delegation that the ledger keeps, in bytes; a longer one is not kept.
pub const PROGRESS_BYTES_MAX: usize = 4_096;
/// Tasks and results that the ledger keeps on disk, each direction, in bytes.
pub const LEDGER_BYTES_MAX: usize = 67_108_864;
/// Changes that wait for the disk.
pub const COMMITS_MAX: usize = 4_096;
/// Bytes of changes that wait for the disk.
pub const COMMITS_BYTES_MAX: usize = 16_777_216;
/// Numbers of inbox rows that are claimed ahead, so that none is used twice after a crash.
pub const SEQ_CLAIM: u64 = 10_000;
/// Commands of one client that wait while an earlier one of it reads the disk.
pub const CLIENT_BACKLOG_MAX: usize = 4_096;
/// Bytes of these.
pub const CLIENT_BACKLOG_BYTES_MAX: usize = 4_194_304;
/// Rows of the outbox beyond `outbox.messages_max` that are done with.
pub const OUTBOX_DONE_MAX: usize = 10_000;
/// Why a held message or a delegation came to nothing, in bytes; longer texts are cut.
pub const REASON_BYTES_MAX: usize = 1_024;
/// Messages that `outbox.messages_max` allows at least where they are results.
pub const OUTBOX_RESULTS_MAX: usize = 1_000;
