//! This machine: what it is called, and where others may reach it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axon_proto::limits::ADDRS_PER_PEER_MAX;

/// What a machine is called that has no name others could use.
const NOBODY: &str = "localhost";

/// What this machine calls itself.
pub fn name() -> String {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_string_lossy();
    let fits = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    if name.is_empty() || !name.chars().all(fits) { NOBODY.to_owned() } else { name.into_owned() }
}

/// Where others may reach a daemon that listens here, `host:port`, best first: the one address that it
/// listens on, or the machine's name and addresses.
pub fn addrs(listen: SocketAddr) -> Vec<String> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_else(|error| {
        tracing::warn!("the addresses of this machine are not known: {error}");
        Vec::new()
    });
    addrs_of(listen, &name(), interfaces.iter().map(|interface| interface.ip()))
}

fn addrs_of(listen: SocketAddr, name: &str, all: impl Iterator<Item = IpAddr>) -> Vec<String> {
    let port = listen.port();
    if !listen.ip().is_unspecified() {
        return vec![listen.to_string()];
    }
    let mut ips: Vec<IpAddr> = all.filter(|ip| is_for_others(*ip)).collect();
    if listen.is_ipv4() {
        ips.retain(IpAddr::is_ipv4);
    }
    // Most networks at home have addresses of the fourth version that work for all of them.
    ips.sort_by_key(IpAddr::is_ipv6);
    if ips.is_empty() {
        ips.push(Ipv4Addr::LOCALHOST.into());
    }
    let named = (name != NOBODY).then(|| format!("{name}:{port}"));
    let mut addrs: Vec<String> = Vec::new();
    for addr in named.into_iter().chain(ips.into_iter().map(|ip| SocketAddr::new(ip, port).to_string())) {
        if addrs.len() < ADDRS_PER_PEER_MAX && !addrs.contains(&addr) {
            addrs.push(addr);
        }
    }
    addrs
}

/// Whether another machine could reach this one by it. Addresses of one link need to be told with the link.
fn is_for_others(ip: IpAddr) -> bool {
    let of_a_link = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !ip.is_loopback() && !ip.is_unspecified() && !ip.is_multicast() && !of_a_link
}

#[cfg(test)]
mod tests {
    use axon_proto::invite::is_addr;

    use super::*;

    fn addrs_with(listen: &str, name: &str, ips: &[&str]) -> Vec<String> {
        addrs_of(listen.parse().unwrap(), name, ips.iter().map(|ip| ip.parse().unwrap()))
    }

    #[test]
    fn the_name_comes_first_and_loopback_only_where_there_is_nothing_else() {
        let ips = ["127.0.0.1", "::1", "fe80::1", "169.254.1.1", "2001:db8::5", "192.0.2.5", "192.0.2.5"];
        let all = ["ann:71", "192.0.2.5:71", "[2001:db8::5]:71"];
        assert_eq!(addrs_with("[::]:71", "ann", &ips), all);
        assert_eq!(addrs_with("0.0.0.0:71", "ann", &ips), all[..2]);
        assert_eq!(addrs_with("[::]:71", "localhost", &ips), all[1..]);
        assert_eq!(addrs_with("[::]:71", "ann", &ips[..4]), ["ann:71", "127.0.0.1:71"]);
        assert_eq!(addrs_with("[::]:71", "localhost", &[]), ["127.0.0.1:71"]);
        assert_eq!(addrs_with("127.0.0.1:71", "ann", &ips), ["127.0.0.1:71"]);
        assert_eq!(addrs_with("[2001:db8::5]:71", "ann", &ips), ["[2001:db8::5]:71"]);
        let many: Vec<String> = (1..20).map(|n| format!("192.0.2.{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(addrs_with("[::]:71", "ann", &many).len(), ADDRS_PER_PEER_MAX);
    }

    #[test]
    fn this_machine_has_some() {
        let found = addrs("[::]:71".parse().unwrap());
        assert!(!found.is_empty() && found.iter().all(|addr| is_addr(addr)), "{found:?}");
        assert!(!name().is_empty());
    }
}
