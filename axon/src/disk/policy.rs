//! `[policy.<level>]` and `[knock]`: who may do what, and how often. Rows are in [`super::settings`].
//!
//! Source: `spec/TRUST.md`, "Policy" and "Knocks".

use axon_proto::id::AgentId;
use axon_proto::kinds::topics::name::Filter;
use axon_proto::limits::{DOMAIN_BYTES_MAX, KIND_BYTES_MAX, NAME_BYTES_MAX, RULE_NAMES_MAX};
use axon_proto::node::KnockSettings;
use axon_proto::trust::{Policies, Policy};

use super::config::{Taken, is_line, shortened};
use super::settings::Names;

/// Puts a value in its place; false: the key is none of these.
pub(super) fn apply(policies: &mut Policies, knock: &mut KnockSettings, key: &str, value: Taken) -> bool {
    if let Some(key) = key.strip_prefix("knock.") {
        return apply_knock(knock, key, value);
    }
    let Some((level, key)) = key.strip_prefix("policy.").and_then(|rest| rest.split_once('.')) else {
        return false;
    };
    let policy = match level {
        "unknown" => &mut policies.unknown,
        "known" => &mut policies.known,
        "trusted" => &mut policies.trusted,
        _ => return false,
    };
    apply_policy(policy, key, value)
}

fn apply_policy(policy: &mut Policy, key: &str, value: Taken) -> bool {
    match (key, value) {
        ("kinds", Taken::Names(names)) => policy.kinds = Some(names),
        ("domains", Taken::Names(names)) => policy.domains = Some(names),
        ("messages_per_minute", Taken::Int(n)) => policy.messages_per_minute = n,
        ("bytes_per_minute", Taken::Int(n)) => policy.bytes_per_minute = n,
        ("in_flight_max", Taken::Int(n)) => policy.in_flight_max = n,
        ("payload_bytes_max", Taken::Int(n)) => policy.payload_bytes_max = n,
        ("level_messages_per_minute", Taken::Int(n)) => policy.level_messages_per_minute = n,
        _ => return false,
    }
    true
}

fn apply_knock(knock: &mut KnockSettings, key: &str, value: Taken) -> bool {
    match (key, value) {
        ("open", Taken::Bool(yes)) => knock.open = yes,
        ("intents", Taken::Names(names)) => knock.intents = Some(names),
        // Each has been checked to be an id.
        ("allow", Taken::Names(names)) => {
            knock.allow = names.iter().filter_map(|name| name.parse().ok()).collect();
        }
        ("per_minute", Taken::Int(n)) => knock.per_minute = n,
        ("accept_rekey", Taken::Bool(yes)) => knock.accept_rekey = yes,
        _ => return false,
    }
    true
}

/// What a list of such names is, for a person.
pub(super) fn expects(names: Names) -> String {
    let what = match names {
        Names::Kinds => "kinds, such as [\"ping\", \"query\"] or [\"*\"]",
        Names::Domains => "domains, such as [\"family\", \"work.calendar\"]",
        Names::Intents => "intents, such as [\"work\", \"work/review\"]",
        Names::Agents => "agent ids, such as [\"ed25519.<32 hexadecimal digits>\"]",
        Names::Topics => "topics or filters of topics, such as [\"build.main\", \"news.>\"]",
    };
    format!("a list of at most {RULE_NAMES_MAX} {what}")
}

/// What is wrong with a list, if anything.
pub(super) fn check_names(sort: Names, names: &[&str]) -> Result<(), String> {
    if names.len() > RULE_NAMES_MAX {
        return Err(format!("has {} entries, and may have {RULE_NAMES_MAX}", names.len()));
    }
    names.iter().try_for_each(|name| check_name(sort, name))
}

fn check_name(sort: Names, name: &str) -> Result<(), String> {
    let shown = || format!("{:?}", shortened(name));
    let line = |what: &str, bytes_max: usize| match is_line(name, bytes_max) {
        true => Ok(()),
        false => {
            let need = format!("1 to {bytes_max} bytes without control characters");
            Err(format!("holds {}, and a {what} has {need}", shown()))
        }
    };
    match sort {
        Names::Kinds if name.contains('*') && name != "*" => {
            Err(format!("holds {}, and only \"*\" alone stands for any kind", shown()))
        }
        Names::Kinds => line("kind", KIND_BYTES_MAX),
        Names::Domains => line("domain", DOMAIN_BYTES_MAX),
        Names::Intents => {
            let parts: Vec<&str> = name.split('/').collect();
            match parts.len() <= 2 && parts.iter().all(|part| is_line(part, NAME_BYTES_MAX)) {
                true => Ok(()),
                false => Err(format!(
                    "holds {}, and an intent is \"category\" or \"category/action\", each 1 to \
                     {NAME_BYTES_MAX} bytes without control characters",
                    shown()
                )),
            }
        }
        Names::Agents => match name.parse::<AgentId>() {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("holds {}, and {error}", shown())),
        },
        Names::Topics => match Filter::parse(name) {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("holds {}, and {error}", shown())),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_by_their_sort() {
        for (sort, good, bad) in [
            (Names::Kinds, &["*", "ping", "x-y"][..], &["", "p*", "a\nb"][..]),
            (Names::Domains, &["family", "a b"], &["", "\t"]),
            (Names::Intents, &["work", "work/review"], &["", "/", "work/", "a/b/c", "/b"]),
            (Names::Agents, &["ed25519.66687aadf862bd776c8fc18b8e9f8e20"], &["", "bob", "ed25519.66"]),
            (Names::Topics, &[">", "build.*.x"], &["", "a..b", "a b", "a*", ">.a"]),
        ] {
            assert_eq!(check_names(sort, good), Ok(()), "{sort:?}");
            for name in bad {
                let message = check_names(sort, &[good[0], name]).unwrap_err();
                assert!(message.starts_with("holds "), "{message}");
            }
        }
        assert_eq!(check_names(Names::Kinds, &["x"; RULE_NAMES_MAX]), Ok(()));
        assert!(check_names(Names::Kinds, &["x"; RULE_NAMES_MAX + 1]).unwrap_err().contains("may have 64"));
    }

    #[test]
    fn every_key_has_its_place() {
        for level in ["unknown", "known", "trusted"] {
            for key in ["kinds", "domains"] {
                let (mut policies, mut knock) = (Policies::default(), KnockSettings::default());
                let names = Taken::Names(vec!["x".to_owned()]);
                assert!(apply(&mut policies, &mut knock, &format!("policy.{level}.{key}"), names));
                assert_ne!(policies, Policies::default());
            }
        }
        let (mut policies, mut knock) = (Policies::default(), KnockSettings::default());
        for key in ["policy.blocked.kinds", "policy.known", "policy.known.x", "knock", "knock.x", "ipc.kinds"]
        {
            assert!(!apply(&mut policies, &mut knock, key, Taken::Names(Vec::new())), "{key}");
        }
        let id = "ed25519.66687aadf862bd776c8fc18b8e9f8e20";
        assert!(apply(&mut policies, &mut knock, "knock.allow", Taken::Names(vec![id.to_owned()])));
        assert_eq!(knock.allow, [id.parse().unwrap()]);
        assert_eq!(policies, Policies::default());
    }
}
