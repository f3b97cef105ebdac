//! Payloads of pairing.

use serde::{Deserialize, Serialize};

use crate::id::PublicKey;
use crate::invite::{InviteId, hex, hexed, is_addr};
use crate::limits::{ADDRS_PER_PEER_MAX, KNOCK_BYTES_MAX, KNOCK_TEXT_BYTES_MAX, NAME_BYTES_MAX};
use crate::pairing::Intent;
use crate::trust::{Level, Policy};
use crate::wire::{fit, from_object, plain};

/// What a signature of `rekey` begins with.
const REKEY_LABEL: &[u8] = b"axon/1 rekey";

/// `knock`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Knock {
    /// What the knocker calls itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intent: Option<Intent>,
    /// `request_response`, `conversation` or `stream`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// In its own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Where it may be reached.
    #[serde(default, deserialize_with = "or_none", skip_serializing_if = "Vec::is_empty")]
    pub addrs: Vec<String>,
    /// The invite that it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invite: Option<String>,
    /// That it has its secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<String>,
}

impl Knock {
    /// Reads a knock, and takes out of it what is not fit to be shown.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > KNOCK_BYTES_MAX {
            return Err(format!("the payload of a knock is at most {KNOCK_BYTES_MAX} bytes long"));
        }
        let mut knock: Self = from_object(text).map_err(|error| plain(&error))?;
        let tidy = |text: Option<String>, bytes_max: usize| text.and_then(|text| fit(&text, bytes_max));
        knock.name = tidy(knock.name, NAME_BYTES_MAX);
        knock.message = tidy(knock.message, KNOCK_TEXT_BYTES_MAX);
        knock.session = tidy(knock.session, NAME_BYTES_MAX);
        knock.intent = knock.intent.and_then(|intent| {
            let action = tidy(intent.action, NAME_BYTES_MAX);
            Some(Intent { category: fit(&intent.category, NAME_BYTES_MAX)?, action })
        });
        knock.addrs.retain(|addr| is_addr(addr));
        knock.addrs.truncate(ADDRS_PER_PEER_MAX);
        Ok(knock)
    }

    /// The invite and its proof, where both are given.
    pub fn proof(&self) -> Option<(Option<InviteId>, &str)> {
        if self.invite.is_none() && self.proof.is_none() {
            return None;
        }
        let id = self.invite.as_deref().and_then(|id| id.parse().ok());
        Some((id, self.proof.as_deref().unwrap_or_default()))
    }
}

/// A list, or none where there is null.
fn or_none<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::<Vec<String>>::deserialize(from)?.unwrap_or_default())
}

/// Checks the payload of `knock`.
pub fn check_knock(payload: &str) -> Result<(), String> {
    Knock::parse(payload).map(drop)
}

/// What became of a knock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Admitted {
    /// It is let in.
    Accept,
    /// It is not.
    Reject,
    /// The owner decides.
    Pending,
}

/// `admission`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Admission {
    /// What became of it.
    pub decision: Admitted,
    /// The level that it has from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<Level>,
    /// What it may do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub constraints: Option<Constraints>,
    /// Why not, or what happens next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it may knock again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

/// What an accepted peer may do; what is absent is not limited.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Constraints {
    /// These kinds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kinds: Option<Vec<String>>,
    /// So often.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages_per_minute: Option<u64>,
    /// So much.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload_bytes_max: Option<u64>,
    /// So long (Unix milliseconds).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
}

impl<'de> Deserialize<'de> for Constraints {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Fields {
            kinds: Option<Vec<String>>,
            messages_per_minute: Option<u64>,
            payload_bytes_max: Option<u64>,
            until_ms: Option<u64>,
        }
        let Fields { kinds, messages_per_minute, payload_bytes_max, until_ms } =
            crate::wire::object_only(from)?;
        Ok(Self { kinds, messages_per_minute, payload_bytes_max, until_ms })
    }
}

impl Constraints {
    /// Those of a level; the kinds are named by the caller.
    pub fn of(policy: &Policy, kinds: Vec<String>, until_ms: Option<u64>) -> Self {
        let some = |n: u64| Some(n).filter(|n| *n > 0);
        Self {
            kinds: Some(kinds),
            messages_per_minute: some(policy.messages_per_minute),
            payload_bytes_max: some(policy.payload_bytes_max),
            until_ms,
        }
    }
}

impl Admission {
    /// A refusal.
    pub fn reject(reason: impl Into<String>, retry_after_ms: Option<u64>) -> Self {
        Self {
            decision: Admitted::Reject,
            level: None,
            constraints: None,
            reason: Some(reason.into()),
            retry_after_ms,
        }
    }

