//! A beacon: what an agent says of itself, signed, so that others can pass it on and nobody can change it.
//!
//! Source: `spec/kinds/presence.md`. What is signed is kept as the bytes that came.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::id::{AgentId, PublicKey};
use crate::invite::is_addr;
use crate::limits::{
    DOMAIN_BYTES_MAX, NAME_BYTES_MAX, PRESENCE_ADDRS_MAX, PRESENCE_BEACON_BYTES_MAX, PRESENCE_LIFE_MS,
    PRESENCE_NAMES_MAX,
};
use crate::trust::{Findable, covers};
use crate::wire::{from_object, plain, raw_json, to_raw};

/// What the signed bytes begin with, so that no signature made for something else fits.
const DOMAIN: &[u8] = b"axon presence 1\n";
/// Numbers that every JSON reader keeps exactly.
const NUMBER_MAX: u64 = 1 << 53;
/// A status, in bytes.
const STATUS_BYTES_MAX: usize = 16;
/// Digits of the digest of what an agent can do.
pub const DIGEST_DIGITS: usize = 16;

/// How an agent is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// It has nothing to do.
    Idle,
    /// It is at work.
    Busy,
    /// Nobody is there.
    Away,
    /// It wants no disturbance.
    Dnd,
    /// Its daemon ends.
    Offline,
}

impl Status {
    /// As beacons and commands say it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::Away => "away",
            Self::Dnd => "dnd",
            Self::Offline => "offline",
        }
    }

    /// One that a client may set.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Idle, Self::Busy, Self::Away, Self::Dnd].into_iter().find(|status| status.as_str() == text)
    }
}

/// What an agent says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct About {
    /// How it is; a word that this version does not know is passed on as it is.
    pub status: Box<str>,
    /// What it calls itself.
    pub name: Option<Box<str>>,
    /// The digest of its capabilities.
    pub capabilities: Box<str>,
    /// Domains that it serves.
    pub domains: Vec<Box<str>>,
    /// Tools that it has.
    pub tools: Vec<Box<str>>,
    /// Where it may be reached, best first.
    pub addrs: Vec<Box<str>>,
    /// Who may learn of it by its neighbours.
    pub findable: Findable,
    /// There is more than fits: `discover` tells it.
    pub more: bool,
}

/// One that was read and whose id goes with its key. Nothing is said of its signature yet.
#[derive(Debug, Clone)]
pub struct Beacon {
    /// Whose it is.
    pub agent_id: AgentId,
    /// Their key.
    pub key: PublicKey,
    /// Rises with each beacon of one agent.
    pub seq: u64,
    /// When it was made, in Unix milliseconds by its maker's clock.
    pub ts_ms: u64,
    /// When it ends, by the same clock.
    pub expires_ms: u64,
    /// What it says.
    pub about: About,
    /// What is signed: a JSON object, as it came.
    pub signed: Box<RawValue>,
    /// The signature.
    pub sig: [u8; 64],
}

/// What is signed.
#[derive(Serialize, Deserialize)]
struct Signed<'a> {
    agent_id: AgentId,
    #[serde(borrow)]
    key: Cow<'a, str>,
    seq: u64,
    ts: u64,
    expires: u64,
    #[serde(borrow)]
    status: Cow<'a, str>,
    #[serde(borrow)]
    capabilities: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    name: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    addrs: Option<Vec<Box<str>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    domains: Option<Vec<Box<str>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tools: Option<Vec<Box<str>>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    findable: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    more: Option<bool>,
}

/// A beacon on its way: the payload of `presence.beacon`.
#[derive(Serialize, Deserialize)]
struct Sent<'a> {
    #[serde(borrow)]
    signed: &'a RawValue,
    #[serde(borrow)]
    sig: Cow<'a, str>,
}

