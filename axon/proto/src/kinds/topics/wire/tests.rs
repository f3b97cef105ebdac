//! Unit tests of the payloads.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use proptest::prelude::*;

use super::pack::PAYLOAD_BYTES_MAX;
use super::*;
use crate::id::{MsgId, PublicKey};
use crate::limits::{BATCH_BYTES_MAX, BATCH_MESSAGES_MAX};
use crate::wire::{Header, encode};

const KEY: PublicKey = PublicKey([7; 32]);

fn topic(name: &str) -> Topic {
    Topic::parse(name).unwrap()
}

/// With as many bytes to be signed as may be, or with one short message.
fn batch(seq: u64, largest: bool) -> Arc<Batch> {
    let of = |bytes| {
        let message = raw_json(format!("{{\"x\":\"{}\"}}", "x".repeat(bytes)));
        Batch::to_sign(&KEY, &topic("t.x"), seq, 1_795_000_000_000, &[&message])
    };
    let room = BATCH_BYTES_MAX - of(0).get().len();
    Arc::new(Batch::read(of(if largest { room } else { 1 }), [seq as u8; 64]).unwrap())
}

/// What does not depend on the order in which it is said.
fn said(gossip: &Gossip) -> Vec<String> {
    let Gossip { batches, have, want, graft, prune, sums } = gossip;
    let batch = |given: &Given| {
        let Given { batch, hops, age_ms } = given;
        format!("{} {:?} {hops} {age_ms}", batch.signed, batch.sig)
    };
    let mut said: Vec<String> = batches.iter().map(batch).collect();
    said.extend(have.iter().map(|have| format!("{have:?}")));
    said.extend(want.iter().map(|want| format!("{want:?}")));
    said.extend(graft.iter().map(|tree| format!("graft {tree:?}")));
    said.extend(prune.iter().map(|tree| format!("prune {tree:?}")));
    said.extend(sums.iter().map(|sum| format!("{sum:?}")));
    said.sort();
    said
}

/// Each payload fits a message, is read without a complaint, and together they say what was to be said.
fn goes_round(gossip: &Gossip) -> usize {
    let payloads = pack(gossip);
    let mut all = Gossip::default();
    for payload in &payloads {
        let from = KEY.agent_id();
        let (id, kind) = (MsgId([0; 16]), "topic.gossip");
        let (reference, resend_until, read_receipt) = (None, None, false);
        let header = Header { id, from, to: from, ts: 1, kind, reference, resend_until, read_receipt };
        assert!(encode(header, payload).is_ok());
        assert_eq!(check_gossip(payload.get()), Ok(()));
        let read = Gossip::parse(payload.get()).unwrap();
        assert_eq!((read.malformed, read.why), (0, None));
        let Gossip { batches, have, want, graft, prune, sums } = read.gossip;
        all.batches.extend(batches);
        all.have.extend(have);
        all.want.extend(want);
        all.graft.extend(graft);
        all.prune.extend(prune);
        all.sums.extend(sums);
    }
    assert_eq!(said(&all), said(gossip));
    payloads.len()
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..10u64, Just(JSON_NUMBER_MAX), 0..=JSON_NUMBER_MAX]
}

fn name() -> impl Strategy<Value = Topic> {
    "[a-c!~]{1,3}(\\.[a-z0-9_/-]{1,90}){0,2}".prop_map(|text| topic(&text))
}

fn of_tree() -> impl Strategy<Value = Tree> {
    (name(), 0..3u8).prop_map(|(topic, from)| Tree { topic, from: AgentId([from; 16]) })
}

fn have() -> impl Strategy<Value = Have> {
    (of_tree(), number(), any::<u16>(), any::<bool>()).prop_map(|(tree, seq, hops, kept)| Have {
        id: BatchId { from: tree.from, seq },
        topic: tree.topic,
        hops,
        kept,
    })
}

fn sum() -> impl Strategy<Value = Sum> {
    (name(), number(), number(), number(), any::<u64>(), any::<bool>(), any::<bool>()).prop_map(
        |(topic, a, b, count, marks, answer, kept)| {
            let (from_ms, to_ms) = (a.min(b), a.max(b));
            Sum { topic, from_ms, to_ms, count, marks, answer, kept }
        },
    )
}

