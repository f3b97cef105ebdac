//! Who may talk, tried by a peer that means harm: each attack for a second, beside a peer that is served.
//!
//! With `AXON_LONG=1` each goes on for ten seconds. What each came to is printed, with the latency of the
//! peer that is served and the memory of the daemon.

use std::io::Write as _;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::peer;
use crate::peer::foul::{End, Invite, Recorder, Tally, offer_version};
use crate::peer::served::{Served, rss_kib};
use crate::peer::{Key, Link, Manners, RawPeer, hybrid, secp256r1, x25519};
use crate::support::{Daemon, RawClient, wait_for};

/// TLS alerts (RFC 8446, 6).
const HANDSHAKE_FAILURE: End = End::Alert(40);
const UNKNOWN_CA: End = End::Alert(48);
const ACCESS_DENIED: End = End::Alert(49);
const DECRYPT_ERROR: End = End::Alert(51);
const PROTOCOL_VERSION: End = End::Alert(70);
const CERTIFICATE_REQUIRED: End = End::Alert(116);
const NO_APPLICATION_PROTOCOL: End = End::Alert(120);

/// How the answers to knocks begin.
const WITHOUT_INVITE: &str = "reject: this agent takes no knocks without an invite";
const TOO_MANY: &str = "reject: too many knock here now";
const NO_ROOM: &str = "reject: too many knocks wait for the owner";
const WRONG: &str = "reject: this invite is wrong, used, revoked or expired";
const SLOWED: &str = "reject: too many wrong proofs from your key or address";
const CROWD: &str = "closed 1: too many strangers";

fn long() -> bool {
    std::env::var_os("AXON_LONG").is_some()
}

fn status(daemon: &Daemon) -> Value {
    daemon.client().ok(json!({"cmd":"status"}))
}

/// An address of this machine that nothing else comes from, where it has more than one.
fn elsewhere(last: u8) -> String {
    format!("127.0.0.{}", if cfg!(target_os = "linux") { last } else { 1 })
}

// --- the attacks ---

struct Stage {
    daemon: Daemon,
    /// Pinned, and up to no good all the same.
    evil: RawPeer,
    /// Known to nobody.
    stranger: RawPeer,
    good: Key,
    entries: String,
    /// Told of knocks.
    owner: Mutex<RawClient>,
}

impl Stage {
    fn link(&self) -> Link {
        self.evil.dial(&self.daemon).greeted()
    }

    fn knocks(&self, settings: &str) {
        self.daemon
            .set_config(&format!("inbound_read_timeout_secs = 1\n[knock]\n{settings}\n{}", self.entries));
        self.daemon.reload();
    }

    fn trust(&self, level: &str) {
        self.daemon.client().ok(json!({"cmd":"trust","peer":self.evil.id,"trust":level}));
    }

    /// Many handshakes, all of which must end like this.
    fn refused(
        &self,
        until: Instant,
        key: impl Fn() -> Key + Send + Sync + 'static,
        how: Manners,
        end: End,
    ) -> Tally {
        let manners = move || (key(), how.clone());
        let tally = self.stranger.visits(&self.daemon, until, 8, manners, |_| Vec::new());
        tally.only(10, &[&end.to_string()])
    }
}

fn bytes(envelope: &Value) -> Vec<u8> {
    envelope.to_string().into_bytes()
}

fn query(link: &Link) -> Value {
    link.envelope("query", json!({"question":"q"}))
}

fn an_unpinned_key(stage: &Stage, until: Instant) -> Tally {
    stage.refused(until, Key::new, Manners::default(), UNKNOWN_CA)
}

fn the_certificate_of_another(stage: &Stage, until: Instant) -> Tally {
    let how = Manners { poses_as: Some(stage.good.clone()), ..Manners::default() };
    stage.refused(until, Key::new, how, DECRYPT_ERROR)
}

fn the_daemons_own_certificate(stage: &Stage, until: Instant) -> Tally {
    let how = Manners { poses_as: Some(stage.link().shown()), ..Manners::default() };
    stage.refused(until, Key::new, how, UNKNOWN_CA)
}

