//! Unit tests of the trees.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;
use crate::id::PublicKey;
use crate::wire::raw_json;

const A: AgentId = AgentId([1; 16]);
const B: AgentId = AgentId([2; 16]);
const C: AgentId = AgentId([3; 16]);

fn batch(publisher: u8, topic: &str, seq: u64) -> Arc<Batch> {
    let (message, topic) = (raw_json("{}".to_owned()), Topic::parse(topic).unwrap());
    let signed = Batch::to_sign(&PublicKey([publisher; 32]), &topic, seq, 1_000 + seq, &[&*message]);
    Arc::new(Batch::read(signed, [0; 64]).unwrap())
}
fn given(batch: Arc<Batch>, hops: u16) -> Given {
    Given { batch, hops, age_ms: 0 }
}
/// One with these neighbours, who want everything below `t`.
fn mesh(neighbours: &[AgentId]) -> Mesh {
    let mut mesh = Mesh::default();
    for peer in neighbours {
        mesh.wants(*peer, vec![Filter::parse("t.>").unwrap()], 0);
    }
    mesh
}
fn said(outs: &[Out], to: AgentId) -> Gossip {
    let to_it = outs.iter().filter_map(|out| match out {
        Out::Send { to: it, gossip } if *it == to => Some(gossip.clone()),
        _ => None,
    });
    let mut all: Vec<Gossip> = to_it.collect();
    assert!(all.len() <= 1, "{all:?}");
    all.pop().unwrap_or_default()
}
fn news(batches: &[&Arc<Batch>]) -> Gossip {
    Gossip { have: batches.iter().map(|batch| have(batch, 1)).collect(), ..Gossip::default() }
}

// shows: TOP-TREE-1, TOP-TAKE-2
#[test]
fn a_batch_goes_to_those_who_want_its_topic_and_not_back() {
    let mut mesh = mesh(&[A, B]);
    mesh.wants(C, vec![Filter::parse("u.*").unwrap()], 0);
    let outs = mesh.take(A, given(batch(9, "t.x", 1), 3), 0);
    assert!(matches!(outs.first(), Some(Out::Deliver { via: A, .. })), "{outs:?}");
    assert_eq!(said(&outs, B).batches.first().map(|given| given.hops), Some(4));
    assert!(said(&outs, A).batches.is_empty() && said(&outs, C).batches.is_empty());
}

// shows: TOP-TREE-1, TOP-TREE-2
#[test]
fn whoever_gives_one_twice_is_lazy_for_that_publisher_and_topic() {
    let mut mesh = mesh(&[A, B]);
    mesh.take(A, given(batch(9, "t.x", 1), 1), 0);
    let (known, out) = mesh.look(B, &batch(9, "t.x", 1));
    assert_eq!(known, Known::Taken);
    assert_eq!(said(&out.into_iter().collect::<Vec<_>>(), B).prune, [tree(&batch(9, "t.x", 1))]);
    let outs = mesh.take(A, given(batch(9, "t.x", 2), 1), 0);
    assert!(said(&outs, B).batches.is_empty());
    assert_eq!(mesh.next_due_ms(), Some(TOPIC_ANNOUNCE_MS));
    assert_eq!(said(&mesh.due(TOPIC_ANNOUNCE_MS), B).have.len(), 1);
    // Others' batches, and those of other topics, still go at once.
    assert_eq!(said(&mesh.take(A, given(batch(8, "t.x", 1), 1), 0), B).batches.len(), 1);
    assert_eq!(said(&mesh.take(A, given(batch(9, "t.y", 3), 1), 0), B).batches.len(), 1);
    // And these again, when it asks.
    let want = Gossip { want: vec![batch(9, "t.x", 2).id()], ..Gossip::default() };
    assert_eq!(said(&mesh.hear(B, &want, |_| true, 0), B).batches.len(), 1);
    assert_eq!(said(&mesh.take(A, given(batch(9, "t.x", 4), 1), 0), B).batches.len(), 1);
}

// shows: TOP-TREE-3, TOP-GOS-4
#[test]
fn what_was_announced_and_does_not_come_is_asked_for_from_one_after_another() {
    let mut mesh = mesh(&[A, B, C]);
    let missing = batch(9, "t.x", 1);
    mesh.hear(A, &news(&[&missing]), |_| true, 0);
    mesh.hear(B, &news(&[&missing]), |_| true, 10);
    assert!(mesh.due(TOPIC_WANT_MS - 1).is_empty());
    assert_eq!(said(&mesh.due(TOPIC_WANT_MS), A).want, [missing.id()]);
    let second_ms = TOPIC_WANT_MS + TOPIC_WANT_AGAIN_MS;
    assert_eq!(said(&mesh.due(second_ms), B).want, [missing.id()]);
    // Nobody else has it: it is forgotten, until somebody announces it again.
    mesh.due(second_ms + TOPIC_WANT_AGAIN_MS);
    assert_eq!((mesh.next_due_ms(), mesh.missing.len()), (None, 0));
    assert!(mesh.neighbours.values().all(|neighbour| neighbour.missing == 0));
    // What is not wanted here is not asked for.
    mesh.hear(A, &news(&[&missing]), |_| false, 0);
    assert_eq!(mesh.next_due_ms(), None);
}