fn given() -> impl Strategy<Value = Given> {
    (0..1_000u64, prop::bool::weighted(0.1), any::<u16>(), number())
        .prop_map(|(seq, largest, hops, age_ms)| Given { batch: batch(seq, largest), hops, age_ms })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_said_is_heard_in_messages_that_fit(
        batches in prop::collection::vec(given(), 0..8),
        have in prop::collection::vec(have(), 0..200),
        want in prop::collection::vec((0..3u8, number()), 0..200),
        graft in prop::collection::vec(of_tree(), 0..20),
        prune in prop::collection::vec(of_tree(), 0..20),
        sums in prop::collection::vec(sum(), 0..100),
    ) {
        let want = want.into_iter().map(|(from, seq)| BatchId { from: AgentId([from; 16]), seq }).collect();
        goes_round(&Gossip { batches, have, want, graft, prune, sums });
    }

    #[test]
    fn no_text_is_read_that_is_not_said_again(text in "[\\[\\]{}:,\"a-z0-9]{0,60}") {
        drop(Gossip::parse(&text));
        drop(Join::parse(&text));
        if let Ok(leave) = Leave::parse(&text) {
            prop_assert_eq!(Leave::parse(leave.payload().get()), Ok(leave));
        }
    }

    #[test]
    fn a_join_is_read_as_it_was_written(n in number(), filters in prop::collection::vec(name(), 0..20)) {
        let filters: Vec<Filter> = filters.iter().map(|name| Filter::parse(name.as_str()).unwrap()).collect();
        for keeps in [Vec::new(), vec![Filter::parse("a.*.>").unwrap()]] {
            let join = Join { n, filters: filters.clone(), keeps };
            prop_assert_eq!(Join::parse(join.payload().get()), Ok(join));
        }
    }
}

// shows: TOP-GOS-2
#[test]
fn what_is_too_much_for_one_message_goes_in_several() {
    let batches: Vec<Given> =
        (0..3).map(|seq| Given { batch: batch(seq, true), hops: u16::MAX, age_ms: u64::MAX >> 1 }).collect();
    let far = Gossip { batches: batches.clone(), ..Gossip::default() };
    assert_eq!(pack(&far).len(), 3, "each of the largest fits alone");
    assert!(pack(&far).iter().all(|payload| payload.get().contains("\"age_ms\":9007199254740991}")));
    let seqs = 0..3 * TOPIC_GOSSIP_SEQS_MAX as u64;
    let from = KEY.agent_id();
    let want: Vec<BatchId> = seqs.map(|seq| BatchId { from, seq }).collect();
    assert_eq!(goes_round(&Gossip { want, ..Gossip::default() }), 3);
    let sum = Sum { topic: topic("t"), from_ms: 1, to_ms: 1, count: 1, marks: 1, answer: false, kept: false };
    let sums = vec![sum; 2 * TOPIC_GOSSIP_SUMS_MAX + 1];
    assert_eq!(goes_round(&Gossip { sums, ..Gossip::default() }), 3);
    let trees = |n: u64| Tree { topic: topic(&format!("{}.{n}", "t".repeat(250))), from };
    let prune: Vec<Tree> = (0..1_000).map(trees).collect();
    assert!(goes_round(&Gossip { prune: prune.clone(), graft: prune, ..Gossip::default() }) > 9);
    // The smallest batches of all are not so many that they must be counted.
    let message = raw_json("{}".to_owned());
    let signed = Batch::to_sign(&KEY, &topic("t"), 1, 0, &[&message]);
    let around = r#"{"signed":,"sig":"","hops":0,"age_ms":0},"#.len() + 88;
    assert!(PAYLOAD_BYTES_MAX / (signed.get().len() + around) < TOPIC_GOSSIP_BATCHES_MAX);
    assert!(pack(&Gossip::default()).is_empty());
}

#[test]
fn what_is_written_is_what_the_specification_shows() {
    let gossip = Gossip {
        batches: vec![Given { batch: batch(40, false), hops: 1, age_ms: 12 }],
        have: [(41, true), (40, false), (42, true)]
            .map(|(seq, kept)| Have {
                id: BatchId { from: AgentId([1; 16]), seq },
                topic: topic("t.x"),
                hops: 1,
                kept,
            })
            .to_vec(),
        want: vec![BatchId { from: AgentId([2; 16]), seq: 7 }],
        graft: vec![Tree { topic: topic("g"), from: AgentId([3; 16]) }],
        prune: vec![Tree { topic: topic("p"), from: AgentId([3; 16]) }],
        sums: vec![Sum {
            topic: topic("s"),
            from_ms: 1,
            to_ms: 2,
            count: 3,
            marks: 255,
            answer: true,
            kept: true,
        }],
    };
    let id = |n: u8| AgentId([n; 16]).to_string();
    let expected = format!(
        concat!(
            r#"{{"prune":[{{"topic":"p","from":"{2}"}}],"graft":[{{"topic":"g","from":"{2}"}}],"#,
            r#""want":[{{"from":"{1}","seqs":[7]}}],"have":[{{"topic":"t.x","from":"{0}","seqs":[[40,1]]}},"#,
            r#"{{"topic":"t.x","from":"{0}","seqs":[[41,1],[42,1]],"kept":true}}],"sums":[{{"topic":"s","#,
            r#""from_ms":1,"to_ms":2,"count":3,"marks":"00000000000000ff","answer":true,"kept":true}}],"#,
            r#""batches":[{{"signed":{3},"sig":"{4}","hops":1,"age_ms":12}}]}}"#
        ),
        id(1),
        id(2),
        id(3),
        batch(40, false).signed,
        STANDARD.encode([40; 64]),
    );
    assert_eq!(pack(&gossip).iter().map(|payload| payload.get()).collect::<Vec<_>>(), [expected]);
}