/// The right key, and something else that does not fit.
fn wrong_handshakes(stage: &Stage, until: Instant) -> Tally {
    let (daemon, evil) = (&stage.daemon, &stage.evil);
    let polite = Manners::default();
    let named = |name: &str| Manners { name: Some(name.to_owned()), ..polite.clone() };
    let cases = [
        (named("localhost"), ACCESS_DENIED),
        (named(&evil.id), ACCESS_DENIED),
        (named(&stage.good.id), ACCESS_DENIED),
        (Manners { alpn: b"axon/2", ..polite.clone() }, NO_APPLICATION_PROTOCOL),
        (Manners { alpn: b"h3", ..polite.clone() }, NO_APPLICATION_PROTOCOL),
        (Manners { groups: vec![secp256r1()], ..polite.clone() }, HANDSHAKE_FAILURE),
        (Manners { shows_certificate: false, ..polite.clone() }, CERTIFICATE_REQUIRED),
    ];
    let mut tally = Tally::default();
    while Instant::now() < until {
        for (manners, end) in &cases {
            assert_eq!(evil.shut_out(daemon, &evil.key, manners), *end);
            tally.add(end);
        }
        assert_eq!(evil.offer_tls12(daemon), PROTOCOL_VERSION);
        tally.add(PROTOCOL_VERSION);
        // A version of QUIC that is none, and version 2: it is told which there are.
        for version in [0x0a1a_2a3a, 0x6b33_43cf] {
            let spoken = offer_version(daemon, version);
            assert!(spoken.contains(&1) && !spoken.contains(&version), "{spoken:x?}");
            tally.add("version negotiation");
        }
    }
    for groups in [vec![x25519()], vec![hybrid()]] {
        let good = Manners { groups, ..polite.clone() };
        assert_eq!(evil.dial_as(daemon, &good).unwrap().greet().unwrap()["kind"], "hello");
    }
    tally
}

fn messages_before_hello(stage: &Stage, until: Instant) -> Tally {
    let dropped = || status(&stage.daemon)["dropped"]["before_hello"].as_u64().unwrap();
    let mut tally = Tally::default();
    while Instant::now() < until {
        let link = stage.evil.dial(&stage.daemon);
        let before = dropped();
        let one_way: Vec<Vec<u8>> = (0..100).map(|n| bytes(&link.note(n))).collect();
        assert!(link.pour(&one_way));
        // It is closed if it says no hello for too long.
        let soon = until.min(Instant::now() + Duration::from_secs(2));
        let refused = link.flood(soon, 16, |link, n| {
            let kind = ["query", "delegate", "ping", "discover", "notify", "cancel"][n as usize % 6];
            bytes(&link.envelope(kind, json!({"question":"q","task":"t","topic":"t","data":1})))
        });
        wait_for("all of them to be counted", || (dropped() == before + refused.all() + 100).then_some(()));
        tally.join(refused);
        link.close();
    }
    tally.only(200, &["error not_authorized"])
}

fn a_from_that_is_not_its_own(stage: &Stage, until: Instant) -> Tally {
    let (link, good, me) = (stage.link(), stage.good.id.clone(), stage.daemon.id().to_owned());
    let tally = link.flood(until, 16, move |link, n| {
        let mut query = query(link);
        query["from"] = json!([&good, &me][n as usize % 2]);
        bytes(&query)
    });
    link.close();
    tally.only(200, &["error not_authorized"])
}

fn replays(stage: &Stage, until: Instant) -> Tally {
    let link = stage.link();
    let ping = link.envelope("ping", json!({}));
    assert_eq!(link.outcome(&ping), "pong");
    let again = bytes(&ping);
    let tally = link.flood(until, 16, move |_, _| again.clone());
    link.close();
    tally.only(200, &["reset 0"])
}

