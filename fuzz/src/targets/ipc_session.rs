//! Lines of several clients in any order, to a daemon with peers and a disk.
//!
//! The input is text. The first letter of a line says whose it is, `a` to `d` (`d` comes by a scoped socket),
//! and the rest is what that client says; after `!` something else happens (see `happens`).

use axon_proto::sim::Rng;
use axon_proto::sim::disk::Unsynced;

use crate::dice::Dice;
use crate::mutate;
use crate::schema;
use crate::world::{End, Peer, World};

/// Lines of one session.
const LINES_MAX: usize = 80;
/// What may follow a `!`.
const EVENTS: &[u8] = b"abcdefghijklmnopqrstuvwxyzG";

/// Plays the lines.
pub fn run(data: &[u8]) {
    let mut world = World::new();
    for line in data.split(|byte| *byte == b'\n').take(LINES_MAX) {
        match line.split_first() {
            Some((b'!', events)) => events.iter().take(16).for_each(|event| happens(&mut world, *event)),
            Some((who @ b'a'..=b'd', said)) => {
                let at = usize::from(who - b'a');
                let client = world.client(at, (at == 3).then_some("bot"));
                world.say(client, said.to_vec());
            }
            _ => {}
        }
    }
    world.finish();
}

/// What happens beside what clients say, by a letter.
fn happens(world: &mut World, event: u8) {
    let first = world.conns().first().copied();
    let said = |world: &mut World, kind: &str, payload: &str| {
        if let Some(conn) = first {
            let from = world.peer_of(conn).unwrap_or(Peer::Stranger);
            let text = world.envelope(from, kind, None, payload);
            world.request(conn, text.into_bytes());
        }
    };
    match event {
        // Peers.
        b'a' => world.connect(Peer::Alice, true),
        b'c' => world.connect(Peer::Carol, true),
        b's' => world.connect(Peer::Stranger, true),
        b'q' => said(world, "query", "{\"question\":\"q\",\"domain\":\"family.calendar\"}"),
        b'g' => said(world, "delegate", "{\"task\":\"t\"}"),
        b'n' => said(world, "notify", "{\"topic\":\"t\",\"data\":1}"),
        b'k' => said(world, "knock", "{\"name\":\"stranger\",\"intent\":{\"category\":\"family\"}}"),
        b'i' => said(world, "ping", "{}"),
        // The last message of a peer again, as a delegation.
        b'G' => {
            if let Some(conn) = first {
                let (from, id) =
                    (world.peer_of(conn).unwrap_or(Peer::Stranger), schema::numbered(world.ids()));
                let text = world.envelope_with(from, &id, "delegate", None, "{\"task\":\"t\"}");
                world.request(conn, text.into_bytes());
            }
        }
        b'o' => {
            if let Some(conn) = first {
                world.disconnect(conn);
            }
        }
        // What is on its way, and attempts to reach a peer.
        b'y' | b'r' | b'l' => {
            let end = match event {
                b'y' => End::Well,
                b'r' => End::Refused("overloaded"),
                _ => End::Lost,
            };
            match world.under_way().first() {
                Some(token) => world.reply(*token, &end),
                None => world.dial_ends(&end),
            }
        }
        b'd' => world.dial_ends(&End::Well),
        b'u' => {
            if let Some(stream) = world.waiting().first() {
                world.give_up(*stream);
            }
        }
        // The disk.
        b'h' => world.stall(true),
        b'j' => world.one_job(),
        b'm' => world.stall(false),
        b'f' => world.disk_fault(true, false, false),
        b'w' => world.disk_fault(false, false, false),
        b'p' => world.disk_fault(false, false, true),
        // Time, and the daemon itself.
        b't' => world.wait(1_000),
        b'v' => world.wait(31_000),
        b'x' => world.crash(Unsynced::Dropped),
        b'z' => world.stop(),
        // Clients.
        b'b' | b'e' => {
            let client = world.client(0, None);
            world.leave(client, event == b'e');
        }
        _ => {}
    }
}

/// Changes one line as JSON, or the order of the lines.
pub fn mutate(data: &[u8], seed: u32) -> Option<Vec<u8>> {
    let dice = &mut Rng::new(u64::from(seed));
    let mut lines: Vec<Vec<u8>> = data.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    let at = Dice::below(dice, lines.len());
    match Dice::below(dice, 8) {
        0..3 => {
            let (first, said) = lines[at].split_first().filter(|(first, _)| **first != b'!')?;
            let said = mutate::bytes("ipc-command", said, seed)?;
            lines[at] = [&[*first], said.as_slice()].concat();
        }
        3 | 4 => {
            let line = mutate::wrong("ipc-command", Dice::below(dice, 4) / 3, dice).to_string();
            lines.insert(at, format!("{}{line}", ["a", "b", "c", "d"][Dice::below(dice, 4)]).into_bytes());
        }
        5 => {
            let count = 1 + Dice::below(dice, 5);
            let events = (0..count).map(|_| EVENTS[Dice::below(dice, EVENTS.len())]);
            lines.insert(at, std::iter::once(b'!').chain(events).collect());
        }
        6 if lines.len() > 1 => drop(lines.remove(at)),
        6 => return None,
        _ => {
            let to = Dice::below(dice, lines.len());
            let line = lines[at].clone();
            lines.insert(to, line);
        }
    }
    Some(lines.join(&b'\n'))
}
