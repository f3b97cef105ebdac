//! Announces this daemon as `_axon._udp.local.` and listens for others (RFC 6762, 6763).
//!
//! `mdns-sd` runs in a thread of its own; a second one here turns its events into inputs. Both sleep unless a
//! packet comes. Source: `spec/WIRE_FORMAT.md`, "Discovery".

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use axon_proto::id::{AgentId, PublicKey};
use axon_proto::limits::{ADDRS_PER_PEER_MAX, FOUND_PEERS_MAX};
use axon_proto::node::Input;
use mdns_sd::{IfKind, Receiver, ResolvedService, ScopedIp, ServiceDaemon, ServiceEvent, ServiceInfo};
use mdns_sd::{RecvTimeoutError, TxtProperties};
use tokio::sync::mpsc;

/// What axon daemons are called on the network.
const SERVICE: &str = "_axon._udp.local.";
/// Peers that are still announced are told again this often; the node forgets them after `STALE_MS`.
const REFRESH: Duration = Duration::from_secs(20);
/// How often the machine's addresses are looked at.
const IP_CHECK_SECS: u32 = 30;
/// How long a stop waits for the goodbye to be sent.
const GOODBYE: Duration = Duration::from_millis(500);

/// Discovery could not begin.
#[derive(Debug, thiserror::Error)]
#[error("mDNS does not work here ({0}): set `mdns = false`, or name peers in [[peers]]")]
pub struct MdnsError(String);

impl From<mdns_sd::Error> for MdnsError {
    fn from(error: mdns_sd::Error) -> Self {
        Self(error.to_string())
    }
}

/// A running announcement and search. Ends when dropped; [`Mdns::stop`] also waits for the goodbye.
pub struct Mdns {
    daemon: ServiceDaemon,
    listener: Option<JoinHandle<()>>,
}

impl Mdns {
    /// Announces the identity at `port`, and sends `Input::Found` for every other that is seen, about every
    /// 20 s.
    ///
    /// With `bind`, only that address is announced and only its interface is used. What does not fit into
    /// `events` is dropped: it comes again.
    pub fn start(
        id: AgentId,
        key: PublicKey,
        port: u16,
        bind: Option<IpAddr>,
        events: mpsc::Sender<Input>,
    ) -> Result<Self, MdnsError> {
        let daemon = ServiceDaemon::new()?;
        match Self::run(&daemon, id, key, port, bind, events) {
            Ok(listener) => Ok(Self { daemon, listener: Some(listener) }),
            Err(error) => {
                let _ = daemon.shutdown();
                Err(error)
            }
        }
    }

    fn run(
        daemon: &ServiceDaemon,
        id: AgentId,
        key: PublicKey,
        port: u16,
        bind: Option<IpAddr>,
        events: mpsc::Sender<Input>,
    ) -> Result<JoinHandle<()>, MdnsError> {
        daemon.set_ip_check_interval(IP_CHECK_SECS)?;
        let bind = bind.filter(|ip| !ip.is_unspecified());
        if let Some(ip) = bind {
            daemon.disable_interface(IfKind::All)?;
            daemon.enable_interface(IfKind::Addr(ip))?;
        }
        daemon.register(announcement(id, key, port, bind)?)?;
        let services = daemon.browse(SERVICE)?;
        let listen = move || listen(&services, id, &events);
        let thread = std::thread::Builder::new().name("axon-discover".into()).spawn(listen);
        thread.map_err(|error| MdnsError(error.to_string()))
    }

    /// Says goodbye to the network and ends; takes half a second at most.
    pub fn stop(mut self) {
        if let Ok(done) = self.daemon.shutdown()
            && done.recv_timeout(GOODBYE).is_ok()
            && let Some(listener) = self.listener.take()
        {
            let _ = listener.join();
        }
    }
}

impl Drop for Mdns {
    fn drop(&mut self) {
        if self.listener.is_some() {
            let _ = self.daemon.shutdown();
        }
    }
}

fn announcement(
    id: AgentId,
    key: PublicKey,
    port: u16,
    bind: Option<IpAddr>,
) -> Result<ServiceInfo, MdnsError> {
    let (id_text, key_text) = (id.to_string(), key.to_string());
    // The hexadecimal part alone: unique to the identity, and without the dot that names would have to
    // escape.
    let name = id_text.strip_prefix(AgentId::PREFIX).unwrap_or(&id_text);
    let host = format!("{name}.local.");
    let txt = [("agent_id", id_text.as_str()), ("pubkey", key_text.as_str())];
    let mut info = match bind {
        Some(ip) => ServiceInfo::new(SERVICE, name, &host, ip, port, &txt[..])?,
        None => ServiceInfo::new(SERVICE, name, &host, (), port, &txt[..])?.enable_addr_auto(),
    };
    if let Some(ip) = bind {
        info.set_interfaces(vec![IfKind::Addr(ip)]);
    }
    // Nobody else has this name, so there is nothing to probe for.
    info.set_requires_probe(false);
    Ok(info)
}