/// Packets of a connection that began in 0-RTT, played from another address.
fn a_recorded_flight(stage: &Stage, until: Instant) -> Tally {
    let recorder = Recorder::new(&stage.daemon);
    let first = stage.link();
    let said = [first.hello(), query(&first), first.envelope("ping", json!({}))];
    assert_eq!(first.outcome(&first.envelope("ping", json!({}))), "pong", "the ticket is here");
    first.close();
    let (link, taken, answers) = stage.evil.dial_early_at(&stage.daemon, recorder.addr, &said);
    assert!(taken && answers.iter().all(Result::is_ok), "{taken} {answers:?}");
    let replayed = || status(&stage.daemon)["dropped"]["replayed"].clone();
    let before = replayed();
    let half = Instant::now() + (until - Instant::now()) / 2;
    let mut tally = Tally::default();
    while Instant::now() < until {
        if Instant::now() > half {
            link.close();
        }
        let back = recorder.play(&stage.daemon);
        tally.add(if back > 0 {
            "flights, answered with another handshake"
        } else {
            "flights, not answered"
        });
    }
    // Whoever plays them cannot end that handshake, and nothing of what is in them is seen.
    assert_eq!(replayed(), before);
    let connected = || status(&stage.daemon)["peers_connected"] == 1;
    wait_for("nobody but the peer that is served", || connected().then_some(()));
    tally
}

fn oversized_and_endless_streams(stage: &Stage, until: Instant) -> Tally {
    let link = stage.link();
    let mut tally = Tally::default();
    while Instant::now() < until {
        for _ in 0..20 {
            let (sent, end) = link.endless();
            assert!(sent < 200_000, "{sent} bytes were taken");
            assert_eq!(end, "stopped 4");
            tally.add(end);
        }
        let soon = Instant::now() + Duration::from_millis(50);
        let padded = bytes(&link.envelope("ping", json!({"pad":"x".repeat(65_537)})));
        tally.join(link.flood(soon, 16, move |_, _| padded.clone()).only(1, &["reset 4"]));
    }
    assert_eq!(link.outcome(&link.envelope("ping", json!({}))), "pong");
    link.close();
    tally
}

fn streams_that_are_never_finished(stage: &Stage, until: Instant) -> Tally {
    // On each of as many connections as one peer may have.
    let links: Vec<Link> = (0..4).map(|_| stage.link()).collect();
    let mut tally = Tally::default();
    // Until there were enough: who is slow sees many end with a connection that is closed.
    let late = until + Duration::from_secs(20);
    while Instant::now() < until || (tally.of("stopped 4") < 800 && Instant::now() < late) {
        let threads: Vec<_> = links
            .iter()
            .cloned()
            .map(|link| std::thread::spawn(move || link.unfinished(400, b"{\"v\":1,")))
            .collect();
        threads.into_iter().for_each(|thread| tally.join(thread.join().unwrap()));
    }
    let last = links.last().unwrap();
    assert_eq!(last.outcome(&last.envelope("ping", json!({}))), "pong");
    links.iter().for_each(Link::close);
    // Of four connections of one peer three are to close, and do when nothing is read on them any more.
    assert!(tally.of("stopped 4") >= 800 && tally.of("not allowed") > 0, "{tally}");
    tally.only(1_600, &["stopped 4", "not allowed", "closed 2: duplicate"])
}

fn thousands_of_streams(stage: &Stage, until: Instant) -> Tally {
    let link = stage.link();
    let tally = link.flood(until, 256, |link, n| {
        bytes(&if n % 8 == 0 { query(link) } else { link.envelope("ping", json!({})) })
    });
    link.close();
    tally.only(1_000, &["pong", "response"])
}

/// What an invite opens the door for, as far as it is not to pair.
fn strangers_beside_an_invite(stage: &Stage, until: Instant) -> Tally {
    let invite = stage.daemon.client().ok(json!({"cmd":"invite"}));
    let says = |link: &Link| {
        let mut hello = link.hello();
        hello["payload"]["agent_name"] = "x".repeat(1_000).into();
        let mut says = vec![query(link), hello, query(link), link.envelope("ping", json!({}))];
        says.extend((0..4).map(|_| link.envelope("knock", json!({"name":"x","message":"y".repeat(600)}))));
        says
    };
    let tally = stage.stranger.visits(&stage.daemon, until, 8, || (Key::new(), Manners::default()), says);
    stage.daemon.client().ok(json!({"cmd":"revoke_invite","id":invite["invite"]}));
    assert!(tally.of("hello") >= 2 && tally.of("error not_authorized") >= 2 * tally.of("hello"), "{tally}");
    tally.only(20, &["hello", "error not_authorized", WITHOUT_INVITE, TOO_MANY, CROWD, "alert 48"])
}