// shows: TOP-TREE-6
#[test]
fn a_neighbour_that_announces_without_end_has_its_share_and_no_more() {
    let mut mesh = mesh(&[A, B]);
    let many: Vec<Have> = (0..3 * TOPIC_MISSING_PER_PEER_MAX as u64)
        .map(|seq| Have { id: BatchId { from: C, seq }, ..have(&batch(9, "t.x", 1), 1) })
        .collect();
    mesh.hear(A, &Gossip { have: many, ..Gossip::default() }, |_| true, 0);
    assert_eq!(mesh.missing.len(), TOPIC_MISSING_PER_PEER_MAX);
    mesh.hear(B, &news(&[&batch(9, "t.x", 7)]), |_| true, 0);
    assert_eq!(mesh.missing.len(), TOPIC_MISSING_PER_PEER_MAX + 1, "another's share is its own");
    mesh.gone(A);
    assert_eq!(mesh.missing.len(), 1);
    // A share ends with what it is for, whoever had announced that last.
    mesh.wants(A, vec![Filter::parse("t.>").unwrap()], 0);
    mesh.hear(A, &news(&[&batch(9, "t.x", 11)]), |_| true, 0);
    mesh.hear(B, &news(&[&batch(9, "t.x", 11)]), |_| true, 0);
    mesh.due(TOPIC_WANT_MS);
    mesh.gone(B);
    assert_eq!((mesh.missing.len(), mesh.neighbours[&A].missing), (0, 0));
    mesh.wants(B, vec![Filter::parse("t.>").unwrap()], 0);
    mesh.hear(B, &news(&[&batch(9, "t.x", 12)]), |_| true, 0);
    // One that is no neighbour has none.
    mesh.hear(C, &news(&[&batch(9, "t.x", 8)]), |_| true, 0);
    assert_eq!(mesh.missing.len(), 1);
    assert!(!mesh.make_lazy(&tree(&batch(9, "t.x", 1)), C));
    assert!(!mesh.neighbours.contains_key(&C));
}

// shows: TOP-TREE-5
#[test]
fn a_neighbour_much_closer_to_the_publisher_becomes_the_giver() {
    let mut mesh = mesh(&[A, B]);
    let far = batch(9, "t.x", 1);
    mesh.make_lazy(&tree(&far), B);
    mesh.hear(B, &news(&[&far]), |_| true, 0);
    let outs = mesh.take(A, given(far.clone(), 2 + TOPIC_CLOSER_HOPS), 0);
    assert_eq!((said(&outs, B).graft, said(&outs, A).prune), (vec![tree(&far)], vec![tree(&far)]));
    assert!(said(&outs, B).want.is_empty(), "it is here already");
    // The other end does as it is told.
    let mut other = self::mesh(&[C]);
    other.make_lazy(&tree(&far), C);
    let graft = Gossip { graft: vec![tree(&far)], ..Gossip::default() };
    other.hear(C, &graft, |_| true, 0);
    assert_eq!(said(&other.take(A, given(batch(9, "t.x", 2), 1), 0), C).batches.len(), 1);
}

#[test]
fn hops_that_a_neighbour_makes_up_break_nothing() {
    let mut mesh = mesh(&[A, B]);
    let made_up = Have { hops: u16::MAX, ..have(&batch(9, "t.x", 1), 0) };
    mesh.hear(B, &Gossip { have: vec![made_up], ..Gossip::default() }, |_| true, 0);
    let outs = mesh.take(A, given(batch(9, "t.x", 1), u16::MAX), 0);
    assert_eq!(said(&outs, B).batches.first().map(|given| given.hops), Some(u16::MAX));
}

// shows: TOP-TREE-6, TOP-TREE-7
#[test]
fn a_neighbour_that_wants_now_this_and_now_that_hears_no_more_than_may_wait() {
    let mut mesh = mesh(&[A]);
    (0..100).for_each(|seq| drop(mesh.take(A, given(batch(9, "t.x", seq), 1), 0)));
    for _ in 0..TOPIC_NEWS_MAX {
        mesh.wants(B, vec![Filter::parse("u.*").unwrap()], 0);
        mesh.wants(B, vec![Filter::parse("t.>").unwrap()], 0);
    }
    assert_eq!(said(&mesh.due(TOPIC_ANNOUNCE_MS), B).have.len(), TOPIC_NEWS_MAX);
}

