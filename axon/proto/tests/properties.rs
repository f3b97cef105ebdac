//! What holds of any value and of any order: what is written is read again as it was, rows and cursors go
//! forward, and what was seen is known for as long as it is said to be.

use std::collections::BTreeMap;
use std::sync::Arc;

use axon_proto::id::{AgentId, MsgId, PublicKey};
use axon_proto::invite::{Link, Secret};
use axon_proto::kinds::core::payload::{Ack, Cancel, Capabilities, Failure, Pong, Progress, Query, Receipt};
use axon_proto::limits::{LONG_IDS_PER_PEER_MAX, REPLAY_TTL_MS};
use axon_proto::mailbox::{Mailbox, Shown};
use axon_proto::pairing::payload::Knock;
use axon_proto::replay::Replay;
use axon_proto::sim::disk::{Disk, Unsynced};
use axon_proto::store::log::Options;
use axon_proto::store::{Commit, Keep, Read, ReadOut, Row, Store, Write};
use axon_proto::wire::{self, Header};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

const WALL_MS: u64 = 1_795_000_000_000;

fn message_id() -> impl Strategy<Value = MsgId> {
    any::<[u8; 16]>().prop_map(MsgId::from_random)
}

fn agent_id() -> impl Strategy<Value = AgentId> {
    any::<[u8; 32]>().prop_map(|key| PublicKey(key).agent_id())
}

/// Any JSON object, written on one line.
fn object() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        // Such as every reader of JSON reads alike.
        any::<i32>().prop_map(|halves| Value::from(f64::from(halves) / 2.0)),
        any::<String>().prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((any::<String>(), inner), 0..4).prop_map(|fields| fields.into_iter().collect()),
        ]
    });
    vec((any::<String>(), value), 0..4).prop_map(|fields| fields.into_iter().collect())
}

/// What is written is read again as it was.
fn again<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T) {
    let text = serde_json::to_string(value).unwrap();
    assert_eq!(&serde_json::from_str::<T>(&text).unwrap(), value, "{text}");
}