fn knocks_by_the_thousand(stage: &Stage, until: Instant) -> Tally {
    stage.knocks("open = true");
    let home = RawPeer::at(&elsewhere(10));
    let mut tally = Tally::default();
    while Instant::now() < until {
        // One key after the other, all from one address.
        let (link, hello) = stage.enter(&home, &Key::new());
        let hello = &hello["payload"];
        assert_eq!((&hello["stranger"], &hello["features"]), (&json!(true), &json!(["knock"])), "{hello}");
        let soon = until.min(Instant::now() + Duration::from_millis(100));
        let knock = |link: &Link| bytes(&link.envelope("knock", json!({"name":"k","message":"in"})));
        tally.join(link.flood(soon, 4, move |link, _| knock(link)));
        link.close();
    }
    stage.settle(30);
    tally.only(300, &["pending", TOO_MANY])
}

fn more_keys_than_may_wait(stage: &Stage, until: Instant) -> Tally {
    stage.knocks("open = true\nper_minute = 100000");
    let mut tally = Tally::default();
    // Of one address 8 may wait, of all together 64.
    let homes: Vec<RawPeer> = (20..29).map(|last| RawPeer::at(&elsewhere(last))).collect();
    let (most, late) = (if cfg!(target_os = "linux") { 64 } else { 8 }, until + Duration::from_secs(10));
    let (mut waiting, mut full) = (0, 0);
    for home in homes.iter().cycle() {
        let (link, _) = stage.enter(home, &Key::new());
        let said = link.outcome(&link.envelope("knock", json!({"name":"k"})));
        link.close();
        waiting += u64::from(said.starts_with("pending"));
        full += u64::from(said.starts_with(NO_ROOM));
        tally.add(said);
        assert!(Instant::now() < late, "{tally}");
        if waiting >= most && full > 0 && Instant::now() > until {
            break;
        }
    }
    stage.settle(64);
    assert_eq!(waiting, most, "{tally}");
    tally.only(most + 1, &["pending", NO_ROOM, TOO_MANY])
}

fn guessed_invites(stage: &Stage, until: Instant) -> Tally {
    stage.knocks("open = false");
    let begun = Instant::now();
    let invite = stage.daemon.client().ok(json!({"cmd":"invite"}));
    let invite = Invite::of(invite["link"].as_str().unwrap());
    let home = RawPeer::at(&elsewhere(30));
    let mut tally = Tally::default();
    while Instant::now() < until {
        let key = Key::new();
        let (link, _) = stage.enter(&home, &key);
        let soon = until.min(Instant::now() + Duration::from_millis(100));
        let wrong = invite.misremembered();
        tally.join(
            link.flood(soon, 4, move |link, _| bytes(&link.envelope("knock", wrong.knock(link, &key)))),
        );
        link.close();
    }
    // One is judged, and after 1, 2, 4 … seconds one more, whichever key it is of.
    let judged: u64 =
        tally.0.iter().filter(|(said, _)| said.starts_with(WRONG)).map(|(_, count)| count).sum();
    let most = 1 + u64::from((begun.elapsed().as_secs() + 1).ilog2());
    assert!((1..=most).contains(&judged), "{judged} of {tally}");
    tally.only(100, &[WRONG, SLOWED, TOO_MANY])
}