// shows: TOP-JOIN-4
#[test]
fn a_join_or_leave_that_is_wrong_says_which_field() {
    let many = format!("[{}]", vec!["\"a\""; TOPIC_FILTERS_MAX + 1].join(","));
    let long = format!("[{}]", vec![format!("\"{}\"", "a".repeat(256)); 97].join(","));
    for (text, why) in [
        ("[1,[]]".to_owned(), "must be a JSON object"),
        ("{\"filters\":[]}".to_owned(), "missing field `n`"),
        ("{\"n\":1}".to_owned(), "missing field `filters`"),
        ("{\"n\":-1,\"filters\":[]}".to_owned(), "`n`: invalid value"),
        ("{\"n\":9007199254740992,\"filters\":[]}".to_owned(), "`n`: 9007199254740992 is more than"),
        ("{\"n\":1,\"filters\":null}".to_owned(), "`filters`: invalid type"),
        ("{\"n\":1,\"filters\":[5]}".to_owned(), "`filters`: invalid type"),
        ("{\"n\":1,\"filters\":[\"a*\"]}".to_owned(), "`filters`: in \"a*\""),
        ("{\"n\":1,\"filters\":[],\"keeps\":[\"\"]}".to_owned(), "`keeps`: a topic has 1 to 256 bytes"),
        (format!("{{\"n\":1,\"filters\":{many}}}"), "`filters`: 257 filters"),
        (format!("{{\"n\":1,\"filters\":{long}}}"), "`filters`: the filters have 24832 bytes"),
        (format!("{{\"n\":1,\"filters\":[],\"keeps\":{many}}}"), "`keeps`: 257 filters"),
    ] {
        let error = Join::parse(&text).unwrap_err();
        assert!(error.contains(why) && !error.contains("at line"), "{text:.80}: {error}");
        assert_eq!(check_join(&text), Err(error));
    }
    let most = vec![Filter::parse(&"a".repeat(96)).unwrap(); TOPIC_FILTERS_MAX];
    let join = Join { n: JSON_NUMBER_MAX, filters: most.clone(), keeps: most };
    assert!(join.payload().get().len() <= PAYLOAD_BYTES_MAX);
    assert_eq!(Join::parse(join.payload().get()), Ok(join));
    assert_eq!(Leave::parse("{\"n\":3,\"x\":[]}"), Ok(Leave { n: 3 }));
    assert!(check_leave("{\"n\":\"3\"}").unwrap_err().starts_with("`n`: invalid type"));
    assert!(check_leave("[3]").is_err());
}

