//! Floors: how fast the shape of axon can be on this machine, without axon's work; and the clients, agents
//! and helpers that its benchmark shares with them.
//!
//! Servers, bridges and agents are processes of their own, as daemons and agents are: the example starts
//! itself again with a role. The client is the example's first process.

// The floors use some of it, the benchmark others.
#![allow(dead_code)]

pub mod agent;
pub mod args;
pub mod bridge;
pub mod figures;
pub mod lines;
pub mod nats;
pub mod paths;
pub mod place;
pub mod plain;
pub mod procs;
pub mod quic;
pub mod slots;

/// Takes the role that the command line asks for, and never comes back from it. Without one, does nothing.
pub fn play() {
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).is_none_or(|arg| arg != procs::ROLE) {
        return;
    }
    let args: Vec<&str> = args[2..].iter().map(String::as_str).collect();
    match args[..] {
        ["reaper"] => procs::reap(),
        ["uds-std", socket] => plain::serve_std(socket),
        ["uds-tokio", socket] => plain::serve_tokio(socket),
        ["quinn", keys] => quic::serve_echo(keys),
        ["bridge", socket, port, keys] => bridge::serve_near(socket, quic::port(port), keys),
        ["bridge-far", socket, keys] => bridge::serve_far(socket, keys),
        ["pipe", socket, port, keys] => bridge::serve_pipe_near(socket, quic::port(port), keys),
        ["pipe-far", socket, keys] => bridge::serve_pipe_far(socket, keys),
        ["agent", socket] => agent::echo(socket),
        ["axon-agent", socket, bytes] => agent::answer(socket, bytes.parse().expect("a number of bytes")),
        ["axon-reader", socket] => agent::read(socket),
        ["nats-agent", port] => nats::answer(quic::port(port)),
        ["nats-sink", port] => nats::sink(quic::port(port)),
        _ => panic!("there is no such role: {args:?}"),
    }
    std::process::exit(0);
}
