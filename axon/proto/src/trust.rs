//! How far a peer is trusted, what each level may do, and how often.
//!
//! Source: `spec/TRUST.md`. Pure rules: they see who sends, which kind, how large and when, and never what a
//! message says.

use foldhash::HashMap;
use serde::{Deserialize, Serialize};

use crate::error::{PeerCode, Refusal};
use crate::id::AgentId;

/// How far a peer is trusted; each may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Refused in the handshake like any stranger.
    Blocked,
    /// Found on the network, and nobody has said more of it.
    Unknown,
    /// Paired, or in `[[peers]]`.
    Known,
    /// May also do what acts on this machine.
    Trusted,
}

impl Level {
    /// All levels, lowest first.
    pub const ALL: [Self; 4] = [Self::Blocked, Self::Unknown, Self::Known, Self::Trusted];

    /// As files, commands and events say it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::Unknown => "unknown",
            Self::Known => "known",
            Self::Trusted => "trusted",
        }
    }

    /// The level of this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == text)
    }
}

impl std::fmt::Display for Level {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `[policy.<level>]`: what peers of one level may do. A number of 0 sets no limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Kinds that they may send; `*` is any. None: those whose own level is not above theirs.
    pub kinds: Option<Vec<String>>,
    /// Domains that they may ask; `family` covers `family.calendar`. None: all.
    pub domains: Option<Vec<String>>,
    /// Messages of one peer a minute.
    pub messages_per_minute: u64,
    /// Bytes of envelopes of one peer a minute.
    pub bytes_per_minute: u64,
    /// Requests of one peer that have no answer yet.
    pub in_flight_max: u64,
    /// Bytes of one payload.
    pub payload_bytes_max: u64,
    /// Messages of all peers of the level a minute.
    pub level_messages_per_minute: u64,
}

impl Policy {
    const FREE: Self = Self {
        kinds: None,
        domains: None,
        messages_per_minute: 0,
        bytes_per_minute: 0,
        in_flight_max: 256,
        payload_bytes_max: 0,
        level_messages_per_minute: 0,
    };
}

/// The policies of all levels that may speak at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policies {
    /// `[policy.unknown]`.
    pub unknown: Policy,
    /// `[policy.known]`.
    pub known: Policy,
    /// `[policy.trusted]`.
    pub trusted: Policy,
}

impl Default for Policies {
    fn default() -> Self {
        let unknown = Policy {
            messages_per_minute: 30,
            level_messages_per_minute: 120,
            in_flight_max: 4,
            ..Policy::FREE
        };
        Self { unknown, known: Policy::FREE, trusted: Policy::FREE }
    }
}

impl Policies {
    /// The policy of a level; none for those who may not speak.
    pub fn of(&self, level: Level) -> Option<&Policy> {
        match level {
            Level::Blocked => None,
            Level::Unknown => Some(&self.unknown),
            Level::Known => Some(&self.known),
            Level::Trusted => Some(&self.trusted),
        }
    }
}

/// What a rule says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// It may pass.
    Allow,
    /// It may not.
    Deny,
    /// Not now.
    Limit,
}

impl Decision {
    /// As commands say it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Limit => "limit",
        }
    }
}

/// What was decided, and by which rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruling {
    /// What.
    pub decision: Decision,
    /// The peer's level.
    pub level: Level,
    /// The rule that decided: a key of the settings, or `contacts.level`.
    pub rule: String,
    /// A sentence that says what would change it.
    pub message: String,
    /// When it would pass, for one that may not pass now.
    pub retry_after_ms: Option<u64>,
}

impl Ruling {
    /// As it is told to the peer that it speaks against.
    pub fn refusal(&self) -> Refusal {
        match self.retry_after_ms {
            None => Refusal::new(PeerCode::NotAuthorized, self.message.clone()),
            Some(wait_ms) => Refusal::new(PeerCode::Overloaded, self.message.clone()).after(wait_ms),
        }
    }
}

