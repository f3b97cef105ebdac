//! Two daemons on one network find each other by themselves.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support;
use crate::support::cli::{Home, Running, spawn};
use crate::support::{RawClient, wait_for};

/// Whether a multicast packet that this machine sends comes back to it on loopback.
fn multicast_works() -> bool {
    let group = Ipv4Addr::new(224, 0, 0, 251);
    let heard = || {
        let ear = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        ear.join_multicast_v4(&group, &Ipv4Addr::LOCALHOST).ok()?;
        ear.set_read_timeout(Some(Duration::from_millis(500))).ok()?;
        let mouth = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).ok()?;
        mouth.set_multicast_if_v4(&Ipv4Addr::LOCALHOST).ok()?;
        mouth.set_multicast_loop_v4(true).ok()?;
        let to = std::net::SocketAddr::from((group, ear.local_addr().ok()?.port()));
        mouth.send_to(b"axon", &to.into()).ok()?;
        ear.recv(&mut [0; 8]).ok()
    };
    heard() == Some(4)
}

/// A daemon that looks around; it knows nobody.
struct Found {
    home: Home,
    _daemon: Running,
    id: String,
}

impl Found {
    fn start(name: &str) -> Self {
        let home = Home::default();
        std::fs::create_dir(home.root()).unwrap();
        support::set_mode(&home.root(), 0o700);
        let config = format!("name = \"{name}\"\nbind = \"127.0.0.1\"\nport = 0\n");
        std::fs::write(home.root().join("config.toml"), config).unwrap();
        let daemon = spawn(home.command(&["daemon"]));
        let mut found = Self { home, _daemon: daemon, id: String::new() };
        let who = wait_for("the daemon", || Some(found.client()?.ok(json!({"cmd":"whoami"}))));
        found.id = who["agent_id"].as_str().unwrap().to_owned();
        found
    }

    fn client(&self) -> Option<RawClient> {
        let stream = std::os::unix::net::UnixStream::connect(self.home.root().join("axon.sock")).ok()?;
        let mut client = RawClient::over(stream);
        client.hello();
        Some(client)
    }

    fn sees(&self, other: &Self) -> bool {
        let row = self.client().unwrap().peer(&other.id);
        // Once connected it is in the cache too.
        row.is_some_and(|row| row["status"] == "connected" && row["source"] != "static")
    }
}

#[test]
fn two_daemons_on_one_network_find_each_other_and_talk() {
    if !multicast_works() {
        support::skip("mdns", "multicast on the loopback interface does not work on this machine");
        return;
    }
    let ada = Found::start("ada");
    let began = Instant::now();
    let bob = Found::start("bob");
    wait_for("the two to find each other", || (ada.sees(&bob) && bob.sees(&ada)).then_some(()));
    let took = began.elapsed();
    println!("found and connected in {} ms", took.as_millis());
    // shows: WF-MDNS-1
    assert!(took < Duration::from_secs(5), "{took:?}");

    let mut agent = bob.client().unwrap();
    agent.subscribe(json!({"answer":["query"]}));
    // A found peer is unknown: named by its whole id, never by digits or the name that it claims, and it
    // may not delegate. shows: IPC-TO-1
    let mut asker = ada.client().unwrap();
    assert_eq!(asker.peer(&bob.id).unwrap()["trust"], "unknown");
    let asked = asker.ask(&bob.id, "Who?", json!({}));
    agent.answer_one("Bob.");
    assert_eq!(asker.finish(&asked)["response"]["payload"]["summary"], "Bob.");
    asker.fails(json!({"cmd":"send","to":"bob","kind":"ping"}), "peer_not_found");
    asker.fails(json!({"cmd":"send","to":&bob.id[8..16],"kind":"ping"}), "peer_not_found");
    let refused = asker.ok(json!({"cmd":"send","to":bob.id,"kind":"delegate","payload":{"task":"x"}}));
    assert_eq!(refused["response"]["payload"]["code"], "not_authorized");
    let message = refused["response"]["payload"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains(&format!("axon trust {} known", ada.id)), "{message}");
}
