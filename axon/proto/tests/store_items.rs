//! The store's table of items, while many come and go.

use axon_proto::store::log::Options;
use axon_proto::store::memory::Memory;
use axon_proto::store::{Store, Write};

use crate::model::{OPEN, commit};

/// About as many as a full outbox and a full ledger have.
const LIVE: u64 = 44_000;

#[test]
fn the_table_of_items_does_not_grow_because_many_come_and_go() {
    let (mut store, _) = Store::open(Memory::default(), Options::default(), 1_000).unwrap();
    let key = |n: u64| format!("outbox/{n:020}");
    let write = |store: &mut Store<Memory>, writes: Vec<Write>| {
        store.commit(&[commit(writes, OPEN)], 1_000).into_iter().for_each(|done| done.unwrap());
        store.maintain(1_000);
    };
    for first in (0..LIVE).step_by(100) {
        write(&mut store, (first..first + 100).map(|n| Write::put(key(n), "{}")).collect());
    }
    let full = store.memory_bytes();
    for first in (LIVE..10 * LIVE).step_by(100) {
        let one = |n| [Write::put(key(n), "{}"), Write::delete(key(n - LIVE))];
        write(&mut store, (first..first + 100).flat_map(one).collect());
    }
    let then = store.memory_bytes();
    assert!(then < full + full / 10, "{full} bytes, and {then} after many came and went");
}