impl Beacon {
    /// What an agent has to sign to say this. What does not fit is left out, names of tools and domains
    /// first.
    pub fn to_sign(key: &PublicKey, seq: u64, ts_ms: u64, about: &About) -> Box<RawValue> {
        let mut about = about.clone();
        about.domains.truncate(PRESENCE_NAMES_MAX);
        about.tools.truncate(PRESENCE_NAMES_MAX);
        about.addrs.truncate(PRESENCE_ADDRS_MAX);
        loop {
            let findable = (about.findable != Findable::Known).then(|| about.findable.as_str().into());
            let signed = to_raw(&Signed {
                agent_id: key.agent_id(),
                key: key.to_string().into(),
                seq,
                ts: ts_ms,
                expires: ts_ms.saturating_add(PRESENCE_LIFE_MS),
                status: (&*about.status).into(),
                capabilities: (&*about.capabilities).into(),
                name: about.name.as_deref().map(Cow::Borrowed),
                addrs: some(&about.addrs),
                domains: some(&about.domains),
                tools: some(&about.tools),
                findable,
                more: about.more.then_some(true),
            });
            if signed.get().len() <= PRESENCE_BEACON_BYTES_MAX {
                return signed;
            }
            about.more = true;
            let longer =
                if about.tools.len() >= about.domains.len() { &mut about.tools } else { &mut about.domains };
            if longer.pop().is_none() && about.addrs.pop().is_none() {
                // The rest is short by its bounds.
                return signed;
            }
        }
    }

    /// The bytes that the signature is over.
    pub fn signed_bytes(signed: &RawValue) -> Vec<u8> {
        [DOMAIN, signed.get().as_bytes()].concat()
    }

    /// Reads the payload of `presence.beacon`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(payload: &str) -> Result<Self, String> {
        let sent: Sent<'_> = from_object(payload).map_err(|error| plain(&error))?;
        Self::read(sent.signed.to_owned(), &sent.sig)
    }

    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(signed: Box<RawValue>, sig: &str) -> Result<Self, String> {
        let sig = STANDARD.decode(sig).ok().and_then(|bytes| <[u8; 64]>::try_from(bytes).ok());
        let sig = sig.ok_or("`sig` must be the base64 of 64 bytes")?;
        let text = signed.get();
        if text.len() > PRESENCE_BEACON_BYTES_MAX {
            return Err(format!("`signed` has {} bytes, {PRESENCE_BEACON_BYTES_MAX} at most", text.len()));
        }
        let fields: Signed<'_> = from_object(text).map_err(|error| format!("`signed`: {}", plain(&error)))?;
        let key: PublicKey = fields.key.parse().map_err(|error| format!("`signed.key`: {error}"))?;
        if key.agent_id() != fields.agent_id {
            return Err(format!(
                "`signed.agent_id` is {}, and its key is that of {}",
                fields.agent_id,
                key.agent_id()
            ));
        }
        let (seq, ts_ms, expires_ms) = (fields.seq, fields.ts, fields.expires);
        if seq.max(expires_ms) > NUMBER_MAX {
            return Err(format!("numbers of `signed` are at most {NUMBER_MAX}"));
        }
        if expires_ms <= ts_ms || expires_ms - ts_ms > PRESENCE_LIFE_MS {
            return Err(format!("`signed.expires` must be 1 to {PRESENCE_LIFE_MS} ms after `ts`"));
        }
        let agent_id = fields.agent_id;
        let about = fields.about()?;
        Ok(Self { agent_id, key, seq, ts_ms, expires_ms, about, signed, sig })
    }

    /// What is said in something that is signed.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn about_of(signed: &RawValue) -> Result<About, String> {
        from_object::<Signed<'_>>(signed.get()).map_err(|error| plain(&error))?.about()
    }

    /// It as the payload of `presence.beacon`, or one of the list of `presence.found` at so many hops.
    pub fn sent(&self, hops: Option<u8>) -> Box<RawValue> {
        let (signed, sig) = (self.signed.get(), STANDARD.encode(self.sig));
        let hops = hops.map_or_else(String::new, |hops| format!(",\"hops\":{hops}"));
        raw_json(format!("{{\"signed\":{signed},\"sig\":\"{sig}\"{hops}}}"))
    }

    /// Whether it serves what is asked for.
    pub fn can(&self, domain: Option<&str>, tool: Option<&str>) -> bool {
        domain.is_none_or(|asked| self.about.domains.iter().any(|served| covers(served, asked)))
            && tool.is_none_or(|asked| self.about.tools.iter().any(|tool| **tool == *asked))
    }
}