/// A peer that is announced now.
struct Found {
    id: AgentId,
    key: PublicKey,
    addrs: Vec<SocketAddr>,
    seen: Instant,
}

impl Found {
    fn tell(&self, events: &mpsc::Sender<Input>) -> bool {
        let found = Input::Found { id: self.id, key: self.key, addrs: self.addrs.clone() };
        !matches!(events.try_send(found), Err(mpsc::error::TrySendError::Closed(_)))
    }
}

/// Until the daemon thread ends, or nobody listens.
fn listen(services: &Receiver<ServiceEvent>, us: AgentId, events: &mpsc::Sender<Input>) {
    let mut found: HashMap<String, Found> = HashMap::new();
    let mut refresh_at = Instant::now() + REFRESH;
    loop {
        // Nobody found, nothing to repeat: sleep until something comes.
        let event = if found.is_empty() {
            services.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            services.recv_timeout(refresh_at.saturating_duration_since(Instant::now()))
        };
        match event {
            Ok(ServiceEvent::ServiceResolved(service)) => {
                if let Some(peer) = read(&service).filter(|peer| peer.id != us) {
                    if !peer.tell(events) {
                        return;
                    }
                    keep(&mut found, service.fullname, peer);
                }
            }
            Ok(ServiceEvent::ServiceRemoved(_, name)) => {
                found.remove(&name);
            }
            Ok(_) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if Instant::now() >= refresh_at {
            refresh_at = Instant::now() + REFRESH;
            if !found.values().all(|peer| peer.tell(events)) {
                return;
            }
        }
    }
}

/// Keeps a peer; when there are too many, the least recently seen goes.
fn keep(found: &mut HashMap<String, Found>, name: String, peer: Found) {
    if found.len() >= FOUND_PEERS_MAX && !found.contains_key(&name) {
        let oldest = found.iter().min_by_key(|(_, peer)| peer.seen).map(|(name, _)| name.clone());
        if let Some(oldest) = oldest {
            found.remove(&oldest);
        }
    }
    found.insert(name, peer);
}

/// The peer in an advert; none when its id is not the one of its key, or it has no address.
fn read(service: &ResolvedService) -> Option<Found> {
    let (id, key) = identity(&service.txt_properties)?;
    let addrs = addresses(&service.addresses, service.port);
    (!addrs.is_empty()).then(|| Found { id, key, addrs, seen: Instant::now() })
}

fn identity(txt: &TxtProperties) -> Option<(AgentId, PublicKey)> {
    let id: AgentId = txt.get_property_val_str("agent_id")?.parse().ok()?;
    let key: PublicKey = txt.get_property_val_str("pubkey")?.parse().ok()?;
    (key.agent_id() == id).then_some((id, key))
}

/// At most as many addresses as the node keeps, the likeliest first, in an order that stays the same.
fn addresses<'a>(ips: impl IntoIterator<Item = &'a ScopedIp>, port: u16) -> Vec<SocketAddr> {
    if port == 0 {
        return Vec::new();
    }
    let mut addrs: Vec<_> = ips
        .into_iter()
        .filter_map(|ip| match ip {
            // A link-local address means something only together with its interface.
            ScopedIp::V6(ip) if ip.addr().is_unicast_link_local() => {
                Some(SocketAddrV6::new(*ip.addr(), port, 0, ip.scope_id().index).into())
            }
            ip => {
                let ip = ip.to_ip_addr();
                (!ip.is_unspecified() && !ip.is_multicast()).then_some(SocketAddr::new(ip, port))
            }
        })
        .collect();
    addrs.sort_by_key(|addr: &SocketAddr| {
        let link_local = matches!(addr.ip(), IpAddr::V6(ip) if ip.is_unicast_link_local());
        (addr.ip().is_loopback(), link_local, addr.is_ipv6(), *addr)
    });
    addrs.dedup();
    addrs.truncate(ADDRS_PER_PEER_MAX);
    addrs
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::Ipv4Addr;

    use mdns_sd::IntoTxtProperties as _;

    use super::*;

    fn who(byte: u8) -> (AgentId, PublicKey) {
        let key = PublicKey([byte; 32]);
        (key.agent_id(), key)
    }

    #[test]
    fn adverts_whose_id_and_key_do_not_belong_together_are_ignored() {
        let txt =
            |id: &str, key: &str| identity(&[("agent_id", id), ("pubkey", key)][..].into_txt_properties());
        let (id, key) = who(1);
        assert_eq!(txt(&id.to_string(), &key.to_string()), Some((id, key)));
        assert_eq!(txt(&id.to_string().to_uppercase(), &key.to_string()), Some((id, key)));
        assert_eq!(txt(&id.to_string(), &who(2).1.to_string()), None);
        assert_eq!(txt("ed25519.zz", &key.to_string()), None);
        assert_eq!(txt(&id.to_string(), "AAAA"), None);
        assert_eq!(identity(&TxtProperties::default()), None);
    }

    #[test]
    fn addresses_are_ordered_bounded_and_usable() {
        let ips =
            ["127.0.0.1", "fe80::1", "2001:db8::1", "192.168.1.2", "0.0.0.0", "224.0.0.251", "192.168.1.2"];
        let ips: Vec<ScopedIp> = ips.iter().map(|ip| ip.parse::<IpAddr>().unwrap().into()).collect();
        let addrs: Vec<_> = addresses(&ips, 7100).iter().map(SocketAddr::to_string).collect();
        assert_eq!(addrs, ["192.168.1.2:7100", "[2001:db8::1]:7100", "[fe80::1]:7100", "127.0.0.1:7100"]);
        assert!(addresses(&ips, 0).is_empty());
        let many: Vec<ScopedIp> = (0..50).map(|n| IpAddr::from([10, 0, 0, n]).into()).collect();
        assert_eq!(addresses(&many, 1).len(), ADDRS_PER_PEER_MAX);
    }

    #[test]
    fn the_least_recently_seen_goes_when_there_are_too_many() {
        let (id, key) = who(1);
        let start = Instant::now();
        let mut found = HashMap::new();
        for n in 0..=FOUND_PEERS_MAX as u64 {
            let peer = Found { id, key, addrs: Vec::new(), seen: start + Duration::from_millis(n) };
            keep(&mut found, n.to_string(), peer);
        }
        assert_eq!(found.len(), FOUND_PEERS_MAX);
        assert!(!found.contains_key("0") && found.contains_key("1"));
    }

    /// A skipped test says so by name; with `AXON_NO_SKIP`, as `.ci/run` sets it, it fails.
    fn skip(why: &str) {
        let said = format!("SKIPPED two_daemons_on_loopback_find_each_other_and_not_themselves: {why}");
        assert!(std::env::var_os("AXON_NO_SKIP").is_none(), "{said}");
        writeln!(std::io::stderr().lock(), "{said}").ok();
    }

    #[test]
    fn two_daemons_on_loopback_find_each_other_and_not_themselves() {
        // Other tests and daemons of this machine announce themselves as well, and perhaps this very test.
        let of_this_process = |byte| {
            let mut key = who(byte).1;
            key.0[..4].copy_from_slice(&std::process::id().to_le_bytes());
            (key.agent_id(), key)
        };
        let ((a_id, a_key), (b_id, b_key)) = (of_this_process(11), of_this_process(12));
        let bind = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let (to_a, mut at_a) = mpsc::channel(16);
        let (to_b, mut at_b) = mpsc::channel(16);
        let (a, b) =
            match (Mdns::start(a_id, a_key, 7101, bind, to_a), Mdns::start(b_id, b_key, 7102, bind, to_b)) {
                (Ok(a), Ok(b)) => (a, b),
                (Err(error), _) | (_, Err(error)) => {
                    skip(&error.to_string());
                    return;
                }
            };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        async fn see(events: &mut mpsc::Receiver<Input>, whom: AgentId) -> Option<Input> {
            loop {
                let input = events.recv().await?;
                if matches!(input, Input::Found { id, .. } if id == whom) {
                    return Some(input);
                }
            }
        }
        let both = runtime.block_on(async {
            let wait = tokio::time::timeout(Duration::from_secs(5), async {
                tokio::join!(see(&mut at_a, b_id), see(&mut at_b, a_id))
            });
            wait.await
        });
        let Ok((Some(seen_by_a), Some(seen_by_b))) = both else {
            skip("no multicast on loopback here");
            return;
        };
        for (input, key, port) in [(seen_by_a, b_key, 7102), (seen_by_b, a_key, 7101)] {
            let Input::Found { key: with, addrs, .. } = input else { panic!("{input:?}") };
            assert_eq!(with, key);
            assert_eq!(addrs, [SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)]);
        }
        let stopping = Instant::now();
        a.stop();
        b.stop();
        assert!(stopping.elapsed() < Duration::from_secs(2));
        // The listeners have ended and told nothing of ourselves.
        while let Ok(input) = at_a.try_recv() {
            assert!(matches!(input, Input::Found { id, .. } if id != a_id));
        }
        assert!(matches!(at_a.try_recv(), Err(mpsc::error::TryRecvError::Disconnected)));
    }
}