// shows: TOP-TREE-6
#[test]
fn trees_are_remembered_up_to_a_bound() {
    let mut mesh = mesh(&[A, B]);
    let of = |n: usize| tree(&batch(9, &format!("t.{n}"), 1));
    mesh.make_lazy(&of(0), B);
    for n in 0..2 * TOPIC_TREES_MAX {
        mesh.make_lazy(&of(n), A);
    }
    let lazy = &mesh.neighbours[&A].lazy;
    assert_eq!((lazy.numbers.len(), lazy.order.len()), (TOPIC_TREES_MAX, TOPIC_TREES_MAX));
    assert!(!lazy.contains(&of(0)) && lazy.contains(&of(TOPIC_TREES_MAX)));
    assert!(mesh.neighbours[&B].lazy.contains(&of(0)), "another's are its own");
    mesh.make_eager(&of(TOPIC_TREES_MAX), A);
    assert!(!mesh.neighbours[&A].lazy.contains(&of(TOPIC_TREES_MAX)));
}

// shows: TOP-TREE-2, TOP-TREE-6
#[test]
fn made_up_trees_that_a_neighbour_prunes_undo_no_tree() {
    let mut mesh = mesh(&[A, B, C]);
    mesh.take(C, given(batch(9, "t.x", 1), 1), 0);
    mesh.hear(A, &Gossip { prune: vec![tree(&batch(9, "t.x", 1))], ..Gossip::default() }, |_| true, 0);
    let made_up: Vec<Tree> =
        (0..2 * TOPIC_TREES_MAX).map(|n| tree(&batch(9, &format!("t.{n}"), 1))).collect();
    let prune = Gossip { prune: made_up.clone(), ..Gossip::default() };
    for peer in [A, B] {
        mesh.hear(peer, &prune, |_| true, 0);
    }
    assert_eq!(mesh.neighbours[&B].lazy.numbers.len(), 0);
    let outs = mesh.take(C, given(batch(9, "t.x", 2), 1), 0);
    assert_eq!((said(&outs, A).batches.len(), said(&outs, B).batches.len()), (0, 1));
    // What it was given because it asked for it, it may prune as well.
    let asked = Gossip { want: vec![batch(9, "t.x", 2).id()], ..Gossip::default() };
    mesh.hear(A, &asked, |_| true, 0);
    mesh.hear(A, &Gossip { prune: vec![tree(&batch(9, "t.x", 2))], ..Gossip::default() }, |_| true, 0);
    assert!(mesh.neighbours[&A].lazy.contains(&tree(&batch(9, "t.x", 2))));
}

// shows: TOP-TREE-4
#[test]
fn who_has_not_subscribed_gets_nothing_by_asking() {
    let mut mesh = mesh(&[A]);
    mesh.wants(C, vec![Filter::parse("u.*").unwrap()], 0);
    mesh.take(A, given(batch(9, "t.x", 1), 1), 0);
    let want = Gossip { want: vec![batch(9, "t.x", 1).id()], ..Gossip::default() };
    assert!(mesh.hear(C, &want, |_| true, 0).is_empty());
}

// shows: TOP-SUM-1, TOP-SUM-2
#[test]
fn sums_that_differ_end_with_both_having_all() {
    let (mut one, mut other) = (mesh(&[B]), mesh(&[A]));
    for seq in 1..=5 {
        one.take(C, given(batch(9, "t.x", seq), 1), 0);
    }
    for seq in 4..=9 {
        other.take(C, given(batch(9, "t.x", seq), 1), 0);
    }
    // Each has said its sum; what that leads to comes to an end by itself.
    let outs = one.due(TOPIC_SUM_MS);
    let mut to_other = vec![said(&outs, B)];
    assert_eq!(to_other[0].sums.len(), 1);
    let mut rounds = 0;
    while let Some(gossip) = to_other.pop() {
        let outs = other.hear(A, &gossip, |_| true, TOPIC_SUM_MS);
        let answer = said(&outs, A);
        to_other.extend(outs_to(&one.hear(B, &answer, |_| true, TOPIC_SUM_MS), B));
        rounds += 1;
        assert!(rounds < 5, "it does not end");
    }
    // The first five are in the range of the sum; the others are told by the other's own.
    let late_ms = TOPIC_SUM_MS + TOPIC_WANT_MS;
    let wanted_by_other: Vec<u64> = said(&other.due(late_ms), A).want.iter().map(|id| id.seq).collect();
    assert_eq!(wanted_by_other, [1, 2, 3]);
}

fn outs_to(outs: &[Out], to: AgentId) -> Option<Gossip> {
    outs.iter().find_map(|out| match out {
        Out::Send { to: it, gossip } if *it == to => Some(gossip.clone()),
        _ => None,
    })
}