    /// Reads the answer of a peer.
    pub fn parse(text: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Loose {
            decision: String,
            level: Option<String>,
            constraints: Option<Constraints>,
            reason: Option<String>,
            retry_after_ms: Option<u64>,
        }
        let loose: Loose = from_object(text).map_err(|error| plain(&error))?;
        Ok(Self {
            // A word that is not known lets nobody in.
            decision: match &*loose.decision {
                "accept" => Admitted::Accept,
                "pending" => Admitted::Pending,
                _ => Admitted::Reject,
            },
            level: loose.level.and_then(|level| Level::parse(&level)),
            constraints: loose.constraints,
            reason: loose.reason.and_then(|reason| fit(&reason, KNOCK_TEXT_BYTES_MAX)),
            retry_after_ms: loose.retry_after_ms,
        })
    }
}

/// Checks the payload of `admission`.
pub fn check_admission(payload: &str) -> Result<(), String> {
    Admission::parse(payload).map(drop)
}

/// `rekey`: the key that this agent has from now on, signed with both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rekey {
    /// The key that the connection was made with.
    pub old_key: PublicKey,
    /// The key that follows it.
    pub new_key: PublicKey,
    /// When that was decided (Unix milliseconds).
    pub at_ms: u64,
    /// Signed with the old one, in hexadecimal.
    pub old_signature: String,
    /// Signed with the new one.
    pub new_signature: String,
}

impl Rekey {
    /// What both sign: label, old key, new key, time (8 bytes, big endian).
    pub fn signed(old: &PublicKey, new: &PublicKey, at_ms: u64) -> Vec<u8> {
        [REKEY_LABEL, &old.0, &new.0, &at_ms.to_be_bytes()].concat()
    }

    /// A statement with its signatures.
    pub fn new(old_key: PublicKey, new_key: PublicKey, at_ms: u64, old: &[u8; 64], new: &[u8; 64]) -> Self {
        Self { old_key, new_key, at_ms, old_signature: hexed(old), new_signature: hexed(new) }
    }

    /// Both signatures.
    pub fn signatures(&self) -> Option<([u8; 64], [u8; 64])> {
        Some((hex(&self.old_signature)?, hex(&self.new_signature)?))
    }

    /// Reads a statement; whether it is signed is not looked at.
    pub fn parse(text: &str) -> Result<Self, String> {
        let rekey: Self = from_object(text).map_err(|error| plain(&error))?;
        match rekey.signatures() {
            Some(_) => Ok(rekey),
            None => Err("old_signature and new_signature are 128 hexadecimal digits each".into()),
        }
    }
}

/// Checks the payload of `rekey`.
pub fn check_rekey(payload: &str) -> Result<(), String> {
    Rekey::parse(payload).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_knock_is_cut_to_what_may_be_shown() {
        let long = "x".repeat(600);
        let text = format!(
            r#"{{"name":" a\u001bb ","intent":{{"category":"c","action":""}},"message":"{long}","addrs":["h:1","no"],"x":1}}"#
        );
        let knock = Knock::parse(&text).unwrap();
        assert_eq!(knock.name.as_deref(), Some("ab"));
        assert_eq!(knock.intent, Some(Intent { category: "c".into(), action: None }));
        assert_eq!(knock.message.map(|text| text.len()), Some(KNOCK_TEXT_BYTES_MAX));
        assert_eq!(knock.addrs, ["h:1"]);
        assert!(Knock::parse(&format!(r#"{{"name":"{}"}}"#, "x".repeat(KNOCK_BYTES_MAX))).is_err());
        assert!(Knock::parse(r#"{"name":1}"#).unwrap_err().contains("string"));
        assert_eq!(Knock::parse("{}").unwrap().proof(), None);
        assert_eq!(Knock::parse(r#"{"proof":"x"}"#).unwrap().proof(), Some((None, "x")));
    }

    // shows: PAIR-KNOCK-2
    #[test]
    fn what_is_fit_to_be_shown_stays_as_it_is() {
        let spaces = "\u{2000}".repeat(40);
        let max = "x".repeat(NAME_BYTES_MAX - 3);
        for (name, expected) in [
            // Cut where a space would be last.
            (format!("{max}\u{2000}y"), Some(max.clone())),
            (format!("{max}{spaces}y"), Some(max)),
            ("\u{1} x \u{1} ".to_owned(), Some("x".to_owned())),
            (format!("{spaces}x"), Some("x".to_owned())),
            (format!("\u{1}{spaces}"), None),
        ] {
            let text = serde_json::to_string(&Knock { name: Some(name), ..Knock::default() }).unwrap();
            let knock = Knock::parse(&text).unwrap();
            assert_eq!(knock.name, expected);
            assert_eq!(Knock::parse(&serde_json::to_string(&knock).unwrap()), Ok(knock));
        }
    }

    #[test]
    fn a_rekey_needs_both_signatures() {
        let (old, new) = (PublicKey([1; 32]), PublicKey([2; 32]));
        let rekey = Rekey::new(old, new, 5, &[3; 64], &[4; 64]);
        let text = serde_json::to_string(&rekey).unwrap();
        assert_eq!(Rekey::parse(&text), Ok(rekey));
        assert!(Rekey::parse(&text.replace("0303", "03")).is_err());
        assert_ne!(Rekey::signed(&old, &new, 5), Rekey::signed(&new, &old, 5));
    }
}
