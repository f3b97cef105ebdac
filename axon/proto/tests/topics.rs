//! Topics on a simulated network: whoever is connected gets each batch once.

use axon_proto::sim::topics::{Options, Report, run};

const CALM: Options = Options {
    seed: 0,
    nodes: 50,
    links: 5,
    batches: 40,
    publishers: 0,
    loss: 0,
    crashes: 0,
    partition: false,
};

fn whole(options: Options) -> Report {
    let report = run(options);
    assert_eq!((report.delivered, report.twice), (report.expected, 0), "{options:?}: {report:?}");
    assert!(report.expected > 0, "{options:?}");
    report
}

// shows: TOP-TAKE-2
#[test]
fn everybody_gets_each_batch_once() {
    for seed in 0..5 {
        whole(Options { seed, ..CALM });
        // A line: each has two neighbours, and the ends are far apart.
        whole(Options { seed, nodes: 9, links: 2, ..CALM });
    }
}

// shows: TOP-TREE-3, TOP-SUM-1
#[test]
fn whoever_lives_and_is_connected_gets_each_batch_once_although_others_end_and_messages_are_lost() {
    for seed in 0..5 {
        whole(Options { seed, loss: 100, crashes: 200, ..CALM });
    }
}

// shows: TOP-TREE-7
#[test]
fn two_halves_that_come_together_again_have_what_the_other_had() {
    for seed in 0..5 {
        whole(Options { seed, partition: true, ..CALM });
    }
}

#[test]
fn a_seed_gives_the_same_run_again() {
    let options = Options { loss: 100, crashes: 200, ..CALM };
    assert_eq!(run(options), run(options));
    assert_ne!(run(options), run(Options { seed: 1, ..options }));
}

#[test]
fn a_batch_goes_over_a_link_once_where_a_tree_has_formed() {
    let report = whole(Options { batches: 200, publishers: 2, ..CALM });
    let a_delivery = report.batches as f64 / report.delivered as f64;
    assert!(a_delivery < 1.1, "{report:?}");
}
