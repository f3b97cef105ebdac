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
/// Largest number where one is read: every JSON reader holds it exactly (2^53 - 1).
pub const JSON_NUMBER_MAX: u64 = 9_007_199_254_740_991;
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
/// How long after the disk has refused something it is asked again for what can wait.
pub const DISK_AGAIN_MS: u64 = 1_000;
/// Seen ids are written to disk together, this far apart at most.
pub const REPLAY_FLUSH_MS: u64 = 1_000;
/// When so many wait, they are written at once.
pub const REPLAY_UNWRITTEN_MAX: usize = 2_048;

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
/// A message on the pipe, in bytes; a larger one takes a stream of its own. Answers of any size stay.
pub const PIPE_MESSAGE_BYTES_MAX: usize = 4_096;
/// Requests on the pipe that have no answer yet, each way.
pub const PIPE_REQUESTS_MAX: usize = 256;
/// One-way messages on the pipe that the peer has not taken over yet.
pub const PIPE_ONE_WAY_MAX: usize = 4_096;
/// What waits to be written to the pipe, in bytes; further messages take streams of their own.
pub const PIPE_WAITING_BYTES_MAX: usize = 262_144;

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
/// Rows of the inbox that `peers` looks at to count unread ones by their senders.
pub const UNREAD_ROWS_MAX: usize = 4_096;
/// Bytes of their envelopes.
pub const UNREAD_BYTES_MAX: usize = 8_388_608;
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

/// Contacts in `contacts.toml`.
pub const CONTACTS_MAX: usize = 4_096;
/// A contact's `why`, in bytes.
pub const WHY_BYTES_MAX: usize = 256;
/// A link, in bytes.
pub const LINK_BYTES_MAX: usize = 4_096;
/// Invites that are open at once.
pub const INVITES_MAX: usize = 64;
/// Longest life of an invite, in seconds.
pub const INVITE_SECS_MAX: u64 = 2_592_000;
/// Most uses of one invite.
pub const INVITE_USES_MAX: u64 = 1_000;
/// Knocks that wait for their owner's word.
pub const KNOCKS_MAX: usize = 64;
/// Of those, from one address (of IPv6, one /64).
pub const KNOCKS_PER_SITE_MAX: usize = 8;
/// A knock that nobody has judged is dropped after this.
pub const KNOCK_TTL_MS: u64 = 604_800_000;
/// The payload of a knock, in bytes.
pub const KNOCK_BYTES_MAX: usize = 2_048;
/// A knock's `message`, and a refusal's `reason`, in bytes.
pub const KNOCK_TEXT_BYTES_MAX: usize = 512;
/// Connections of strangers at once.
pub const STRANGERS_MAX: usize = 8;
/// Connections of strangers from one address (of IPv6, one /64).
pub const STRANGERS_PER_ADDR_MAX: usize = 2;
/// A stranger's connection is closed after this.
pub const STRANGER_MS: u64 = 10_000;
/// A stranger's message, in bytes.
pub const STRANGER_MESSAGE_BYTES_MAX: usize = 8_192;
/// Streams that a stranger may have open.
pub const STRANGER_STREAMS_MAX: u32 = 4;
/// Keys, and addresses, whose wrong proofs are remembered, each.
pub const GUESSERS_MAX: usize = 1_024;
/// First wait after a wrong proof; doubles.
pub const GUESS_WAIT_FIRST_MS: u64 = 1_000;
/// Longest such wait.
pub const GUESS_WAIT_MAX_MS: u64 = 3_600_000;
/// How long a key that was denied is turned away.
pub const DENIED_MS: u64 = 3_600_000;
/// One-way messages that are kept while their sender, or everything, is paused.
pub const PAUSED_MAX: usize = 10_000;
/// Bytes of these.
pub const PAUSED_BYTES_MAX: usize = 67_108_864;
/// Unread rows of the inbox that are of unknown peers: so many, and a quarter of `ipc.buffer_size`, at most.
pub const UNKNOWN_ROWS_MAX: usize = 1_024;
/// Scoped sockets.
pub const SOCKETS_MAX: usize = 32;
/// Rows that a scoped socket was given and has not acknowledged, as far as they are remembered.
pub const SCOPE_UNACKED_MAX: usize = 10_000;
/// Names in one list of a scope or of a policy.
pub const RULE_NAMES_MAX: usize = 64;
/// `[[topics.rules]]`.
pub const TOPIC_RULES_MAX: usize = 64;
/// What is signed of a beacon, in bytes.
pub const PRESENCE_BEACON_BYTES_MAX: usize = 1_400;
/// Domains of a beacon, and tools.
pub const PRESENCE_NAMES_MAX: usize = 16;
/// Addresses of a beacon.
pub const PRESENCE_ADDRS_MAX: usize = 4;
/// How long a beacon holds.
pub const PRESENCE_LIFE_MS: u64 = 900_000;
/// How often a beacon is said again when nothing has changed; a long one less often, by its bytes.
pub const PRESENCE_EVERY_MS: u64 = 300_000;
/// How often the longest one is.
pub const PRESENCE_EVERY_MS_MAX: u64 = 600_000;
/// Bytes that presence may send to a neighbour in a minute in which nothing changes.
pub const PRESENCE_BYTES_PER_MINUTE: usize = 200;
/// Changes within this are said together.
pub const PRESENCE_CHANGE_MS: u64 = 1_000;
/// How long there must be no work before a busy agent is idle again.
pub const PRESENCE_IDLE_MS: u64 = 30_000;
/// Beacons of one neighbour that are looked at together; one more is every `PRESENCE_CHANGE_MS`.
pub const PRESENCE_BEACONS_AT_ONCE: u64 = 10;
/// How far the clock of a beacon that was found may be off.
pub const PRESENCE_CLOCK_MS: u64 = 120_000;
/// Intervals between signs of life that are remembered of a neighbour.
pub const PRESENCE_INTERVALS_MAX: usize = 64;
/// How often a walk is passed on at most.
pub const FIND_HOPS_MAX: u8 = 3;
/// Neighbours that a walk is passed on to.
pub const FIND_ONWARD: usize = 2;
/// Neighbours that a walk begins with.
pub const FIND_FIRST: usize = 8;
/// Agents of one answer.
pub const FIND_AGENTS_MAX: usize = 16;
/// How far away an agent of an answer may be.
pub const FOUND_HOPS_MAX: u8 = 8;
/// Walks under way.
pub const FIND_WALKS_MAX: usize = 64;
/// Walks under way of one peer.
pub const FIND_WALKS_PER_PEER_MAX: usize = 8;
/// Walks that are remembered so that one that comes again ends.
pub const FIND_SEEN_MAX: usize = 1_024;
/// How long a walk waits for each hop that it may still go.
pub const FIND_HOP_MS: u64 = 500;
/// How long an answer to what a family asked of a peer is waited for.
pub const FAMILY_REQUEST_MS: u64 = 5_000;
/// How long a daemon that ends waits for its last words to arrive.
pub const LAST_WORDS_MS: u64 = 500;
/// Rows of the audit log that are counted together by what they say.
pub const AUDIT_KEYS_MAX: usize = 512;
/// How long repeats are counted in one row of the audit log.
pub const AUDIT_WINDOW_MS: u64 = 60_000;
/// How long an old key is kept after `rekey`, and its peers are told.
pub const OLD_KEY_MS: u64 = 2_592_000_000;
/// Old keys that are kept.
pub const OLD_KEYS_MAX: usize = 4;
/// How long a blocked peer's last lines may take to be written before their client is closed.
pub const PURGE_MS: u64 = 1_000;
/// A local client's line that is begun must end within this.
pub const LINE_MS: u64 = 5_000;
/// Places for clients that those without a complete line never hold.
pub const PLACES_KEPT: usize = 8;

