//! The page of the topics family agrees with the code: its limits, its bytes, its signatures, its rules.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use axon_proto::kinds::topics::batch::Batch;
use axon_proto::kinds::topics::name::{Filter, Topic};
use axon_proto::kinds::topics::rules::{
    Publisher, RELAYED_MESSAGES_PER_MINUTE, Rule, STRANGER_MESSAGES_PER_MINUTE,
};
use axon_proto::kinds::topics::tree::{Given, Gossip};
use axon_proto::limits::*;
use axon_proto::trust::Level;
use axon_proto::wire;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

/// The seed of test 1 in RFC 8032, section 7.1.
const ALICE: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("spec").join(path)).unwrap()
}

fn page() -> String {
    read("kinds/topics.md")
}

/// The rows of the table with this head, by their first cells.
fn rows(page: &str, head: &str) -> BTreeMap<String, String> {
    let table = page.split_once(&format!("\n| {head} |")).unwrap_or_else(|| panic!("no table {head}")).1;
    let lines = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let cells = |line: &str| -> (String, String) {
        let mut cells = line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned());
        (cells.next().unwrap(), cells.next().unwrap())
    };
    lines.map(cells).collect()
}

fn numbers(text: &str) -> Vec<u64> {
    let text = text.replace(',', "_").replace("_ ", " ");
    let parts = text.split(|c: char| !c.is_ascii_digit() && c != '_').map(|part| part.replace('_', ""));
    parts.filter_map(|part| part.parse().ok()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn holds(given: &Given) -> bool {
    let batch = &given.batch;
    UnparsedPublicKey::new(&ED25519, batch.key.0).verify(&batch.signed_bytes(), &batch.sig).is_ok()
}

#[test]
fn limits_are_those_of_the_code() {
    let n = |bound: usize| u64::try_from(bound).unwrap();
    let expected = [
        ("a topic or filter", vec![n(TOPIC_BYTES_MAX), n(TOPIC_LEVELS_MAX)]),
        ("text of `signed`", vec![n(BATCH_BYTES_MAX)]),
        ("messages of a batch", vec![n(BATCH_MESSAGES_MAX)]),
        ("a number", vec![JSON_NUMBER_MAX]),
        ("filters of one list of a join", vec![n(TOPIC_FILTERS_MAX), n(TOPIC_FILTERS_BYTES_MAX)]),
        ("batches in one gossip", vec![n(TOPIC_GOSSIP_BATCHES_MAX)]),
        ("numbers in `have`, and in `want`, of one gossip", vec![n(TOPIC_GOSSIP_SEQS_MAX)]),
        ("sums in one gossip", vec![n(TOPIC_GOSSIP_SUMS_MAX)]),
        ("age of a batch that comes / how far it may be ahead", vec![BATCH_AGE_MS_MAX, BATCH_AHEAD_MS_MAX]),
        ("publishers remembered", vec![n(TOPIC_PUBLISHERS_MAX)]),
        (
            "numbers remembered of one publisher / of all",
            vec![n(TOPIC_SEEN_PER_PUBLISHER_MAX), n(TOPIC_SEEN_MAX)],
        ),
        ("batches held to be given", vec![n(TOPIC_CACHE_BYTES_MAX), TOPIC_CACHE_MS]),
        ("wait of announcements", vec![TOPIC_ANNOUNCE_MS]),
        ("announcements that wait for one neighbour", vec![n(TOPIC_NEWS_MAX)]),
        ("wait for a batch that was announced", vec![TOPIC_WANT_MS, TOPIC_WANT_AGAIN_MS]),
        ("neighbours remembered to have a missing batch", vec![n(TOPIC_ANNOUNCERS_MAX)]),
        ("missing batches of one neighbour", vec![n(TOPIC_MISSING_PER_PEER_MAX)]),
        ("trees in which one neighbour is lazy / of which it was given a batch", vec![n(TOPIC_TREES_MAX)]),
        ("hops that make a neighbour the better giver", vec![u64::from(TOPIC_CLOSER_HOPS)]),
        ("batches remembered to be refused", vec![n(TOPIC_REFUSED_MAX), TOPIC_REFUSED_MS]),
        ("wait before sums are compared", vec![TOPIC_SUM_MS, TOPIC_SUM_AGAIN_MS, u64::from(TOPIC_SUMS)]),
        ("gossip on its way to one neighbour", vec![n(TOPIC_UNDER_WAY_MAX)]),
        ("filters whose history is kept", vec![n(TOPIC_KEEPS_MAX)]),
        ("history of all topics", vec![n(TOPIC_KEPT_BATCHES_MAX), TOPIC_KEPT_BYTES_MAX]),
        ("wait before what is kept is looked at again for what is too old", vec![TOPIC_KEPT_LOOK_MS]),
        ("history asked of one neighbour at once", vec![n(HISTORY_WANT_MAX)]),
        ("history that one neighbour is known to have and is not asked for yet", vec![n(HISTORY_QUEUE_MAX)]),
        ("wait for history that was asked for", vec![HISTORY_WAIT_MS]),
        ("batches of history in a time that are listed instead of split", vec![HISTORY_LIST_MAX]),
        ("wait until a join is said again", vec![TOPIC_JOIN_MS]),
        ("publisher's messages of a minute, of a stranger", vec![STRANGER_MESSAGES_PER_MINUTE]),
        ("messages of strangers that one neighbour gives in a minute", vec![RELAYED_MESSAGES_PER_MINUTE]),
        ("neighbours, each by each rule, whose rate is remembered", vec![n(TOPIC_NEIGHBOUR_RATES_MAX)]),
    ];
    let told: BTreeMap<String, Vec<u64>> =
        rows(&page(), "limit").into_iter().map(|(name, value)| (name, numbers(&value))).collect();
    assert_eq!(told, expected.map(|(name, values)| (name.to_owned(), values)).into());
}

// shows: TOP-BATCH-1, TOP-BATCH-5
#[test]
fn the_example_is_signed_as_it_says() {
    let page = page();
    let text = page.split_once("```text\n").unwrap().1.split_once("\n```").unwrap().0;
    let told = rows(&page, "test vector");
    let cell = |name: &str| told[name].trim_matches('`').to_owned();
    let seed: Vec<u8> =
        (0..32).map(|at| u8::from_str_radix(&ALICE[2 * at..2 * at + 2], 16).unwrap()).collect();
    let alice = Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
    let signed = wire::raw_json(text.to_owned());
    let mut batch = Batch::read(signed, [0; 64]).unwrap();
    let bytes = batch.signed_bytes();
    let (before, hash) = bytes.split_at(13);
    assert_eq!((hex(before), hex(hash)), (cell("before it (hex)"), cell("hash (hex)")));
    assert_eq!(hash, ring::digest::digest(&ring::digest::SHA256, text.as_bytes()).as_ref());
    assert!(page.contains(&format!("this text, which has {} bytes", text.len())));
    batch.sig = alice.sign(&bytes).as_ref().try_into().unwrap();
    assert_eq!(STANDARD.encode(batch.sig), cell("signature (base64)"));
    assert_eq!(format!("{:016x}", batch.mark()), cell("mark"));
    assert_eq!(batch.key.0.as_slice(), alice.public_key().as_ref());
    // And it is what a publisher here would sign.
    let messages = batch.messages().into_iter().map(|(_, message)| message).collect::<Vec<_>>();
    let again = Batch::to_sign(&batch.key, &batch.topic, batch.seq, batch.ts_ms, &messages);
    assert_eq!(again.get(), text);
}

#[test]
fn what_is_shown_has_right_signatures() {
    let examples = vec![read("examples/topic.gossip/batches.json")];
    let lines = page().lines().filter(|line| line.contains("\"batches\"")).map(str::to_owned).collect();
    let mut seen = 0;
    for text in [examples, lines].concat() {
        let payload = match wire::decode(text.clone().into_bytes()) {
            Ok(envelope) => envelope.payload().to_owned(),
            Err(_) => text,
        };
        let read = Gossip::parse(&payload).unwrap();
        assert_eq!(read.malformed, 0, "{:?}", read.why);
        assert!(read.gossip.batches.iter().all(holds), "{payload}");
        seen += read.gossip.batches.len();
    }
    assert_eq!(seen, 3);
}

#[test]
fn rules_begin_as_the_page_says() {
    let told = rows(&page(), "key of a `[[topics.rules]]` table");
    let rule = Rule::default_for(Filter::parse(">").unwrap());
    let word = |level: Level| format!("`{}`", level.as_str());
    assert_eq!((told["`publish`"].as_str(), rule.publish), ("`stranger`", Publisher::Stranger));
    assert_eq!((&told["`subscribe`"], &told["`relay`"]), (&word(rule.subscribe), &word(rule.relay)));
    assert_eq!(numbers(&told["`bytes_max`"]), [rule.bytes_max]);
    assert_eq!(numbers(&told["`messages_per_minute`"]), [STRANGER_MESSAGES_PER_MINUTE, 0]);
    assert_eq!(numbers(&told["`relay_messages_per_minute`"]), [RELAYED_MESSAGES_PER_MINUTE, 0]);
    assert_eq!(told.len(), 7);
}

/// What the grammar allows in a level is what the code takes.
// shows: TOP-NAME-1
#[test]
fn levels_are_made_of_what_the_grammar_says() {
    let page = page();
    let line = page.lines().find_map(|line| line.strip_prefix("level   = 1*( ")).unwrap();
    let mut told = Vec::new();
    for part in line.trim_end_matches(" )").split(" / ") {
        let (from, to) =
            part.strip_prefix("%x").map(|hex| hex.split_once('-').unwrap_or((hex, hex))).unwrap();
        told.extend(u8::from_str_radix(from, 16).unwrap()..=u8::from_str_radix(to, 16).unwrap());
    }
    let taken = |byte: &u8| Topic::parse(&char::from(*byte).to_string()).is_ok();
    assert_eq!(told, (0..=u8::MAX).filter(taken).collect::<Vec<_>>());
}
