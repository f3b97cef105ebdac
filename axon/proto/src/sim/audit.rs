//! The end of a run: all is healed, the power goes everywhere, and what was promised must be found.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::clients::{Role, Say, What, text};
use super::disk::Unsynced;
use super::{Ev, Sim};
use crate::node::ClientId;

/// In this time all that is under way must come to an end.
const QUIET_MS: u64 = 60_000;
/// In this time a reply to the auditor must come.
const REPLY_MS: u64 = 7_000;
/// Inbox replies that the auditor reads of one node at most.
const PAGES_MAX: usize = 100;

impl Sim {
    pub fn settle(&mut self) {
        self.story(|| "all is healed".into());
        self.calm = true;
        self.heal(None);
        for host in 0..self.hosts.len() {
            self.disk_well(host);
            self.hosts[host].disk.state().cut_at = None;
            self.hosts[host].stalled_until = 0;
            self.after(0, Ev::Start { host });
        }
        if self.plan.scenario {
            self.run_for(8_000);
            self.all_resume();
        }
        self.run_for(QUIET_MS);
        if self.plan.scenario {
            for host in 0..self.hosts.len() {
                self.over(host);
                self.all_told(host);
            }
        }
        for host in 0..self.hosts.len() {
            self.crash(host, Unsynced::Dropped);
            self.after(10, Ev::Start { host });
        }
        self.run_for(20_000);
        for host in 0..self.hosts.len() {
            if !self.report.violations.is_empty() {
                return;
            }
            self.audit(host);
        }
        if self.plan.scenario && self.report.violations.is_empty() {
            self.topics_are_whole();
            self.all_goes_on();
        }
    }

    fn audit(&mut self, at: usize) {
        if self.hosts[at].node.is_none() {
            return self.wrong(at, "a daemon starts again", String::new());
        }
        let client = self.attach(at, Role::Auditor, 0);
        let mut there = BTreeSet::new();
        for _ in 0..PAGES_MAX {
            let command = json!({"cmd":"inbox","limit":1000});
            let reply = self.asked(at, client, Say { command, what: What::Inbox, wait_ms: 0 });
            for row in reply["messages"].as_array().into_iter().flatten() {
                there.insert(text(&row["envelope"], "id").to_owned());
            }
            let Some(up_to) = reply["next_seq"].as_u64().filter(|_| reply["has_more"] == true) else { break };
            let command = json!({"cmd":"ack","up_to_seq":up_to});
            self.say(at, client, Say { command, what: What::Ack(up_to), wait_ms: 0 });
            self.run_for(100);
        }
        for (to, id) in self.promises.all_delivered() {
            if to == at && !there.contains(&id) && !self.promises.may_be_gone(at, &id) {
                self.wrong(at, "what was delivered is there until it is read", id);
            }
        }
        for (from, id) in self.promises.all_held() {
            if from != at {
                continue;
            }
            let command = json!({"cmd":"outbox","id":id});
            let what = What::Outbox(id.clone());
            let reply = self.asked(at, client, Say { command, what, wait_ms: 0 });
            let state = text(&reply["outbox"][0], "state").to_owned();
            if state.is_empty() {
                self.wrong(at, "what is held is not lost", format!("{id}: {reply}"));
            }
            self.word_of(at, None, &id, &state);
        }
    }

    /// A command of the auditor, and its reply.
    pub fn asked(&mut self, at: usize, client: ClientId, say: Say) -> Value {
        let set = |sim: &mut Self, value: Value| {
            let state = sim.hosts[at].clients.get_mut(&client);
            state.map(|state| std::mem::replace(&mut state.last_reply, value)).unwrap_or_default()
        };
        set(self, Value::Null);
        let wait_ms = say.wait_ms;
        self.say(at, client, say);
        let until = self.now + wait_ms + REPLY_MS;
        let has =
            |sim: &Self| sim.hosts[at].clients.get(&client).is_some_and(|state| !state.last_reply.is_null());
        while !has(self) && self.now < until {
            let before = self.now;
            if !self.go() || self.now < before {
                break;
            }
        }
        set(self, Value::Null)
    }
}
