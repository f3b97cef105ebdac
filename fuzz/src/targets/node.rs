//! The session state machine and all that lies behind it: any inputs in any order.
//!
//! The bytes are choices: what happens next, to whom, and with which words. See [`World`] for what must hold.

use axon_proto::limits::SILENCE_MS;
use axon_proto::node::Input;
use axon_proto::sim::disk::Unsynced;
use serde_json::{Value, json};

use crate::dice::{Bytes, Dice};
use crate::json::Json;
use crate::schema::{self, Schemas};
use crate::targets::payload::KINDS;
use crate::world::{End, Peer, World};

/// Things that happen.
const STEPS_MAX: usize = 150;

/// Plays what the bytes say, and then lets all come to its end.
pub fn run(data: &[u8]) {
    let mut bytes = Bytes(data);
    let mut world = World::new();
    let mut commands = 0;
    for _ in 0..STEPS_MAX {
        if bytes.at_end() {
            break;
        }
        step(&mut world, &mut bytes, &mut commands);
    }
    world.finish();
}

fn step(world: &mut World, bytes: &mut Bytes<'_>, commands: &mut u64) {
    match bytes.byte() % 40 {
        0..12 => {
            let at = bytes.below(4);
            let client = world.client(at, (at == 3).then_some("bot"));
            let mut command = command(world, bytes);
            if !bytes.once_in(32) {
                *commands += 1;
                command.set("req_id", Json::text(&format!("r-{commands}")));
            }
            world.say(client, command.to_string().into_bytes());
        }
        12 => {
            let client = world.client(bytes.below(4), None);
            *commands += 1;
            let hello = json!({
                "cmd":"hello","req_id":format!("r-{commands}"),"version":2,
                "consumer":bytes.one(&["default", "a", "b"]),
            });
            world.say(client, hello.to_string().into_bytes());
        }
        13 => {
            let client = world.client(bytes.below(4), None);
            match bytes.below(4) {
                0 => world.leave(client, false),
                1 => world.leave(client, true),
                2 => world.slow(client, true),
                _ => world.slow(client, false),
            }
        }
        14 | 15 => {
            let peer = Peer::ALL[bytes.below(3)];
            let polite = !bytes.once_in(8);
            world.connect(peer, polite);
        }
        16 | 17 => {
            let end = end(bytes);
            world.dial_ends(&end);
        }
        18..24 => said(world, bytes, true),
        24 | 25 => said(world, bytes, false),
        26..30 => {
            let all = world.under_way();
            if let Some(token) = all.get(bytes.below(all.len())) {
                let end = end(bytes);
                world.reply(*token, &end);
            }
        }
        30 => {
            let all = world.conns();
            if let Some(conn) = all.get(bytes.below(all.len())).copied() {
                match bytes.below(4) {
                    0 => world.other(Input::Silent { conn }),
                    1 => world.other(Input::Alive { conn }),
                    2 => world.other(Input::BadStream { conn, why: "stalled" }),
                    _ => world.disconnect(conn),
                }
            }
        }
        31 => {
            let all = world.waiting();
            if let Some(stream) = all.get(bytes.below(all.len())) {
                world.give_up(*stream);
            }
        }
        32 | 33 => {
            let ms = bytes.one(&[1, SILENCE_MS, 5_000, 31_000, 61_000]);
            world.wait(ms);
        }
        34 => world.stall(bytes.byte().is_multiple_of(2)),
        35 => world.one_job(),
        36 => {
            let faults = bytes.byte();
            world.disk_fault(faults % 4 == 1, faults % 4 == 2, faults % 8 == 7);
        }
        37 if bytes.once_in(4) => world.stop(),
        37 => {
            let unsynced = match bytes.byte() % 4 {
                0 => Unsynced::Dropped,
                1 => Unsynced::Kept,
                _ => Unsynced::Some(u64::from(bytes.byte())),
            };
            world.crash(unsynced);
        }
        38 => {
            let (peer, open) = (Peer::ALL[bytes.below(3)], bytes.byte().is_multiple_of(2));
            match bytes.below(3) {
                0 => world.settings(|settings| settings.knock.open = open),
                1 => {
                    let addrs = vec![([192, 0, 2, 9], 7_100).into()];
                    world.other(Input::Found { id: peer.id(), key: peer.key(), addrs });
                }
                _ => world.other(Input::HandshakeRefused { id: peer.id() }),
            }
        }
        _ => answerer(world, bytes, commands),
    }
}

/// A peer comes, and a client that answers it: the next messages are of one piece.
fn answerer(world: &mut World, bytes: &mut Bytes<'_>, commands: &mut u64) {
    let peer = Peer::ALL[bytes.below(2)];
    world.connect(peer, true);
    let client = world.client(0, None);
    *commands += 1;
    let hello = json!({"cmd":"hello","req_id":format!("r-{commands}"),"version":2}).to_string();
    world.say(client, hello.into_bytes());
    *commands += 1;
    let subscribe = json!({
        "cmd":"subscribe","req_id":format!("r-{commands}"),"answer":["query", "delegate", "cancel"],
        "capacity":1 + bytes.below(3),
    });
    world.say(client, subscribe.to_string().into_bytes());
}

/// How something ends, mostly well.
fn end(bytes: &mut Bytes<'_>) -> End {
    match bytes.byte() % 16 {
        0 => End::Reset,
        1 | 2 => End::Lost,
        3 => End::Bytes(bytes.take(8).to_vec()),
        4 => End::Refused("overloaded"),
        5 => End::Refused("not_authorized"),
        6 => End::Refused("a code of tomorrow"),
        _ => End::Well,
    }
}

