//! `contacts.toml` as a person may write it, and as the daemon changes it.

use std::collections::BTreeSet;
use std::path::Path;

use axon::disk::contacts;
use axon::disk::edit::EditError;
use axon_proto::contacts::{Contact, ContactChange};
use axon_proto::id::{AgentId, PublicKey};
use axon_proto::sim::Rng;
use axon_proto::trust::Level;

use crate::dice::Dice;
use crate::schema::KEYS;
use crate::targets::config::comments_stay;

/// Changes of one file.
const CHANGES_MAX: usize = 3;

/// A file is refused, or read; what the daemon makes of it says what was to be said and keeps every comment
/// that stands by itself.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (path, own) = (Path::new("contacts.toml"), key(1).agent_id());
    let Ok(read) = contacts::parse(text, path, own) else { return };
    let ids: BTreeSet<AgentId> = read.contacts.iter().map(|contact| contact.agent_id).collect();
    assert_eq!(ids.len(), read.contacts.len(), "one contact for an id");
    assert!(!ids.contains(&own), "nobody is its own contact");
    let dice = &mut Rng::new(data.iter().fold(7, |sum, byte| sum * 31 % 1_000_003 + u64::from(*byte)));
    let (mut text, mut model) = (text.to_owned(), read);
    for _ in 0..CHANGES_MAX {
        let change = change(&model.contacts, dice);
        let changed = match contacts::changed(&text, path, own, &change) {
            Ok(changed) => changed,
            // Written in a way that cannot be changed in place, or against a rule of the file.
            Err(EditError::Usage(_) | EditError::Config(_)) => return,
            Err(error) => panic!("{error}"),
        };
        let after = contacts::parse(&changed, path, own).expect("what is changed can be read");
        match &change {
            ContactChange::Pause(on) => {
                assert_eq!((after.paused, &after.contacts), (*on, &model.contacts));
                comments_stay(&text, &changed);
            }
            ContactChange::Remove(id) => {
                model.contacts.retain(|contact| contact.agent_id != *id);
                assert_eq!(after.contacts, model.contacts, "the others stay");
            }
            ContactChange::Put(contact) => {
                let put = after.contacts.iter().find(|of| of.agent_id == contact.agent_id);
                let put = put.expect("what is put is there");
                assert_eq!(
                    (put.level, &put.name, put.paused),
                    (contact.level, &contact.name, contact.paused)
                );
                let others = |all: &[Contact]| {
                    all.iter().filter(|of| of.agent_id != contact.agent_id).cloned().collect::<Vec<_>>()
                };
                assert_eq!(others(&after.contacts), others(&model.contacts), "the others stay");
                comments_stay(&text, &changed);
            }
        }
        (text, model) = (changed, after);
    }
}

fn key(at: usize) -> PublicKey {
    KEYS[at].parse().expect("a key")
}

fn change(known: &[Contact], dice: &mut Rng) -> ContactChange {
    let one = known.get(Dice::below(dice, known.len())).cloned();
    match (Dice::below(dice, 5), one) {
        (0, _) => ContactChange::Pause(Dice::below(dice, 2) == 0),
        (1, Some(contact)) => ContactChange::Remove(contact.agent_id),
        (2, Some(contact)) => {
            let level = if contact.pubkey.is_none() { Level::Blocked } else { level(dice) };
            let why = [None, Some("because \"it\" said\tso".to_owned())][Dice::below(dice, 2)].clone();
            ContactChange::Put(Contact { level, why, paused: !contact.paused, ..contact })
        }
        _ => {
            let pubkey = key([0, 2, 3][Dice::below(dice, 3)]);
            ContactChange::Put(Contact {
                agent_id: pubkey.agent_id(),
                pubkey: Some(pubkey),
                addrs: vec!["192.0.2.1:7100".into()],
                level: level(dice),
                name: None,
                since_ms: 1_795_000_000_000 + Dice::below(dice, 5_000) as u64,
                why: None,
                expiry_ms: [None, Some(1_795_000_099_000)][Dice::below(dice, 2)],
                paused: Dice::below(dice, 2) == 0,
            })
        }
    }
}

fn level(dice: &mut Rng) -> Level {
    [Level::Blocked, Level::Known, Level::Trusted][Dice::below(dice, 3)]
}