fn a_flood_of_an_unknown_peer(stage: &Stage, until: Instant) -> Tally {
    stage.trust("unknown");
    let link = stage.link();
    let delegate = link.envelope("delegate", json!({"task":"t"}));
    let answer = link.ask(&delegate).unwrap();
    assert_eq!(answer["payload"]["code"], "not_authorized", "{answer}");
    let says = answer["payload"]["message"].as_str().unwrap();
    assert!(says.contains(&format!("axon trust {} known", stage.evil.id)), "{says}");
    let tally = link.flood(until, 16, |link, _| bytes(&query(link)));
    let answer = link.ask(&query(&link)).unwrap();
    assert_eq!(
        (&answer["payload"]["code"], &answer["payload"]["retryable"]),
        (&json!("overloaded"), &json!(true))
    );
    let wait = answer["payload"]["retry_after_ms"].as_u64();
    assert!(wait.is_some_and(|ms| (1..=2_000).contains(&ms)), "{answer}");
    // 30 a minute, and what has come back by now.
    let most = 31 + until.elapsed().as_secs() + if long() { 10 } else { 2 };
    assert!((20..=most).contains(&tally.of("response")), "{tally}");
    link.close();
    stage.trust("known");
    tally.only(200, &["response", "error overloaded"])
}

fn a_blocked_peer_at_the_door(stage: &Stage, until: Instant) -> Tally {
    let link = stage.link();
    stage.trust("blocked");
    assert_eq!(link.end(), End::Closed(0, "not known here any more".into()));
    let mut tally = Tally::default();
    while Instant::now() < until {
        // With the tickets of all its connections, while there are any.
        let end = match stage.evil.try_dial(&stage.daemon) {
            Err(end) => end,
            Ok(link) => link.end(),
        };
        assert_eq!(end, UNKNOWN_CA, "as any stranger");
        tally.add(end);
    }
    stage.trust("known");
    tally
}

impl Stage {
    /// In as a stranger, as soon as there is room for one more from that address.
    fn enter(&self, from: &RawPeer, key: &Key) -> (Link, Value) {
        wait_for("room for a stranger", || match from.enter(&self.daemon, key) {
            Ok(entered) => Some(entered),
            Err(End::Closed(1, _)) => None,
            Err(other) => panic!("{other}"),
        })
    }

    /// So many knocks wait, at most; the owner was told of each once, and takes them away.
    fn settle(&self, most: usize) {
        let mut owner = self.owner.lock().unwrap();
        let knocks = owner.ok(json!({"cmd":"knocks"}))["knocks"].as_array().unwrap().clone();
        assert!((1..=most).contains(&knocks.len()), "{}", knocks.len());
        let told: Vec<Value> = owner.events.drain(..).map(|event| event["id"].clone()).collect();
        assert_eq!(told.len(), knocks.len());
        for knock in &knocks {
            assert!(told.contains(&knock["id"]), "{knock}");
            owner.ok(json!({"cmd":"deny","id":knock["agent_id"]}));
        }
        assert_eq!(owner.ok(json!({"cmd":"status"}))["knocks"], 0);
    }
}

type Attack = fn(&Stage, Instant) -> Tally;

const ATTACKS: &[(&str, Attack)] = &[
    ("an unpinned key", an_unpinned_key),
    ("another's certificate", the_certificate_of_another),
    ("our own certificate", the_daemons_own_certificate),
    ("SNI, ALPN, group, version", wrong_handshakes),
    ("messages before hello", messages_before_hello),
    ("a from not its own", a_from_that_is_not_its_own),
    ("replays", replays),
    ("a recorded 0-RTT flight", a_recorded_flight),
    ("oversized and endless", oversized_and_endless_streams),
    ("streams never finished", streams_that_are_never_finished),
    ("thousands of streams", thousands_of_streams),
    ("strangers by an invite", strangers_beside_an_invite),
    ("knocks by the thousand", knocks_by_the_thousand),
    ("more knocks than places", more_keys_than_may_wait),
    ("guessed invites", guessed_invites),
    ("an unknown peer's flood", a_flood_of_an_unknown_peer),
    ("blocked, with tickets", a_blocked_peer_at_the_door),
];