proptest! {
    // shows: WF-ENV-4
    #[test]
    fn an_envelope_is_read_as_it_was_written(
        (id, from, to, ts) in (message_id(), agent_id(), agent_id(), 1..u64::MAX),
        kind in "[^\\p{Cc}]{1,16}",
        (reference, resend_until, read_receipt) in (of(message_id()), of(1..u64::MAX), any::<bool>()),
        payload in object(),
    ) {
        let header = Header { id, from, to, ts, kind: &kind, reference, resend_until, read_receipt };
        let raw = RawValue::from_string(payload.to_string()).unwrap();
        let written = wire::encode(header, &raw).unwrap();
        let read = wire::decode(written.raw().as_bytes().to_vec()).unwrap();
        prop_assert_eq!((read.id, read.from, read.to, read.ts), (id, from, to, ts));
        prop_assert_eq!((read.kind(), read.reference), (kind.as_str(), reference));
        prop_assert_eq!((read.resend_until, read.read_receipt), (resend_until, read_receipt));
        prop_assert_eq!((read.payload(), read.raw()), (raw.get(), written.raw()));
        // Another may write it with white space and its fields in another order.
        let value: Value = serde_json::from_str(written.raw()).unwrap();
        let other = wire::decode(serde_json::to_vec_pretty(&value).unwrap()).unwrap();
        prop_assert_eq!((other.id, other.kind(), other.ts), (id, kind.as_str(), ts));
        prop_assert_eq!(serde_json::from_str::<Value>(other.payload()).unwrap(), payload);
        prop_assert!(!other.raw().contains('\n'));
    }

    #[test]
    fn ids_and_keys_are_read_as_they_are_written(key in any::<[u8; 32]>(), id in message_id()) {
        let key = PublicKey(key);
        prop_assert_eq!(key.to_string().parse(), Ok(key));
        let agent = key.agent_id();
        prop_assert_eq!(agent.to_string().parse(), Ok(agent));
        prop_assert_eq!(agent.to_string().to_uppercase().replace("ED", "ed").parse(), Ok(agent));
        prop_assert_eq!(id.to_string().parse(), Ok(id));
        let upper = id.to_string().to_uppercase();
        prop_assert!(upper == id.to_string() || upper.parse::<MsgId>().is_err());
    }

    #[test]
    fn a_link_is_read_as_it_was_written(
        key in any::<[u8; 32]>(),
        hosts in vec(("[a-z0-9.-]{1,40}", 1_u16..), 1..8),
        secret in of(any::<[u8; 16]>()),
    ) {
        let addrs = hosts.into_iter().map(|(host, port)| format!("{host}:{port}")).collect();
        let link = Link { key: PublicKey(key), addrs, secret: secret.map(Secret) };
        let text = link.to_string();
        prop_assert!(text.parse::<Link>() == Ok(link.clone()), "{text}");
        prop_assert!(format!(" {text}\n").parse::<Link>() == Ok(link), "{text}");
    }

    #[test]
    fn payloads_are_read_as_they_are_written(
        (a, b, c) in (any::<String>(), of(any::<String>()), of(any::<String>())),
        (x, y, z) in (any::<u64>(), of(any::<u64>()), of(any::<u64>())),
        (yes, halves, list) in (any::<bool>(), of(0_u8..=200), of(vec(any::<String>(), 0..4))),
    ) {
        again(&Pong { status: a.clone(), uptime_secs: x, active_tasks: x / 2, agent_name: b.clone() });
        again(&Query { question: a.clone(), domain: b.clone(), max_tokens: y, deadline_ms: z });
        again(&Ack { accepted: yes, estimated_ms: y, state: b.clone(), reason: c.clone() });
        let percent = halves.map(|halves| f64::from(halves) / 2.0);
        again(&Progress { state: a.clone(), percent, note: b.clone(), eta_ms: y });
        again(&Cancel { reason: b.clone() });
        again(&Receipt { state: a.clone() });
        again(&Failure { code: a.clone(), message: a.clone(), retryable: yes, retry_after_ms: y });
        again(&Capabilities {
            agent_name: b.clone(),
            domains: list.clone(),
            channels: None,
            tools: list,
            max_concurrent_tasks: z,
            model: c.clone(),
        });
        // A knock is tidied when it is read, and what is tidy stays as it is.
        let knock = Knock { name: Some(a), message: b, session: c, ..Knock::default() };
        if let Ok(once) = Knock::parse(&serde_json::to_string(&knock).unwrap()) {
            prop_assert_eq!(Knock::parse(&serde_json::to_string(&once).unwrap()), Ok(once));
        }
    }
}

// ---- Records ----------------------------------------------------------------------------------------------

/// Nothing goes but what is taken out.
const OPEN: Keep = Keep { rows_max: 1 << 40, bytes_max: 1 << 40, ttl_ms: 1 << 40, read_up_to: 0 };

