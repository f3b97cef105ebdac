//! Who may publish, be given and pass on what, how large and how often.
//!
//! Source: `spec/kinds/topics.md`, "Rules". Pure: they see a topic, two levels, sizes and the time.

use std::collections::BTreeMap;
use std::hash::Hash;

use foldhash::HashMap;

use super::name::{Filter, Topic};
use crate::id::AgentId;
use crate::limits::{TOPIC_NEIGHBOUR_RATES_MAX, TOPIC_PUBLISHERS_MAX};
use crate::trust::Level;

/// `[topics]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSettings {
    /// `enabled`: whether the feature is offered; what it is at the start counts.
    pub enabled: bool,
    /// `relay`: topics that are passed on though nobody here has subscribed.
    pub relay: Vec<Filter>,
    /// `[[topics.rules]]`, in order: the first whose filter matches a topic counts.
    pub rules: Vec<Rule>,
}

/// Who may do what with the topics that a filter matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// `filter`.
    pub filter: Filter,
    /// `publish`: what a publisher must be at least.
    pub publish: Publisher,
    /// `subscribe`: what a neighbour must be at least to be given them.
    pub subscribe: Level,
    /// `relay`: what a neighbour must be at least to give them.
    pub relay: Level,
    /// `bytes_max`, of one message; 0: as long as a message may be.
    pub bytes_max: u64,
    /// `messages_per_minute`, of one publisher; none: [`STRANGER_MESSAGES_PER_MINUTE`] of those who are no
    /// peers, and of peers as many as they like; 0: as many as they like.
    pub messages_per_minute: Option<u64>,
    /// `relay_messages_per_minute`, that one neighbour gives; none: [`RELAYED_MESSAGES_PER_MINUTE`] of
    /// publishers who are no peers, and of peers as many as they like; 0: as many as they like.
    pub relay_messages_per_minute: Option<u64>,
}

/// What a publisher is to this agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Publisher {
    /// No peer, and not blocked.
    Stranger,
    /// A peer of this level.
    Peer(Level),
}

/// What publishers who are no peers may publish in a minute, each, where no rule says otherwise.
pub const STRANGER_MESSAGES_PER_MINUTE: u64 = 6_000;

/// What one neighbour may give of publishers who are no peers in a minute, of all of them and on all topics
/// together, where no rule says otherwise: who makes up keys is bounded by it, and peers who publish a lot
/// are not.
pub const RELAYED_MESSAGES_PER_MINUTE: u64 = 60_000;

/// Why a batch is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NotTaken {
    /// It cannot be read.
    Malformed,
    /// Its publisher is blocked here.
    Blocked,
    /// A rule speaks against its publisher, or against the neighbour that gave it.
    NotAuthorized,
    /// It is too old, or of the future.
    Old,
    /// Nobody here wants its topic, and it is not passed on.
    Unwanted,
    /// It is too much, or too large.
    Limited,
    /// Its signature is not that of its publisher.
    Forged,
    /// It could not be stored.
    NotKept,
}

impl NotTaken {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Malformed,
        Self::Blocked,
        Self::NotAuthorized,
        Self::Old,
        Self::Unwanted,
        Self::Limited,
        Self::Forged,
        Self::NotKept,
    ];

    /// As `status` says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Blocked => "blocked",
            Self::NotAuthorized => "not_authorized",
            Self::Old => "old",
            Self::Unwanted => "unwanted",
            Self::Limited => "limited",
            Self::Forged => "forged",
            Self::NotKept => "not_kept",
        }
    }
}

impl Default for TopicSettings {
    fn default() -> Self {
        let all = Filter::parse(">");
        Self { enabled: true, relay: all.into_iter().collect(), rules: Vec::new() }
    }
}

impl Rule {
    /// What holds of topics that no rule matches.
    pub fn default_for(filter: Filter) -> Self {
        Self {
            filter,
            publish: Publisher::Stranger,
            subscribe: Level::Known,
            relay: Level::Known,
            bytes_max: 0,
            messages_per_minute: None,
            relay_messages_per_minute: None,
        }
    }

    /// Messages that such a publisher may publish in a minute; none: as many as they like.
    pub fn per_minute(&self, publisher: Publisher) -> Option<u64> {
        let usual = publisher.is_stranger().then_some(STRANGER_MESSAGES_PER_MINUTE);
        self.messages_per_minute.or(usual).filter(|limit| *limit > 0)
    }
}

impl Publisher {
    /// What an agent is by its level; none: it is blocked.
    pub fn of(level: Option<Level>) -> Option<Self> {
        match level {
            None => Some(Self::Stranger),
            Some(Level::Blocked) => None,
            Some(level) => Some(Self::Peer(level)),
        }
    }

    /// Whether nobody here has let it in: a peer that was only found on the network is none of ours.
    fn is_stranger(self) -> bool {
        self < Self::Peer(Level::Known)
    }

    /// The one of this name.
    pub fn parse(text: &str) -> Option<Self> {
        let level = || Level::parse(text).filter(|level| *level > Level::Blocked).map(Self::Peer);
        if text == "stranger" { Some(Self::Stranger) } else { level() }
    }
}