// shows: WF-TLS-4
#[test]
fn a_pinned_peer_is_served_throughout() {
    let (evil, good) = (RawPeer::new(), RawPeer::new());
    let entries = format!("{}{}", evil.quiet_entry("evil"), good.quiet_entry("good"));
    let daemon = Daemon::start(&format!("inbound_read_timeout_secs = 1\n{entries}"));
    let owner = Mutex::new(daemon.answerer(json!({"kinds":["knock"],"replay":false})));
    let served = Served::begin(&good, &daemon);
    let stage = Stage { daemon, evil, stranger: RawPeer::new(), good: good.key.clone(), entries, owner };
    let time = Duration::from_secs(if long() { 10 } else { 1 });
    let mut table = String::from("hostile: what the pinned peer and the daemon saw of it\n");
    let mut row = |name: &str, tally: &str| {
        let (count, median, longest) = served.since();
        let (rss, ms) = (rss_kib(stage.daemon.pid()), |time: Duration| time.as_secs_f64() * 1e3);
        let (median, longest) = (ms(median), ms(longest));
        table += &format!(
            "{name:<26} {count:>5} queries, median {median:>6.2} ms, longest {longest:>7.2} ms, \
             {rss:>6} KiB | {tally}\n"
        );
    };
    // Once through everything that is only allocated once.
    std::thread::sleep(time / 2);
    served.since();
    let before_kib = rss_kib(stage.daemon.pid());
    std::thread::sleep(time); // measured is what happens meanwhile
    row("quiet", "");
    for (name, attack) in ATTACKS {
        let tally = attack(&stage, Instant::now() + time);
        row(name, &tally.to_string());
    }
    std::thread::sleep(time / 2); // measured is what happens meanwhile
    row("quiet again", "");
    let (after_kib, peak_kib) = (rss_kib(stage.daemon.pid()), *served.peak_kib.lock().unwrap());
    let audit = std::fs::metadata(stage.daemon.root().join("audit.jsonl")).map_or(0, |file| file.len());
    writeln!(
        std::io::stderr().lock(),
        "{table}hostile: {before_kib} KiB before, {after_kib} KiB after, {peak_kib} KiB at most; \
         {audit} bytes of audit log"
    )
    .ok();
    served.end();
    assert!(after_kib - before_kib < 20 * 1_024, "{before_kib} KiB, then {after_kib} KiB");
    assert!(audit < 200_000, "{audit} bytes of audit log");
}

// --- one at a time ---

/// A knock on this connection by this key, whose proof is not its own.
type Forgery<'a> = dyn Fn(&Link, &Key) -> Value + 'a;

