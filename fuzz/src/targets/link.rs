//! The link of an invite.

use axon_proto::id::{AgentId, MsgId};
use axon_proto::invite::{InviteId, Link, is_addr};
use axon_proto::limits::{ADDRS_PER_PEER_MAX, LINK_BYTES_MAX};

/// A link is refused, or written again it is the same; so are the other short texts that people copy.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(link) = text.parse::<Link>() {
        assert!(text.trim().len() <= LINK_BYTES_MAX && text.trim().starts_with("axon://"));
        assert!((1..=ADDRS_PER_PEER_MAX).contains(&link.addrs.len()));
        assert!(link.addrs.iter().all(|addr| is_addr(addr)), "{link}");
        let written = link.to_string();
        let again: Link = written.parse().expect("what is written can be read");
        assert!(again == link && again.to_string() == written, "{written}");
        if let Some(secret) = &link.secret {
            let (id, _) = secret.key();
            assert_eq!(id.to_string().parse(), Ok(id));
            let debug = format!("{link:?}");
            assert!(!debug.contains("k="), "a secret is not shown: {debug}");
        }
    }
    if let Ok(id) = text.parse::<AgentId>() {
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!(id.to_string().eq_ignore_ascii_case(text));
    }
    if let Ok(id) = text.parse::<MsgId>() {
        assert_eq!(id.to_string(), text);
    }
    if let Ok(id) = text.parse::<InviteId>() {
        assert!(id.to_string().eq_ignore_ascii_case(text));
    }
}