impl TopicSettings {
    /// The rule for a topic; none: the usual.
    fn rule(&self, topic: &Topic) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.filter.matches(topic))
    }

    /// How many messages of such a publisher a neighbour may give on a topic in a minute, and by which rule;
    /// none: as many as it likes.
    pub fn relayed_per_minute(&self, topic: &Topic, publisher: Publisher) -> Option<(u64, Option<usize>)> {
        let rule = self.rules.iter().position(|rule| rule.filter.matches(topic));
        let told = rule.and_then(|at| self.rules.get(at)?.relay_messages_per_minute);
        let usual = publisher.is_stranger().then_some((RELAYED_MESSAGES_PER_MINUTE, None));
        told.map_or(usual, |limit| (limit > 0).then_some((limit, rule)))
    }

    /// Whether a topic is passed on though nobody here has subscribed.
    pub fn relays(&self, topic: &Topic) -> bool {
        self.relay.iter().any(|filter| filter.matches(topic))
    }

    /// Whether a neighbour of this level may be given a topic.
    pub fn gives(&self, topic: &Topic, level: Level) -> bool {
        level >= self.rule(topic).map_or(Level::Known, |rule| rule.subscribe)
    }

    /// Whether a neighbour of this level may give a topic.
    pub fn takes_from(&self, topic: &Topic, level: Level) -> bool {
        level >= self.rule(topic).map_or(Level::Known, |rule| rule.relay)
    }

    /// Whether such a publisher may publish on a topic.
    pub fn hears(&self, topic: &Topic, publisher: Publisher) -> bool {
        publisher >= self.rule(topic).map_or(Publisher::Stranger, |rule| rule.publish)
    }

    /// How long one message may be; none: as long as any.
    pub fn bytes_max(&self, topic: &Topic) -> Option<u64> {
        self.rule(topic).map(|rule| rule.bytes_max).filter(|bytes| *bytes > 0)
    }

    /// Messages that such a publisher may publish on a topic in a minute; none: as many as they like.
    pub fn per_minute(&self, topic: &Topic, publisher: Publisher) -> Option<u64> {
        match self.rule(topic) {
            Some(rule) => rule.per_minute(publisher),
            None => publisher.is_stranger().then_some(STRANGER_MESSAGES_PER_MINUTE),
        }
    }
}

/// How much each publisher has published of late.
pub type PublisherRates = Rates<AgentId, TOPIC_PUBLISHERS_MAX>;

/// How much each neighbour has given of late, by rule; none: by none of them.
pub type NeighbourRates = Rates<(AgentId, Option<usize>), TOPIC_NEIGHBOUR_RATES_MAX>;

/// How much of what they may each have used of late.
#[derive(Debug)]
pub struct Rates<K, const MAX: usize> {
    left: HashMap<K, Left>,
}

impl<K, const MAX: usize> Default for Rates<K, MAX> {
    fn default() -> Self {
        Self { left: HashMap::default() }
    }
}

#[derive(Debug, Clone, Copy)]
struct Left {
    /// In thousandths of a message.
    left: u64,
    at_ms: u64,
}

const MINUTE_MS: u64 = 60_000;

impl Left {
    /// What is left now.
    fn now(self, per_minute: u64, now_ms: u64) -> u64 {
        let passed_ms = now_ms.saturating_sub(self.at_ms).min(MINUTE_MS);
        let more = per_minute.saturating_mul(passed_ms) / (MINUTE_MS / 1_000);
        self.left.saturating_add(more).min(full(per_minute))
    }
}

/// What nobody has used up, in thousandths of a message.
fn full(per_minute: u64) -> u64 {
    per_minute.saturating_mul(1_000)
}

impl<K: Copy + Eq + Hash, const MAX: usize> Rates<K, MAX> {
    /// Whether so many more messages would pass now; nothing counts for that.
    pub fn would_pass(&self, who: K, count: u64, per_minute: u64, now_ms: u64) -> bool {
        let left = self.left.get(&who).map_or(full(per_minute), |of| of.now(per_minute, now_ms));
        left >= count.saturating_mul(1_000).min(full(per_minute))
    }

    /// Whether so many more messages may pass; they count then.
    pub fn spend(&mut self, who: K, count: u64, per_minute: u64, now_ms: u64) -> bool {
        if !self.left.contains_key(&who) && self.left.len() >= MAX {
            self.sweep(now_ms);
            if self.left.len() >= MAX {
                return false;
            }
        }
        // A batch that is longer than what a minute allows passes when nothing was spent.
        let passes = self.would_pass(who, count, per_minute, now_ms);
        let of = self.left.entry(who).or_insert(Left { left: full(per_minute), at_ms: now_ms });
        let cost = if passes { count.saturating_mul(1_000) } else { 0 };
        *of = Left { left: of.now(per_minute, now_ms).saturating_sub(cost), at_ms: now_ms };
        passes
    }

    /// Forgets those that nothing limits any more.
    pub fn sweep(&mut self, now_ms: u64) {
        self.left.retain(|_, of| of.at_ms + MINUTE_MS > now_ms);
    }
}