/// The name of a topic, or a filter, in bytes.
pub const TOPIC_BYTES_MAX: usize = 256;
/// Levels of a topic.
pub const TOPIC_LEVELS_MAX: usize = 16;
/// What is signed of a batch, in bytes: it fits a message with all around it.
pub const BATCH_BYTES_MAX: usize = MESSAGE_BYTES_MAX - 1_024;
/// Messages in one batch.
pub const BATCH_MESSAGES_MAX: usize = 64;
/// How old a batch may be when it comes, and how far ahead its time.
pub const BATCH_AGE_MS_MAX: u64 = 300_000;
/// Publishers whose numbers are remembered.
pub const TOPIC_PUBLISHERS_MAX: usize = 1_024;
/// Numbers remembered of one publisher.
pub const TOPIC_SEEN_PER_PUBLISHER_MAX: usize = 4_096;
/// Batches that can be given to neighbours, in bytes.
pub const TOPIC_CACHE_BYTES_MAX: usize = 4_194_304;
/// How long a batch can be given.
pub const TOPIC_CACHE_MS: u64 = 60_000;
/// How long announcements wait to go together.
pub const TOPIC_ANNOUNCE_MS: u64 = 50;
/// Announcements that wait for one neighbour.
pub const TOPIC_NEWS_MAX: usize = 1_024;
/// How long a batch that was announced may take before it is asked for.
pub const TOPIC_WANT_MS: u64 = 300;
/// How long the first that was asked may take before the next is.
pub const TOPIC_WANT_AGAIN_MS: u64 = 200;
/// Neighbours that are remembered to have a missing batch.
pub const TOPIC_ANNOUNCERS_MAX: usize = 8;
/// Missing batches that one neighbour has announced first.
pub const TOPIC_MISSING_PER_PEER_MAX: usize = 1_024;
/// Trees, by publisher and topic, in which one neighbour is lazy, and of which it was given a batch.
pub const TOPIC_TREES_MAX: usize = 1_024;
/// So many hops closer makes a neighbour the better giver.
pub const TOPIC_CLOSER_HOPS: u16 = 7;
/// How long after the last batch of a burst neighbours compare what they have.
pub const TOPIC_SUM_MS: u64 = 2_000;
/// How long after that again, and how often within a long burst.
pub const TOPIC_SUM_AGAIN_MS: u64 = 10_000;
/// How often they compare after a burst.
pub const TOPIC_SUMS: u8 = 6;
/// Messages that a family made and that wait to be shown behind others that are being stored.
pub const NOTES_WAITING_MAX: usize = 8_192;
/// Filters in one list of a `topic.join`.
pub const TOPIC_FILTERS_MAX: usize = 256;
/// Bytes of the filters of one list together, so that both lists fit a message.
pub const TOPIC_FILTERS_BYTES_MAX: usize = 24_576;
/// Batches in one `topic.gossip`: more than fit.
pub const TOPIC_GOSSIP_BATCHES_MAX: usize = 256;
/// Numbers in one list of a `topic.gossip`, `have` or `want`.
pub const TOPIC_GOSSIP_SEQS_MAX: usize = 4_096;
/// Sums in one `topic.gossip`: each is compared with what is here.
pub const TOPIC_GOSSIP_SUMS_MAX: usize = 64;
/// Numbers of batches that are remembered, of all publishers together.
pub const TOPIC_SEEN_MAX: usize = 131_072;
/// Subscriptions of one client or consumer.
pub const TOPIC_SUBS_PER_OWNER_MAX: usize = 256;
/// Subscriptions of all together.
pub const TOPIC_SUBS_MAX: usize = 1_024;
/// Neighbours, each by each rule, of which is remembered how much they gave of late.
pub const TOPIC_NEIGHBOUR_RATES_MAX: usize = 16_384;
/// Batches that were refused and are not asked for.
pub const TOPIC_REFUSED_MAX: usize = 4_096;
/// How long they are not.
pub const TOPIC_REFUSED_MS: u64 = 60_000;
/// Filters of topics whose history is kept.
pub const TOPIC_KEEPS_MAX: usize = 64;
/// Batches of history that are kept, of all topics together.
pub const TOPIC_KEPT_BATCHES_MAX: usize = 16_384;
/// Their bytes.
pub const TOPIC_KEPT_BYTES_MAX: u64 = 67_108_864;
/// How long before what is kept is looked at again for what is too old.
pub const TOPIC_KEPT_LOOK_MS: u64 = 60_000;
/// Messages of one topic that may be kept.
pub const TOPIC_KEEP_LAST_MAX: u64 = 100_000;
/// Messages of one topic that are kept where nobody says how many.
pub const TOPIC_KEEP_LAST_DEFAULT: u64 = 1_000;
/// Hours that messages may be kept: a year.
pub const TOPIC_KEEP_HOURS_MAX: u64 = 8_760;
/// Messages of clients that wait to be signed.
pub const TOPIC_PUBLISH_WAITING_MAX: usize = 1_024;
/// How long a message may wait for others to be signed together with it.
pub const TOPIC_PUBLISH_MS: u64 = 2;
/// So many in that time do not wait at all.
pub const TOPIC_PUBLISH_AT_ONCE: u32 = 2;
/// How long what clients publish waits for a neighbour that takes no more.
pub const TOPIC_PATIENCE_MS: u64 = 500;
/// How long a neighbour for which that was too short is not waited for.
pub const TOPIC_SLOW_MS: u64 = 5_000;
/// Gossip on its way to one neighbour; beyond it, batches are announced to it instead.
pub const TOPIC_UNDER_WAY_MAX: usize = 64;
/// How far a batch may be of the future by this daemon's clock.
pub const BATCH_AHEAD_MS_MAX: u64 = 120_000;
/// Topics with traffic that `topics` lists.
pub const TOPIC_LISTED_MAX: usize = 256;
/// How often a neighbour is told what is wanted of it, though nothing has changed.
pub const TOPIC_JOIN_MS: u64 = 300_000;
/// How long a batch that could not be stored waits before it is tried again.
pub const TOPIC_AGAIN_MS: u64 = 1_000;
/// Batches that wait for that.
pub const TOPIC_AGAIN_MAX: usize = 256;
/// How often it is tried.
pub const TOPIC_AGAIN_TIMES: u32 = 60;
/// Batches of history that are asked of one neighbour at once.
pub const HISTORY_WANT_MAX: usize = 32;
/// Batches of history that one neighbour is known to have and is not asked for yet.
pub const HISTORY_QUEUE_MAX: usize = 4_096;
/// Batches of history in a range that are listed instead of split.
pub const HISTORY_LIST_MAX: u64 = 64;
/// Parts into which a range is split.
pub const HISTORY_PARTS: usize = 16;
/// How long a neighbour may take to give a batch of history before it is left.
pub const HISTORY_WAIT_MS: u64 = 5_000;
/// Readers to whom history is being read.
pub const TOPIC_REPLAYS_MAX: usize = 64;
/// Batches of history that a reader is given, the newest.
pub const TOPIC_REPLAY_BATCHES_MAX: usize = 1_024;
/// Batches of one neighbour whose signature does not hold before none of its is looked at for a while.
pub const FORGED_MAX: u32 = 16;
/// How long these are counted, and none is looked at.
pub const FORGED_MS: u64 = 60_000;
/// Publishers that are no peers, of all that are remembered.
pub const TOPIC_STRANGERS_MAX: usize = TOPIC_PUBLISHERS_MAX / 4 * 3;