/// One change of a store.
#[derive(Debug, Clone)]
enum Change {
    Row(u64, String, bool),
    Put(u8, Vec<u8>),
    Delete(u8),
    Gone(usize),
    Cut(u64),
    Clean,
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (1_u64..5, any::<String>(), any::<bool>())
            .prop_map(|(step, raw, firm)| Change::Row(step, raw, firm)),
        3 => (0_u8..4, vec(any::<u8>(), 0..80)).prop_map(|(key, value)| Change::Put(key, value)),
        1 => (0_u8..4).prop_map(Change::Delete),
        1 => any::<usize>().prop_map(Change::Gone),
        1 => any::<u64>().prop_map(Change::Cut),
        1 => Just(Change::Clean),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]
    // shows: IPC-BOX-7
    #[test]
    fn what_is_stored_is_there_after_any_power_cut(changes in vec(change(), 0..60)) {
        let options = Options { segment_bytes: 900, salt: 3 };
        let mut disk = Disk::default();
        let (mut store, _) = Store::open(disk.clone(), options, WALL_MS).unwrap();
        let (mut rows, mut items) = (Vec::<Row>::new(), BTreeMap::<String, Vec<u8>>::new());
        let mut last = 0;
        for change in changes.into_iter().chain([Change::Cut(1)]) {
            let write = match change {
                Change::Row(step, raw, firm) => {
                    last += step;
                    let row = Row { seq: last, at_ms: WALL_MS, kind: "notify".into(), raw: raw.into() };
                    rows.push(row.clone());
                    Write::Row { row, firm }
                }
                Change::Put(key, value) => {
                    items.insert(format!("item/{key}"), value.clone());
                    Write::put(format!("item/{key}"), value)
                }
                Change::Delete(key) => {
                    items.remove(&format!("item/{key}"));
                    Write::delete(format!("item/{key}"))
                }
                Change::Gone(at) => match rows.is_empty() {
                    true => continue,
                    false => Write::Gone(rows.remove(at % rows.len()).seq),
                },
                Change::Clean => {
                    while store.maintain(WALL_MS) {}
                    continue;
                }
                Change::Cut(seed) => {
                    drop(store);
                    disk = disk.after_power_cut(Unsynced::Some(seed));
                    let (opened, found) = Store::open(disk.clone(), options, WALL_MS).unwrap();
                    store = opened;
                    prop_assert!(found.next_seq > last);
                    let all = Read::Rows {
                        after: 0,
                        up_to: u64::MAX,
                        kinds: None,
                        stop_at_other: false,
                        limit: 1_000,
                        bytes_max: 1 << 20,
                    };
                    let ReadOut::Rows(out) = store.read(&all) else { panic!("a disk that works") };
                    prop_assert_eq!(&out.rows, &rows);
                    let mut there = BTreeMap::new();
                    let mut note = |key: &str, value: &[u8]| _ = there.insert(key.to_owned(), value.to_vec());
                    store.items(&mut note).unwrap();
                    prop_assert_eq!(&there, &items);
                    continue;
                }
            };
            prop_assert_eq!(store.commit(&[Commit { writes: vec![write], keep: OPEN }], WALL_MS), [Ok(())]);
        }
    }

    // ---- The inbox ----------------------------------------------------------------------------------------

    // shows: IPC-BOX-2
    #[test]
    fn rows_become_visible_in_order_whatever_the_order_in_which_they_are_written(
        first in 1_u64..1_000,
        fates in vec((any::<bool>(), any::<u32>()), 1..40),
    ) {
        let mut inbox = Mailbox::new(first, true);
        let numbers: Vec<u64> = fates.iter().map(|_| inbox.number()).collect();
        prop_assert!(numbers.is_sorted_by(|a, b| a < b) && numbers[0] == first);
        let mut order: Vec<usize> = (0..fates.len()).collect();
        order.sort_by_key(|at| fates[*at].1);
        let (mut seen, mut decided) = (Vec::new(), vec![false; fates.len()]);
        for at in order {
            let row = Row { seq: numbers[at], at_ms: 0, kind: "notify".into(), raw: Arc::from("{}") };
            let shown = Shown { row, from: AgentId([0; 16]), except: None };
            inbox.decide(numbers[at], fates[at].0.then_some(shown));
            decided[at] = true;
            seen.extend(std::iter::from_fn(|| inbox.next_shown()).map(|shown| shown.row.seq));
            // All before the first that is not decided, and nothing after it.
            let open = decided.iter().position(|decided| !decided).unwrap_or(decided.len());
            let kept: Vec<u64> = (0..open).filter(|at| fates[*at].0).map(|at| numbers[at]).collect();
            prop_assert_eq!(&seen, &kept);
            prop_assert_eq!(inbox.visible(), first + open as u64 - 1);
        }
    }

    // shows: IPC-ACK-1, IPC-ACK-2
    #[test]
    fn cursors_go_forward_only_and_not_past_what_was_delivered(
        steps in vec((0_u8..4, 0_usize..3, 0_u64..40), 0..80),
    ) {
        let mut inbox = Mailbox::new(1, true);
        let names = ["a", "b", "c"];
        let (mut acked, mut delivered) = ([0_u64; 3], [0_u64; 3]);
        let mut asked = [0_u64; 3];
        names.iter().for_each(|name| _ = inbox.open(name, |_| true));
        for (step, who, number) in steps {
            let name = names[who];
            match step {
                0 => {
                    inbox.note_delivered(name, number);
                    delivered[who] = delivered[who].max(number);
                }
                1 => match inbox.ack(name, number) {
                    Ok((to, _)) => {
                        prop_assert!(number <= delivered[who].max(acked[who]));
                        prop_assert!(to >= acked[who] && to >= number);
                        asked[who] = asked[who].max(to);
                    }
                    Err(error) => {
                        prop_assert_eq!(error.delivered, delivered[who]);
                        prop_assert!(number > delivered[who]);
                    }
                },
                // What is being stored is stored.
                2 => {
                    inbox.acked_now(name, asked[who]);
                    acked[who] = acked[who].max(asked[who]);
                }
                // Or it is not, and the daemon starts again with what was.
                _ => {
                    inbox.not_acked(name);
                    asked[who] = acked[who];
                }
            }
            for (who, name) in names.iter().enumerate() {
                prop_assert_eq!(inbox.acked(name), acked[who], "{} of another moves nothing here", name);
            }
            prop_assert_eq!(inbox.read_up_to(), acked.into_iter().max().unwrap());
        }
    }

    // ---- Replay -------------------------------------------------------------------------------------------

    // shows: WF-REP-1
    #[test]
    fn an_id_is_known_for_its_time_to_its_sender_alone(
        steps in vec((0_u8..4, 0_u8..12, 0_u8..2, 0_u64..200_000), 0..120),
    ) {
        let (mut replay, mut wall_ms) = (Replay::new(&[], WALL_MS), WALL_MS);
        let mut known: BTreeMap<(u8, u8), u64> = BTreeMap::new();
        for (step, id, from, ms) in steps {
            let (name, sender) = (MsgId::from_random([id; 16]), AgentId([from; 16]));
            match step {
                0 => wall_ms += ms,
                // Fewer than are kept for their whole time.
                1 if usize::from(id) < LONG_IDS_PER_PEER_MAX => {
                    let until = wall_ms + REPLAY_TTL_MS + ms * 10;
                    if !replay.knows(sender, name, wall_ms) {
                        let seen = replay.remember(sender, name, until, wall_ms);
                        prop_assert_eq!((seen.from, seen.id, seen.until_ms), (sender, name, until));
                        known.insert((from, id), until);
                    }
                }
                2 => {
                    replay.forget(sender, name);
                    known.remove(&(from, id));
                }
                _ => replay.sweep(wall_ms),
            }
            for from in 0..2 {
                for id in 0..12 {
                    let is = replay.knows(AgentId([from; 16]), MsgId::from_random([id; 16]), wall_ms);
                    let must = known.get(&(from, id)).is_some_and(|until| *until > wall_ms);
                    prop_assert!(is || !must, "forgotten too soon: {} of {}", id, from);
                    prop_assert!(!is || known.contains_key(&(from, id)), "never seen: {} of {}", id, from);
                }
            }
        }
        // After its time and a sweep nothing is left.
        let end = wall_ms + REPLAY_TTL_MS + 2_100_000;
        replay.sweep(end);
        for (from, id) in known.keys() {
            prop_assert!(!replay.knows(AgentId([*from; 16]), MsgId::from_random([*id; 16]), end));
        }
    }
}