fn some(list: &[Box<str>]) -> Option<Vec<Box<str>>> {
    (!list.is_empty()).then(|| list.to_vec())
}

impl Signed<'_> {
    fn about(self) -> Result<About, String> {
        let word = |text: &str| {
            (1..=STATUS_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_lowercase())
        };
        if !word(&self.status) {
            return Err(format!("`signed.status` must be a word of 1 to {STATUS_BYTES_MAX} letters a to z"));
        }
        let hex = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f');
        if self.capabilities.len() != DIGEST_DIGITS || !self.capabilities.bytes().all(hex) {
            return Err(format!("`signed.capabilities` must be {DIGEST_DIGITS} digits, 0 to 9 and a to f"));
        }
        if self.name.as_deref().is_some_and(|name| !is_line(name, NAME_BYTES_MAX)) {
            return Err(format!("`signed.name` must be 1 to {NAME_BYTES_MAX} bytes, no control characters"));
        }
        let (domains, tools) = (self.domains.unwrap_or_default(), self.tools.unwrap_or_default());
        let addrs = self.addrs.unwrap_or_default();
        let lists = [("domains", &domains, DOMAIN_BYTES_MAX), ("tools", &tools, NAME_BYTES_MAX)];
        for (field, list, bytes_max) in lists {
            if list.len() > PRESENCE_NAMES_MAX || !list.iter().all(|name| is_line(name, bytes_max)) {
                return Err(format!(
                    "`signed.{field}` must be at most {PRESENCE_NAMES_MAX} names of 1 to {bytes_max} bytes"
                ));
            }
        }
        if addrs.len() > PRESENCE_ADDRS_MAX || !addrs.iter().all(|addr| is_addr(addr)) {
            return Err(format!("`signed.addrs` must be at most {PRESENCE_ADDRS_MAX} of host:port"));
        }
        // A word that this version does not know may have been meant to be stricter.
        let findable = self
            .findable
            .as_deref()
            .map_or(Findable::Known, |text| Findable::parse(text).unwrap_or(Findable::Nobody));
        Ok(About {
            status: self.status.into(),
            name: self.name.map(Into::into),
            capabilities: self.capabilities.into(),
            domains,
            tools,
            addrs,
            findable,
            more: self.more.unwrap_or(false),
        })
    }
}

/// A text of one line.
pub fn is_line(text: &str, bytes_max: usize) -> bool {
    (1..=bytes_max).contains(&text.len()) && !text.contains(char::is_control)
}