// shows: TOP-GOS-1
#[test]
fn a_gossip_that_is_wrong_says_which_field() {
    let from = AgentId([1; 16]).to_string();
    let tree = format!(r#""topic":"t","from":"{from}""#);
    let sum = r#"{"topic":"t","from_ms":1,"to_ms":2,"count":3,"marks":"00ff00ff00ff00ff"}"#;
    let pairs = |count| vec!["[1,1]"; count].join(",");
    for (text, why) in [
        ("{}".to_owned(), "must be there"),
        ("{\"news\":[]}".to_owned(), "must be there"),
        ("{\"batches\":{}}".to_owned(), "`batches`: invalid type"),
        (format!("{{\"batches\":[{}]}}", vec!["1"; 257].join(",")), "`batches` has 257 items"),
        ("{\"have\":[[]]}".to_owned(), "`have`: invalid type: sequence, expected an object"),
        (format!(r#"{{"have":[{{{tree}}}]}}"#), "`have`: missing field `seqs`"),
        (format!(r#"{{"have":[{{{tree},"seqs":[]}}]}}"#), "`have`: `seqs` must have at least one"),
        (format!(r#"{{"have":[{{{tree},"seqs":[1]}}]}}"#), "`have`: `seqs`: invalid type"),
        (format!(r#"{{"have":[{{{tree},"seqs":[[1]]}}]}}"#), "`have`: `seqs`: invalid length 1"),
        (format!(r#"{{"have":[{{{tree},"seqs":[[1,65536]]}}]}}"#), "`seqs`: invalid value"),
        (format!(r#"{{"have":[{{{tree},"seqs":[[9007199254740992,1]]}}]}}"#), "is more than"),
        (format!(r#"{{"have":[{{{tree},"seqs":[[1,1]],"kept":1}}]}}"#), "`have`: `kept`"),
        (format!(r#"{{"have":[{{{tree},"seqs":[{}]}}]}}"#, pairs(4_097)), "`have` has 4097 numbers"),
        (format!(r#"{{"want":[{{"from":"{from}","seqs":[-1]}}]}}"#), "`want`: `seqs`"),
        (r#"{"want":[{"from":"ed25519.00","seqs":[1]}]}"#.to_owned(), "`want`: `from`: an agent id is"),
        (format!(r#"{{"graft":[{{"topic":"t.*","from":"{from}"}}]}}"#), "`graft`: `topic`: \"t.*\" is a"),
        (format!(r#"{{"prune":[{{"topic":"","from":"{from}"}}]}}"#), "`prune`: `topic`: a topic has"),
        (format!(r#"{{"sums":[{}]}}"#, sum.replace("00ff\"", "00FF\"")), "`sums`: `marks`: marks are 16"),
        (format!(r#"{{"sums":[{}]}}"#, sum.replace("00ff\"", "\"")), "`sums`: `marks`"),
        (format!(r#"{{"sums":[{}]}}"#, sum.replace("\"to_ms\":2", "\"to_ms\":0")), "before `from_ms`, 1"),
        (format!(r#"{{"sums":[{}]}}"#, [sum; 65].join(",")), "`sums` has 65 items"),
    ] {
        let error = Gossip::parse(&text).unwrap_err();
        assert!(error.contains(why) && !error.contains("at line"), "{text:.120}: {error}");
        assert_eq!(check_gossip(&text), Err(error));
    }
    let loose =
        format!(r#" {{"x":1,"sums":[{sum}],"graft":null,"have":[{{"y":2,{tree},"seqs":[[0,0]]}}]}} "#);
    let read = Gossip::parse(&loose).unwrap();
    assert_eq!((read.gossip.sums.len(), read.gossip.have.len()), (1, 1), "what is not known is passed over");
    assert_eq!(read.gossip.sums[0].marks, 0x00ff_00ff_00ff_00ff);
}

// shows: TOP-GOS-1, TOP-BATCH-3
#[test]
fn a_batch_that_cannot_be_read_does_not_spoil_the_others() {
    let good = |seq: u64| {
        let batch = batch(seq, false);
        format!(r#"{{"signed":{},"sig":"{}","hops":1,"age_ms":2}}"#, batch.signed, STANDARD.encode(batch.sig))
    };
    let sig = STANDARD.encode([1; 64]);
    for (wrong, why) in [
        ("5".to_owned(), "must be a JSON object"),
        ("{}".to_owned(), "missing field `signed`"),
        (good(1).replace("==\"", "=\""), "`sig` must be the base64 text of 64 bytes"),
        (good(1).replace("==\"", "\""), "`sig`"),
        (good(1).replace(&sig[..8], "********"), "`sig`"),
        (good(1).replace("\"hops\":1,", ""), "missing field `hops`"),
        (good(1).replace("\"hops\":1,", "\"hops\":65536,"), "65536"),
        (good(1).replace("\"age_ms\":2", "\"age_ms\":-2"), "`age_ms`"),
        (good(1).replace("\"t.x\"", "\"t.>\""), "`signed.topic`"),
        (good(1).replace("[{\"x\":\"x\"}]", "[1]"), "`signed.messages[0]`"),
        (
            good(1).replace("[{\"x\":\"x\"}]", &format!("[{}]", ["{}"; BATCH_MESSAGES_MAX + 1].join(","))),
            "65",
        ),
    ] {
        let text = format!("{{\"batches\":[{},{wrong},{},{wrong}]}}", good(8), good(9));
        assert_eq!(check_gossip(&text), Ok(()), "the shape is looked at, and no batch");
        let read = Gossip::parse(&text).unwrap();
        let seqs: Vec<u64> = read.gossip.batches.iter().map(|given| given.batch.seq).collect();
        assert_eq!((seqs, read.malformed), (vec![8, 9], 2), "{wrong}");
        let reason = read.why.unwrap();
        assert!(reason.contains(why) && !reason.contains("at line"), "{wrong}: {reason}");
    }
}