/// A command of a client: one that means something in this world, or any.
fn command(world: &World, bytes: &mut Bytes<'_>) -> Json {
    let to = ["alice", "carol", "nobody"][bytes.below(8) / 3];
    let hold = bytes.one(&[1, 60, 3_600, 2_592_000]);
    let held = world.held_requests();
    let held = held.get(bytes.below(held.len())).map(|(_, id)| id.clone());
    let of = held.clone().unwrap_or_else(|| schema::message(bytes));
    let value: Value = match bytes.byte() % 24 {
        0 => {
            json!({"cmd":"send","to":to,"kind":"query","payload":{"question":"q","deadline_ms":bytes.below(9_000)}})
        }
        1 => json!({"cmd":"send","to":to,"kind":"delegate","payload":{"task":"t"}}),
        2 => {
            json!({"cmd":"send","to":to,"kind":"delegate","payload":{"task":"t","deadline_ms":9_000},"hold_secs":hold})
        }
        3 => json!({"cmd":"send","to":to,"kind":"notify","payload":{"topic":"t","data":1}}),
        4 | 5 => json!({
            "cmd":"send","to":to,"kind":"notify","payload":{"topic":"t","data":1},"hold_secs":hold,
            "read_receipt":bytes.byte().is_multiple_of(2),
        }),
        6 => {
            let all = world.sent_ids(Some("delegate"));
            let id = all.get(bytes.below(all.len())).cloned().unwrap_or_else(|| schema::message(bytes));
            json!({"cmd":"send","kind":"cancel","ref":id})
        }
        7 => json!({"cmd":"send","to":to,"kind":bytes.one(&["ping", "discover"])}),
        8 | 9 => {
            let kind = bytes.one(&["response", "ack", "progress", "result", "error"]);
            let payload = match kind {
                "response" => json!({"data":null,"summary":"s"}),
                "ack" => json!({"accepted":!bytes.once_in(4)}),
                "progress" => json!({"state":"running"}),
                "result" => json!({"status":"completed","outcome":"o"}),
                _ => json!({"code":"unhandled","message":"m","retryable":false}),
            };
            json!({"cmd":"reply","ref":of,"kind":kind,"payload":payload})
        }
        10 => json!({"cmd":"subscribe"}),
        11 => json!({"cmd":"subscribe","replay":false,"kinds":["notify"]}),
        12 => json!({
            "cmd":"subscribe","answer":["query", "delegate", "cancel"],"capacity":1 + bytes.below(4),
            "lease":bytes.byte().is_multiple_of(2),
        }),
        13 => json!({"cmd":"inbox","limit":1 + bytes.below(9)}),
        14 => json!({"cmd":"ack","up_to_seq":bytes.below(20)}),
        15 => {
            let all = world.sent_ids(None);
            let id = all.get(bytes.below(all.len())).cloned().unwrap_or_else(|| schema::message(bytes));
            json!({"cmd":"outbox","cancel":id})
        }
        16 => json!({"cmd":"delegations","watch":true}),
        17 => json!({"cmd":"trust","peer":to,"trust":bytes.one(&["known", "trusted", "blocked"])}),
        18 => json!({"cmd":bytes.one(&["pause", "resume"]),"peer":to}),
        19 => {
            json!({"cmd":bytes.one(&["status", "peers", "outbox", "knocks", "contacts", "invites", "sockets"])})
        }
        _ => return Schemas::get().make("ipc-command", bytes),
    };
    Json::of(&value)
}

/// A peer says something.
fn said(world: &mut World, bytes: &mut Bytes<'_>, asks: bool) {
    let all = world.conns();
    let Some(conn) = all.get(bytes.below(all.len())).copied() else { return };
    let from = world.peer_of(conn).unwrap_or(Peer::Stranger);
    let choice = bytes.byte() % 24;
    let kind = match choice {
        0..5 => "query",
        5..9 => "delegate",
        9..14 => "notify",
        14 => "cancel",
        15 => "ping",
        16 | 17 => "result",
        18 => "progress",
        19 => "receipt",
        20 => "knock",
        _ => KINDS[bytes.below(KINDS.len())],
    };
    let payload = match kind {
        "query" => json!({"question":"q","deadline_ms":bytes.one(&[0, 50, 9_000])}).to_string(),
        "delegate" => json!({"task":"t","deadline_ms":bytes.one(&[0, 500, 20_000])}).to_string(),
        "notify" => json!({"topic":"t","data":"d".repeat(bytes.below(60))}).to_string(),
        "result" => json!({"status":"completed","outcome":"o"}).to_string(),
        "progress" => json!({"state":"running"}).to_string(),
        "receipt" => json!({"state":"read"}).to_string(),
        kind => Schemas::get().make(kind, bytes).to_string(),
    };
    let of = match kind {
        "cancel" if world.ids() > 0 => Some(schema::numbered(bytes.below(world.ids() as usize + 1) as u64)),
        "result" | "progress" | "receipt" => {
            let all = world.sent_ids(None);
            all.get(bytes.below(all.len())).cloned()
        }
        _ => None,
    };
    let text = match bytes.byte() % 16 {
        // One that was said before, perhaps by another.
        0 | 1 if world.ids() > 0 => {
            let id = schema::numbered(1 + bytes.below(world.ids() as usize) as u64);
            world.envelope_with(from, &id, kind, of.as_deref(), &payload)
        }
        2 => world.envelope(Peer::ALL[bytes.below(3)], kind, of.as_deref(), &payload),
        3 => String::from_utf8_lossy(bytes.take(12)).into_owned(),
        _ => world.envelope(from, kind, of.as_deref(), &payload),
    };
    match asks {
        true => world.request(conn, text.into_bytes()),
        false => world.one_way(conn, text.into_bytes()),
    }
}