#[test]
fn guessed_invites_are_counted_and_slowed_by_key_and_by_address() {
    let mut daemon = Daemon::start("");
    let mut owner = daemon.client();
    let [home, away, third] = [1, 2, 3].map(|last| RawPeer::at(&elsewhere(last)));
    let made = owner.ok(json!({"cmd":"invite","uses":2,"trust":"known","label":"two"}));
    let link = made["link"].as_str().unwrap();
    let invite = Invite::of(link);
    assert_eq!(made["invite"], invite.id);
    let wrong = invite.misremembered();
    let enter = |from: &RawPeer, key: &Key| from.enter(&daemon, key).unwrap().0;
    // By whom, from where, and by which invite; what is said to it, and how long to wait.
    let knock = |from: &RawPeer, key: &Key, invite: &Invite| {
        let link = enter(from, key);
        let said = link.knock(invite.knock(&link, key));
        link.close();
        let decision = said["decision"].as_str().unwrap();
        let text = format!("{decision}: {}", said["reason"].as_str().unwrap_or_default());
        (text, said["retry_after_ms"].as_u64())
    };
    let several = cfg!(target_os = "linux");
    let (guesser, other, guest) = (Key::new(), Key::new(), Key::new());
    // Each time twice as long, whichever key it is: the second guess is another's, of an invite of its own.
    let mut begun = Instant::now();
    for (key, guess, wait) in [
        (&guesser, &wrong, 1_000),
        (&other, &Invite::made(b"anything at all.", [7; 32]), 2_000),
        (&guesser, &wrong, 4_000),
    ] {
        let said = knock(&home, key, guess);
        assert!(said.0.starts_with(WRONG) && said.1 == Some(wait), "{said:?}, and not {wait} ms");
        begun = Instant::now();
        if wait < 4_000 {
            // What is tested is that time passes.
            std::thread::sleep(Duration::from_millis(wait + 50));
        }
    }
    // Meanwhile not even the right one is looked at: by this key from anywhere, from here by anybody.
    let slowed = |said: (String, Option<u64>)| {
        assert!(said.0.starts_with(SLOWED) && said.1.is_some_and(|ms| (1..=4_000).contains(&ms)), "{said:?}");
    };
    slowed(knock(&home, &guesser, &invite));
    slowed(knock(&home, &other, &invite));
    if several {
        slowed(knock(&away, &guesser, &invite));
        assert_eq!(knock(&away, &guest, &invite).0, "accept: ", "another key from another address");
    }

    // A proof is of one connection, of one key, and of one host.
    let cases: [&Forgery; 3] = [
        &|_, key| {
            let link = enter(&third, key);
            let proof = invite.knock(&link, key);
            link.close();
            proof
        },
        &|link, _| invite.knock(link, &guest),
        &|link, key| invite.at([7; 32]).knock(link, key),
    ];
    for (n, proof) in cases.iter().enumerate().filter(|_| several) {
        let from = RawPeer::at(&elsewhere(40 + n as u8));
        let key = Key::new();
        let link = enter(&from, &key);
        let said = link.knock(proof(&link, &key));
        assert_eq!((&said["decision"], &said["retry_after_ms"]), (&json!("reject"), &json!(1_000)), "{said}");
        link.close();
    }
    // What is tested is that time passes.
    std::thread::sleep(Duration::from_millis(4_050).saturating_sub(begun.elapsed()));
    assert_eq!(knock(&home, &guesser, &invite).0, "accept: ", "after the wait");
    if several {
        // Used up: nobody is heard any more, with or without it.
        assert_eq!(third.enter(&daemon, &Key::new()).map(drop), Err(UNKNOWN_CA));
        let row = |status: &Value| ["invites", "knocks", "strangers"].map(|field| status[field].clone());
        wait_for("nobody to be left", || (row(&status(&daemon)) == [0, 0, 0]).then_some(()));
    }
    // Each of them is in the audit log, and each pairing.
    let status = daemon.terminate();
    assert!(status.success());
    let count = |event: &str| {
        let rows = std::fs::read_to_string(daemon.root().join("audit.jsonl")).unwrap();
        let rows = rows.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        rows.filter(|row| row["event"] == event).map(|row| row["count"].as_u64().unwrap()).sum::<u64>()
    };
    assert_eq!((count("guess"), count("paired")), if several { (6, 2) } else { (3, 1) });
}

#[test]
fn a_stranger_is_heard_briefly_and_says_little() {
    let daemon = Daemon::start("name = \"somebody\"\n[knock]\nopen = true\n");
    let home = RawPeer::at(&elsewhere(60));
    let begun = Instant::now();
    let (link, hello) = home.enter(&daemon, &Key::new()).unwrap();
    let hello = &hello["payload"];
    assert_eq!((&hello["stranger"], &hello["features"]), (&json!(true), &json!(["knock"])), "{hello}");
    assert_eq!(hello.get("agent_name"), None);
    // Hello again tells it no more, and nothing but a knock is taken.
    assert_eq!(link.greet().unwrap()["payload"]["features"], json!(["knock"]));
    for kind in
        ["ping", "query", "delegate", "discover", "notify", "cancel", "rekey", "teleport", "admission"]
    {
        let envelope = link.envelope(kind, json!({"question":"q","task":"t","topic":"t","data":1}));
        assert_eq!(link.outcome(&envelope), "error not_authorized", "{kind}");
    }
    for payload in [json!({"name":1}), json!({"message":"x".repeat(3_000)})] {
        assert_eq!(link.outcome(&link.envelope("knock", payload)), "error invalid_envelope");
    }
    assert_eq!(link.outcome(&link.envelope("knock", json!({"message":"x".repeat(9_000)}))), "reset 4");
    let (sent, end) = link.endless();
    assert!(sent < 100_000 && end == "stopped 4", "{sent} bytes, {end}");
    // Four streams, and none of those that go one way.
    let halves: Vec<_> = (0..4).map(|_| link.open().unwrap()).collect();
    assert!(!link.may_open(true) && !link.may_open(false));
    drop(halves);

    // Two from one address; where there are several addresses, eight in all.
    let second = home.enter(&daemon, &Key::new()).unwrap();
    let full = || Err(End::Closed(1, "too many strangers: try again".into()));
    assert_eq!(home.enter(&daemon, &Key::new()).map(drop), full());
    let mut others = Vec::new();
    if cfg!(target_os = "linux") {
        for n in 0..6 {
            let from = RawPeer::at(&elsewhere(61 + n / 2));
            others.push((from.enter(&daemon, &Key::new()).unwrap(), from));
        }
        let last = RawPeer::at(&elsewhere(70));
        assert_eq!(last.enter(&daemon, &Key::new()).map(drop), full());
        assert_eq!(status(&daemon)["strangers"], 8);
    }
    assert_eq!(link.end(), End::Closed(4, "strangers are heard briefly".into()));
    let took = begun.elapsed().as_millis();
    assert!((9_900..11_500).contains(&took), "{took} ms");
    assert_eq!(second.0.end(), End::Closed(4, "strangers are heard briefly".into()));
    for ((link, _), _from) in &others {
        assert_eq!(link.end(), End::Closed(4, "strangers are heard briefly".into()));
    }
    wait_for("their places", || (status(&daemon)["strangers"] == 0).then_some(()));
    home.enter(&daemon, &Key::new()).unwrap();
}