/// How often something was not taken, by reason.
#[derive(Debug, Default, Clone)]
pub struct Dropped(BTreeMap<NotTaken, u64>);

impl Dropped {
    /// Counts one.
    pub fn count(&mut self, why: NotTaken) {
        *self.0.entry(why).or_default() += 1;
    }

    /// How often it was for this reason.
    pub fn of(&self, why: NotTaken) -> u64 {
        self.0.get(&why).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(text: &str) -> Topic {
        Topic::parse(text).unwrap()
    }
    fn rule(filter: &str) -> Rule {
        Rule::default_for(Filter::parse(filter).unwrap())
    }

    // shows: TOP-RULE-1
    #[test]
    fn the_first_rule_that_matches_counts_and_without_one_the_usual() {
        let narrow = Rule {
            publish: Publisher::Peer(Level::Trusted),
            subscribe: Level::Trusted,
            relay: Level::Unknown,
            bytes_max: 10,
            messages_per_minute: Some(0),
            ..rule("build.*")
        };
        let settings = TopicSettings { rules: vec![narrow, rule("build.>")], ..TopicSettings::default() };
        let (build, deep, other) = (topic("build.main"), topic("build.main.x"), topic("a"));
        assert!(settings.relays(&other));
        for (topic, publish, subscribe, bytes, per_minute) in [
            (&build, false, false, Some(10), None),
            (&deep, true, true, None, Some(STRANGER_MESSAGES_PER_MINUTE)),
            (&other, true, true, None, Some(STRANGER_MESSAGES_PER_MINUTE)),
        ] {
            assert_eq!(settings.hears(topic, Publisher::Stranger), publish, "{topic}");
            assert!(settings.hears(topic, Publisher::Peer(Level::Trusted)), "{topic}");
            assert_eq!(settings.gives(topic, Level::Known), subscribe, "{topic}");
            assert_eq!(settings.bytes_max(topic), bytes, "{topic}");
            assert_eq!(settings.per_minute(topic, Publisher::Stranger), per_minute, "{topic}");
            assert_eq!(settings.per_minute(topic, Publisher::Peer(Level::Known)), None, "{topic}");
        }
        assert!(settings.takes_from(&build, Level::Unknown) && !settings.takes_from(&deep, Level::Unknown));
    }

    // shows: TOP-RULE-1
    #[test]
    fn whoever_is_blocked_is_no_publisher() {
        assert_eq!(Publisher::of(Some(Level::Blocked)), None);
        assert_eq!(Publisher::of(None), Some(Publisher::Stranger));
        assert!(Publisher::Stranger < Publisher::Peer(Level::Unknown));
        assert_eq!(Publisher::parse("stranger"), Some(Publisher::Stranger));
        assert_eq!(Publisher::parse("known"), Some(Publisher::Peer(Level::Known)));
        assert_eq!((Publisher::parse("blocked"), Publisher::parse("x")), (None, None));
    }

    // shows: TOP-RULE-4
    #[test]
    fn a_neighbour_may_give_what_the_rule_says_or_so_much_of_strangers() {
        let told = |limit: u64, filter: &str| Rule { relay_messages_per_minute: Some(limit), ..rule(filter) };
        let rules = vec![rule("a"), told(600, "b"), told(0, "c")];
        let settings = TopicSettings { rules, ..TopicSettings::default() };
        let usual = Some((RELAYED_MESSAGES_PER_MINUTE, None));
        for (text, of_stranger, of_peer) in [
            ("a", usual, None),
            ("b", Some((600, Some(1))), Some((600, Some(1)))),
            ("c", None, None),
            ("d", usual, None),
        ] {
            let limit = |publisher: Publisher| settings.relayed_per_minute(&topic(text), publisher);
            assert_eq!(limit(Publisher::Stranger), of_stranger, "{text}");
            assert_eq!(limit(Publisher::Peer(Level::Unknown)), of_stranger, "{text}");
            assert_eq!(limit(Publisher::Peer(Level::Known)), of_peer, "{text}");
        }
    }

    // shows: TOP-RULE-3
    #[test]
    fn a_publisher_has_so_much_a_minute_and_publishers_are_bounded() {
        let mut rates = PublisherRates::default();
        let one = AgentId([1; 16]);
        assert!(rates.spend(one, 60, 60, 0));
        assert!(!rates.spend(one, 1, 60, 999));
        assert!(rates.spend(one, 1, 60, 1_999), "one a second comes back");
        assert!(rates.spend(AgentId([2; 16]), 60, 60, 0), "another's is its own");
        assert!(rates.spend(AgentId([3; 16]), 64, 10, 0), "a batch that is longer than a minute's worth");
        for n in 0..2 * TOPIC_PUBLISHERS_MAX {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&n.to_be_bytes());
            rates.spend(AgentId(id), 1, 60, 5_000);
        }
        assert!(rates.left.len() <= TOPIC_PUBLISHERS_MAX);
        assert!(!rates.spend(AgentId([9; 16]), 1, 60, 6_000));
        assert!(rates.spend(AgentId([9; 16]), 1, 60, 66_000));
    }
}