/// Checks the payload of `presence.beacon`.
///
/// # Errors
/// What is wrong with it.
pub fn check(payload: &str) -> Result<(), String> {
    Beacon::parse(payload).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: PublicKey = PublicKey([7; 32]);

    fn about() -> About {
        About {
            status: "idle".into(),
            name: Some("ann".into()),
            capabilities: "00112233445566ff".into(),
            domains: vec!["family".into()],
            tools: vec!["web_search".into()],
            addrs: vec!["192.0.2.7:7100".into()],
            findable: Findable::Trusted,
            more: false,
        }
    }

    fn read(signed: &str) -> Result<Beacon, String> {
        Beacon::read(raw_json(signed.to_owned()), &STANDARD.encode([1; 64]))
    }

    #[test]
    fn what_is_said_is_read_as_it_was_said() {
        let signed = Beacon::to_sign(&KEY, 5, 1_795_000_000_000, &about());
        let beacon = read(signed.get()).unwrap();
        assert_eq!((beacon.agent_id, beacon.seq, &beacon.about), (KEY.agent_id(), 5, &about()));
        assert_eq!(beacon.expires_ms - beacon.ts_ms, PRESENCE_LIFE_MS);
        assert!(Beacon::signed_bytes(&signed).starts_with(b"axon presence 1\n{\"agent_id\""));
        let again = Beacon::parse(beacon.sent(None).get()).unwrap();
        assert_eq!((again.signed.get(), again.sig), (signed.get(), [1; 64]));
        assert!(beacon.sent(Some(2)).get().ends_with("\"hops\":2}"));
        assert!(beacon.can(Some("family.calendar"), Some("web_search")) && beacon.can(None, None));
        assert!(!beacon.can(Some("work"), None) && !beacon.can(Some("family"), Some("shell")));
        let usual = About { findable: Findable::Known, ..about() };
        assert!(!Beacon::to_sign(&KEY, 5, 1, &usual).get().contains("findable"));
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_that_is_said() {
        let much = About {
            domains: (0..20).map(|n| format!("{}.{n}", "d".repeat(200)).into()).collect(),
            tools: (0..20).map(|n| format!("{}{n}", "t".repeat(60)).into()).collect(),
            addrs: (0..9).map(|n| format!("{}{n}.example:7100", "h".repeat(180)).into()).collect(),
            ..about()
        };
        let signed = Beacon::to_sign(&KEY, 5, 1, &much);
        let beacon = read(signed.get()).unwrap();
        assert!(signed.get().len() <= PRESENCE_BEACON_BYTES_MAX && beacon.about.more);
        assert_eq!(beacon.about.addrs.len(), PRESENCE_ADDRS_MAX);
        assert!(beacon.about.domains.iter().all(|name| much.domains.contains(name)));
    }

    #[test]
    fn what_is_no_beacon_says_why() {
        let good = Beacon::to_sign(&KEY, 5, 1_795_000_000_000, &about()).get().to_owned();
        let ten = |field: &str, name: &str| {
            (format!("\"{field}\":[\"{name}\"]"), format!("\"{field}\":{:?}", vec![name; 17]))
        };
        let (domain, domains) = ten("domains", "family");
        let (tool, tools) = ten("tools", "web_search");
        for (from, to, why) in [
            (&*good, "[1]", "`signed`"),
            (&*good, "{}", "missing field"),
            (&KEY.agent_id().to_string(), &AgentId([0; 16]).to_string(), "its key is that of"),
            ("\"seq\":5", "\"seq\":9007199254740993", "at most 9007199254740992"),
            ("\"seq\":5", "\"seq\":-1", "`signed`"),
            ("\"expires\":1795000900000", "\"expires\":1795000900001", "`signed.expires`"),
            ("\"expires\":1795000900000", "\"expires\":1795000000000", "`signed.expires`"),
            ("\"idle\"", "\"\"", "`signed.status`"),
            ("\"idle\"", "\"Idle\"", "`signed.status`"),
            ("\"idle\"", "\"abcdefghijklmnopq\"", "`signed.status`"),
            ("00112233445566ff", "00112233445566f", "`signed.capabilities`"),
            ("00112233445566ff", "00112233445566FF", "`signed.capabilities`"),
            ("\"ann\"", "\"a\\nb\"", "`signed.name`"),
            (&*domain, &*domains, "`signed.domains`"),
            (&*tool, &*tools, "`signed.tools`"),
            ("192.0.2.7:7100", "192.0.2.7", "`signed.addrs`"),
            ("\"ann\"", &format!("\"{}\"", "n".repeat(1_400)), "bytes"),
        ] {
            assert!(good.contains(from), "{from}");
            let error = read(&good.replace(from, to)).expect_err(to);
            assert!(error.contains(why), "{to:.80}: {error}");
        }
        assert!(Beacon::read(raw_json(good.clone()), "AA==").unwrap_err().contains("`sig`"));
        assert_eq!(&*read(&good.replace("idle", "asleep")).unwrap().about.status, "asleep");
        let stricter = read(&good.replace("\"trusted\"", "\"friends\"")).unwrap();
        assert_eq!(stricter.about.findable, Findable::Nobody);
    }
}