#[test]
fn what_was_recorded_before_a_restart_is_worth_nothing_after_it() {
    let peer = RawPeer::new();
    let mut daemon = Daemon::start(&peer.quiet_entry("raw"));
    let mut agent = daemon.answerer(json!({"answer":["query","delegate"],"kinds":["notify"]}));
    let recorder = Recorder::new(&daemon);
    // Three tickets.
    let links = [(); 3].map(|()| peer.dial(&daemon).greeted());
    links.iter().for_each(|link| assert_eq!(link.outcome(&link.envelope("ping", json!({}))), "pong"));
    let (hello, query) = (links[0].hello(), query(&links[0]));
    let answering = std::thread::spawn(move || {
        agent.answer_one("once");
        agent
    });
    let (early, taken, answers) = peer.dial_early_at(&daemon, recorder.addr, &[hello.clone(), query.clone()]);
    assert!(taken && answers.iter().all(Result::is_ok), "{taken} {answers:?}");
    let mut agent = answering.join().unwrap();
    early.close();
    links.iter().for_each(Link::close);
    wait_for("an answer, as the connection is forgotten", || (recorder.play(&daemon) > 0).then_some(()));
    agent.silent();
    let id: axon_proto::id::MsgId = query["id"].as_str().unwrap().parse().unwrap();
    wait_for("the replay record", || {
        let record = std::fs::read(daemon.root().join("replay.log")).unwrap();
        record.windows(16).any(|window| window == id.0).then_some(())
    });

    daemon.kill9();
    daemon.up();
    let mut agent = daemon.answerer(json!({"answer":["query","delegate"],"kinds":["notify"]}));
    let received = status(&daemon)["messages_received"].clone();
    for _ in 0..3 {
        assert!(recorder.play(&daemon) > 0, "a handshake is begun, which nobody can end");
    }
    agent.silent();
    assert_eq!(
        (&status(&daemon)["messages_received"], &status(&daemon)["peers_connected"]),
        (&received, &json!(0))
    );
    // Nor is the ticket of any use, to the peer itself.
    let (link, taken, answers) = peer.dial_early(&daemon, &[hello, query.clone()]);
    assert!(!taken && answers.iter().all(Result::is_err), "{taken} {answers:?}");
    assert_eq!(link.clone().greeted().outcome(&query), "reset 0", "this message was seen");
    link.close();
    // With a new ticket: the message is known all the same.
    let (link, taken, answers) = peer.dial_early(&daemon, &[link.hello(), query]);
    assert!(taken && answers[0].is_ok(), "{taken} {answers:?}");
    assert_eq!(answers[1], Err(peer::Fault::Reset));
    assert_eq!(link.outcome(&link.envelope("ping", json!({}))), "pong");
    agent.silent();
}