/// What a peer wants to send.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Who.
    pub peer: AgentId,
    /// Its level.
    pub level: Level,
    /// The kind.
    pub kind: &'a str,
    /// The level that the kind needs of itself.
    pub needs: Level,
    /// Whether the kind names a domain, and which.
    pub domain: Option<Option<&'a str>>,
    /// Bytes of its payload.
    pub payload_bytes: usize,
    /// Bytes of its envelope.
    pub bytes: usize,
    /// Whether it awaits an answer, and how many of the peer's do already.
    pub in_flight: Option<usize>,
}

/// One rate: so many in a minute, and that many at once.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// What is left, in thousandths; bytes may go below nothing by one message.
    left: i128,
    at_ms: u64,
}

const MINUTE_MS: u64 = 60_000;

impl Bucket {
    fn full(per_minute: u64, now_ms: u64) -> Self {
        Self { left: i128::from(per_minute) * 1_000, at_ms: now_ms }
    }

    /// What is left now.
    fn at(mut self, per_minute: u64, now_ms: u64) -> Self {
        let passed = now_ms.saturating_sub(self.at_ms).min(MINUTE_MS);
        self.left += i128::from(per_minute) * i128::from(passed) / 60;
        self.left = self.left.min(i128::from(per_minute) * 1_000);
        self.at_ms = now_ms;
        self
    }

    /// The same after so much.
    fn less(self, size: u64) -> Self {
        Self { left: self.left - i128::from(size) * 1_000, ..self }
    }

    /// How long until one more of this size passes; none: it does now. `whole`: all of it must be there.
    fn wait_ms(&self, per_minute: u64, size: u64, whole: bool) -> Option<u64> {
        let needed = if whole { i128::from(size) * 1_000 } else { 1 };
        let missing = needed - self.left;
        let per_ms = i128::from(per_minute.max(1));
        (missing > 0).then(|| u64::try_from((missing * 60 / per_ms).max(1)).unwrap_or(MINUTE_MS))
    }
}

/// How much each peer, and each level, has sent of late.
#[derive(Debug, Default)]
pub struct Rates {
    messages: HashMap<AgentId, Bucket>,
    bytes: HashMap<AgentId, Bucket>,
    levels: HashMap<Level, Bucket>,
}

impl Rates {
    /// Forgets a peer that is out.
    pub fn forget(&mut self, peer: AgentId) {
        self.messages.remove(&peer);
        self.bytes.remove(&peer);
    }

    /// Forgets those that have sent nothing for so long that nothing limits them.
    pub fn sweep(&mut self, now_ms: u64) {
        let stale = |bucket: &Bucket| bucket.at_ms + MINUTE_MS > now_ms;
        self.messages.retain(|_, bucket| stale(bucket));
        self.bytes.retain(|_, bucket| stale(bucket));
    }
}

/// Decides, and says so also where it may pass; nothing is counted.
pub fn judge(policies: &Policies, rates: &mut Rates, asked: &Asked<'_>, now_ms: u64) -> Ruling {
    let Asked { level, kind, .. } = *asked;
    check(policies, rates, asked, now_ms, false).unwrap_or_else(|| {
        let named = policies.of(level).is_some_and(|policy| policy.kinds.is_some());
        Ruling {
            decision: Decision::Allow,
            level,
            rule: format!("policy.{level}{}", if named { ".kinds" } else { "" }),
            message: format!("{level} peers may send {kind} here"),
            retry_after_ms: None,
        }
    })
}

/// What speaks against it; none: it may pass. `spend`: it is sent then, and counts.
pub fn check(
    policies: &Policies,
    rates: &mut Rates,
    asked: &Asked<'_>,
    now_ms: u64,
    spend: bool,
) -> Option<Ruling> {
    let Asked { peer, level, .. } = *asked;
    let Some(policy) = policies.of(level) else {
        let message = format!("{peer} is blocked here: `axon trust {peer} known` lets it in");
        let rule = "contacts.level".to_owned();
        return Some(Ruling { decision: Decision::Deny, level, rule, message, retry_after_ms: None });
    };
    let ruling = |key: &str, message: String, wait_ms: Option<u64>| {
        let decision = if wait_ms.is_some() { Decision::Limit } else { Decision::Deny };
        let rule = format!("policy.{level}.{key}");
        Some(Ruling { decision, level, rule, message, retry_after_ms: wait_ms })
    };
    if let Some((key, message)) = denied(policy, asked) {
        return ruling(key, message, None);
    }
    let limit = |key: &str, wait_ms: u64| {
        let message = format!("{level} peers may not send more than policy.{level}.{key} allows here: wait");
        ruling(key, message, Some(wait_ms))
    };
    if let Some(open) = asked.in_flight
        && policy.in_flight_max > 0
        && open as u64 >= policy.in_flight_max
    {
        return limit("in_flight_max", 1_000);
    }
    let (per_peer, per_bytes) = (policy.messages_per_minute, policy.bytes_per_minute);
    let per_level = policy.level_messages_per_minute;
    let now = |bucket: Option<&Bucket>, rate| match bucket {
        Some(bucket) => bucket.at(rate, now_ms),
        None => Bucket::full(rate, now_ms),
    };
    let of_peer = now(rates.messages.get(&peer), per_peer);
    let of_bytes = now(rates.bytes.get(&peer), per_bytes);
    let of_level = now(rates.levels.get(&level), per_level);
    // A peer that is over its own rate is told so, and takes nothing of the level's.
    if let Some(wait_ms) = of_peer.wait_ms(per_peer, 1, true).filter(|_| per_peer > 0) {
        return limit("messages_per_minute", wait_ms);
    }
    if let Some(wait_ms) = of_bytes.wait_ms(per_bytes, 0, false).filter(|_| per_bytes > 0) {
        return limit("bytes_per_minute", wait_ms);
    }
    if let Some(wait_ms) = of_level.wait_ms(per_level, 1, true).filter(|_| per_level > 0) {
        return limit("level_messages_per_minute", wait_ms);
    }
    if spend {
        if per_peer > 0 {
            rates.messages.insert(peer, of_peer.less(1));
        }
        if per_bytes > 0 {
            rates.bytes.insert(peer, of_bytes.less(asked.bytes as u64));
        }
        if per_level > 0 {
            rates.levels.insert(level, of_level.less(1));
        }
    }
    None
}

/// Which rule a message breaks whenever it comes, and what to say of it.
fn denied(policy: &Policy, asked: &Asked<'_>) -> Option<(&'static str, String)> {
    let Asked { peer, level, kind, needs, .. } = *asked;
    let allowed = match &policy.kinds {
        None => needs <= level,
        Some(kinds) => kinds.iter().any(|listed| listed == "*" || listed == kind),
    };
    if !allowed {
        let message = match &policy.kinds {
            None => format!(
                "{kind} needs level {needs} and you are {level} here: the owner can run \
                 `axon trust {peer} {needs}`"
            ),
            Some(_) => format!("{kind} is not among the kinds that {level} peers may send here"),
        };
        return Some(("kinds", message));
    }
    if let (Some(domains), Some(domain)) = (&policy.domains, asked.domain)
        && !domain.is_some_and(|domain| domains.iter().any(|served| covers(served, domain)))
    {
        let message = format!("{level} peers may ask here about these domains only: {}", domains.join(", "));
        return Some(("domains", message));
    }
    let max = policy.payload_bytes_max;
    if max > 0 && asked.payload_bytes as u64 > max {
        let message = format!("a payload of {level} peers may be {max} bytes long here: shorten it");
        return Some(("payload_bytes_max", message));
    }
    None
}

/// Who may learn of an agent by its neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Findable {
    /// Nobody.
    Nobody,
    /// Peers that the neighbour trusts.
    Trusted,
    /// Peers that the neighbour knows.
    #[default]
    Known,
}

impl Findable {
    /// As settings and beacons say it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Trusted => "trusted",
            Self::Known => "known",
        }
    }

    /// The one of this name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Nobody, Self::Trusted, Self::Known].into_iter().find(|one| one.as_str() == text)
    }

    /// Whether a peer of this level may learn of it.
    pub fn by(self, level: Level) -> bool {
        match self {
            Self::Nobody => false,
            Self::Trusted => level >= Level::Trusted,
            Self::Known => level >= Level::Known,
        }
    }
}

/// `[presence]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PresenceSettings {
    /// `enabled`: whether the feature is offered; what it is at the start counts.
    pub enabled: bool,
    /// `findable`.
    pub findable: Findable,
}

impl Default for PresenceSettings {
    fn default() -> Self {
        Self { enabled: true, findable: Findable::Known }
    }
}

/// Whether a domain covers the one asked for: `family` covers `family` and `family.calendar`.
pub fn covers(served: &str, asked: &str) -> bool {
    asked.strip_prefix(served).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(policies: &Policies, rates: &mut Rates, asked: &Asked<'_>, now_ms: u64, spend: bool) -> Ruling {
        match check(policies, rates, asked, now_ms, spend) {
            Some(ruling) => ruling,
            None => judge(policies, &mut Rates::default(), asked, now_ms),
        }
    }

    fn asked(level: Level, kind: &str, needs: Level) -> Asked<'_> {
        Asked {
            peer: AgentId([1; 16]),
            level,
            kind,
            needs,
            domain: None,
            payload_bytes: 10,
            bytes: 100,
            in_flight: None,
        }
    }

    #[test]
    fn who_may_find_an_agent_is_said_by_name_and_goes_by_level() {
        let all = [(Findable::Nobody, "nobody"), (Findable::Trusted, "trusted"), (Findable::Known, "known")];
        for (one, name) in all {
            assert_eq!((one.as_str(), Findable::parse(name)), (name, Some(one)));
        }
        assert_eq!((Findable::parse(""), Findable::parse("Known")), (None, None));
        let finders = |one: Findable| {
            let levels = [Level::Blocked, Level::Unknown, Level::Known, Level::Trusted];
            levels.into_iter().filter(|level| one.by(*level)).collect::<Vec<_>>()
        };
        assert_eq!(finders(Findable::Nobody), []);
        assert_eq!(finders(Findable::Trusted), [Level::Trusted]);
        assert_eq!(finders(Findable::Known), [Level::Known, Level::Trusted]);
    }

    #[test]
    fn a_rate_is_a_bucket_that_fills_again() {
        let policies = Policies::default();
        let mut rates = Rates::default();
        let ask = asked(Level::Unknown, "notify", Level::Unknown);
        for _ in 0..30 {
            assert_eq!(judged(&policies, &mut rates, &ask, 0, true).decision, Decision::Allow);
        }
        let over = judged(&policies, &mut rates, &ask, 0, true);
        assert_eq!((over.decision, &*over.rule), (Decision::Limit, "policy.unknown.messages_per_minute"));
        assert_eq!(over.retry_after_ms, Some(2_000));
        assert_eq!(judged(&policies, &mut rates, &ask, 1_999, true).decision, Decision::Limit);
        assert_eq!(judged(&policies, &mut rates, &ask, 2_000, false).decision, Decision::Allow);
        assert_eq!(
            judged(&policies, &mut rates, &ask, 2_000, true).decision,
            Decision::Allow,
            "a look costs nothing"
        );
        assert_eq!(judged(&policies, &mut rates, &ask, 2_000, true).decision, Decision::Limit);
        // All of the level together.
        for n in 2..6 {
            let other = Asked { peer: AgentId([n; 16]), ..ask };
            (0..30).for_each(|_| _ = judged(&policies, &mut rates, &other, 2_000, true));
        }
        let other = Asked { peer: AgentId([9; 16]), ..ask };
        let over = judged(&policies, &mut rates, &other, 2_000, true);
        assert_eq!(over.rule, "policy.unknown.level_messages_per_minute");
        rates.sweep(2_000 + MINUTE_MS);
        assert!(rates.messages.is_empty());
    }

    #[test]
    fn bytes_may_go_over_by_one_message() {
        let mut policies = Policies::default();
        policies.known.bytes_per_minute = 60;
        let mut rates = Rates::default();
        let ask = asked(Level::Known, "notify", Level::Unknown);
        assert_eq!(judged(&policies, &mut rates, &ask, 0, true).decision, Decision::Allow);
        let over = judged(&policies, &mut rates, &ask, 0, true);
        assert_eq!(over.rule, "policy.known.bytes_per_minute");
        let wait_ms = over.retry_after_ms.unwrap();
        assert_eq!(judged(&policies, &mut rates, &ask, wait_ms - 1, false).decision, Decision::Limit);
        assert_eq!(judged(&policies, &mut rates, &ask, wait_ms, false).decision, Decision::Allow);
    }

    #[test]
    fn the_first_rule_that_applies_decides() {
        let mut policies = Policies::default();
        policies.known.kinds = Some(vec!["query".into()]);
        policies.known.domains = Some(vec!["family".into()]);
        policies.known.payload_bytes_max = 5;
        let mut rates = Rates::default();
        let mut rule = |ask: &Asked<'_>| {
            let ruling = judged(&policies, &mut rates, ask, 0, false);
            (ruling.decision, ruling.rule)
        };
        let deny = |rule: &str| (Decision::Deny, rule.to_owned());
        assert_eq!(rule(&asked(Level::Blocked, "ping", Level::Unknown)), deny("contacts.level"));
        assert_eq!(rule(&asked(Level::Unknown, "delegate", Level::Known)), deny("policy.unknown.kinds"));
        assert_eq!(rule(&asked(Level::Known, "ping", Level::Unknown)), deny("policy.known.kinds"));
        let query = asked(Level::Known, "query", Level::Unknown);
        assert_eq!(rule(&Asked { domain: Some(None), ..query }), deny("policy.known.domains"));
        assert_eq!(rule(&Asked { domain: Some(Some("familyx")), ..query }), deny("policy.known.domains"));
        let fits = Asked { domain: Some(Some("family.x")), ..query };
        assert_eq!(rule(&fits), deny("policy.known.payload_bytes_max"));
        let small = Asked { payload_bytes: 5, in_flight: Some(256), ..fits };
        assert_eq!(rule(&small), (Decision::Limit, "policy.known.in_flight_max".to_owned()));
        let free = Asked { in_flight: Some(255), ..small };
        assert_eq!(rule(&free), (Decision::Allow, "policy.known.kinds".to_owned()));
    }

    #[test]
    fn a_rate_of_nothing_is_no_rate_and_leaves_nothing_behind() {
        let mut policies = Policies::default();
        policies.known.messages_per_minute = 0;
        policies.known.bytes_per_minute = 0;
        policies.known.level_messages_per_minute = 0;
        policies.known.in_flight_max = 0;
        let mut rates = Rates::default();
        let ask = Asked { in_flight: Some(1_000), ..asked(Level::Known, "query", Level::Unknown) };
        for _ in 0..1_000 {
            assert_eq!(check(&policies, &mut rates, &ask, 5, true), None);
        }
        assert_eq!((rates.messages.len(), rates.bytes.len(), rates.levels.len()), (0, 0, 0));
    }

    #[test]
    fn what_was_spent_is_remembered_for_a_minute_and_forgotten_with_its_peer() {
        let mut policies = Policies::default();
        policies.known.messages_per_minute = 1;
        policies.known.bytes_per_minute = 1_000_000;
        let mut rates = Rates::default();
        let ask = asked(Level::Known, "query", Level::Unknown);
        let passes = |rates: &mut Rates, now_ms| check(&policies, rates, &ask, now_ms, true).is_none();
        assert!(passes(&mut rates, 5) && !passes(&mut rates, 6));
        rates.sweep(MINUTE_MS + 4);
        assert_eq!((rates.messages.len(), rates.bytes.len()), (1, 1));
        assert!(!passes(&mut rates, 7));
        rates.forget(ask.peer);
        assert!(passes(&mut rates, 8) && !passes(&mut rates, 9));
        rates.sweep(MINUTE_MS + 8);
        assert_eq!((rates.messages.len(), rates.bytes.len()), (0, 0));
        let names = [Decision::Allow, Decision::Deny, Decision::Limit].map(Decision::as_str);
        assert_eq!(names, ["allow", "deny", "limit"]);
    }
}
