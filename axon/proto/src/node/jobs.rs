//! What the shell does for the node and tells the end of, one step after another, and what follows then.
//!
//! A command such as `trust` is done when the peer's words are out of every queue and the file is on disk.
//! Its steps are data, so that each command reads as the list of what it needs.

use std::collections::VecDeque;
use std::sync::Arc;

use super::pairing::Joined;
use super::storing::After;
use super::{ClientId, Effect, JobId, LogLevel, Node, Now, StreamId};
use crate::contacts::{Contact, ContactChange};
use crate::error::{IpcCode, IpcError};
use crate::id::{AgentId, MsgId};
use crate::invite::InviteId;
use crate::pairing::Invite;
use crate::pairing::payload::Admission;
use crate::scope::ScopeChange;
use crate::store::Write;

/// One thing to be done.
#[derive(Debug)]
pub(super) enum Step {
    /// No word of this peer is left in any queue.
    Purge(AgentId),
    /// This is on disk.
    Store(Vec<Write>),
    /// `contacts.toml` says what holds in memory then.
    Contacts(Vec<Said>),
    /// The scoped sockets are as they should be.
    Socket(ScopeChange),
    /// The settings are read again.
    Reload,
    /// There is a new identity.
    Rekey,
}

/// What `contacts.toml` is to say something about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// Whatever holds of this agent.
    Of(AgentId),
    /// Nothing of this agent any more.
    Gone(AgentId),
    /// Whether all is paused.
    Pause,
}

/// What follows when all is done, or something has failed.
#[derive(Debug)]
pub(super) enum End {
    /// Nothing.
    Nothing,
    /// A client is answered.
    Line { client: ClientId, req_id: String, line: Arc<str> },
    /// A client is told where its scoped socket is.
    Socket { client: ClientId, req_id: String, name: String },
    /// A client is told of the new identity, and the daemon starts anew.
    Rekeyed { client: ClientId, req_id: String },
    /// A knock is answered; with the invite that it used.
    Knock { to: Answered, admission: Box<Admission>, used: Option<Invite>, undo: Option<Undo> },
    /// A peer's new key is taken on, or waits; then the old one is out.
    NewKey { to: Answered, state: &'static str, new: Option<AgentId> },
    /// A peer of ours has let us in, or may.
    Joined { peer: AgentId, joined: Box<Joined> },
    /// A client has its invite.
    Invited { client: ClientId, req_id: String, id: InviteId, line: Arc<str> },
}

/// What was said of somebody before, and what was said then: to be taken back as long as that holds.
pub(super) type Undo = (Option<Box<Contact>>, Box<Contact>);

/// A request of a peer that is answered at the end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answered {
    pub stream: StreamId,
    pub peer: AgentId,
    pub reference: MsgId,
}

/// Steps, and what follows.
#[derive(Debug)]
pub(super) struct Chain {
    steps: VecDeque<Step>,
    end: End,
    /// Contacts that are being written now.
    writing: Vec<Said>,
    /// The settings are being read again.
    reloading: bool,
}

impl Chain {
    /// What holds in memory and is perhaps not on disk yet.
    pub(super) fn unwritten(&self) -> impl Iterator<Item = Said> {
        let later = self.steps.iter().filter_map(|step| match step {
            Step::Contacts(said) => Some(said),
            _ => None,
        });
        self.writing.iter().chain(later.flatten()).copied()
    }
}

impl Node {
    /// Does all this, in order.
    pub(super) fn begin(&mut self, now: Now, steps: impl IntoIterator<Item = Step>, end: End) {
        if let Some(state) = end.client().and_then(|client| self.agents.clients.get_mut(&client)) {
            state.storing += 1;
        }
        let steps = steps.into_iter().collect();
        let chain = Chain { steps, end, writing: Vec::new(), reloading: false };
        self.go_on(now, chain, Ok(String::new()));
    }

    /// A step is done: the next, or the end.
    pub(super) fn go_on(&mut self, now: Now, mut chain: Chain, outcome: Result<String, String>) {
        let step = if outcome.is_ok() { chain.steps.pop_front() } else { None };
        let Some(step) = step else { return self.end_chain(now, chain.end, outcome) };
        if let Step::Store(writes) = step {
            self.commit(writes, After::Chain(Box::new(chain)));
            return;
        }
        chain.writing = match &step {
            Step::Contacts(said) => said.clone(),
            _ => Vec::new(),
        };
        chain.reloading = matches!(step, Step::Reload);
        let job = JobId(self.next_job);
        self.next_job += 1;
        self.jobs.insert(job, chain);
        self.out.push(match step {
            Step::Purge(peer) => Effect::Purge { job, peer },
            // As it holds now: what was said meanwhile is not undone by what was said before.
            Step::Contacts(said) => {
                let changes = said.into_iter().map(|said| self.as_said(said)).collect();
                Effect::Contacts { job, changes }
            }
            Step::Socket(change) => Effect::Socket { job, change },
            Step::Reload => Effect::Reload { job },
            Step::Rekey | Step::Store(_) => Effect::Rekey { job },
        });
    }

    /// What the file is to say.
    pub(super) fn as_said(&self, said: Said) -> ContactChange {
        let contacts = self.peers.contacts();
        match said {
            Said::Of(id) => contacts.get(id).cloned().map_or(ContactChange::Remove(id), ContactChange::Put),
            Said::Gone(id) => ContactChange::Remove(id),
            Said::Pause => ContactChange::Pause(contacts.paused()),
        }
    }

    /// Does more before whoever asked to read the settings again is answered, or as soon as may be.
    pub(super) fn before_reloaded(&mut self, now: Now, steps: Vec<Step>) {
        match self.jobs.values_mut().find(|chain| chain.reloading) {
            Some(chain) => chain.steps.extend(steps),
            None => self.begin(now, steps, End::Nothing),
        }
    }

    #[inline(never)]
    pub(super) fn job_done(&mut self, now: Now, job: JobId, outcome: Result<String, String>) {
        if let Some(chain) = self.jobs.remove(&job) {
            self.go_on(now, chain, outcome);
        }
    }

    fn end_chain(&mut self, now: Now, end: End, outcome: Result<String, String>) {
        let client = end.client();
        if let Err(why) = &outcome {
            self.out.push(Effect::Log(LogLevel::Warn, why.clone()));
        }
        let failed = |why: String| IpcError::new(IpcCode::InternalError, why);
        match end {
            End::Nothing => {}
            End::Line { client, req_id, line } => {
                self.answer_line(client, &req_id, outcome.map(|_| line).map_err(failed));
            }
            End::Invited { client, req_id, id, line } => {
                if outcome.is_err() {
                    self.pairing.invites.revoke(id);
                    self.publish_pins();
                }
                self.answer_line(client, &req_id, outcome.map(|_| line).map_err(failed));
            }
            End::Socket { client, req_id, name } => self.socket_done(client, &req_id, &name, outcome),
            End::Rekeyed { client, req_id } => self.rekeyed(now, client, &req_id, outcome),
            End::Knock { to, admission, used, undo } => {
                self.admitted(now, to, *admission, (used, undo), outcome);
            }
            End::NewKey { to, state, new } => self.new_key_taken(now, to, state, new, outcome),
            End::Joined { peer, joined } => self.joined(now, peer, *joined, outcome),
        }
        if let Some(client) = client {
            self.stored_for(now, client);
        }
    }
}

impl End {
    fn client(&self) -> Option<ClientId> {
        match self {
            Self::Line { client, .. }
            | Self::Socket { client, .. }
            | Self::Rekeyed { client, .. }
            | Self::Invited { client, .. } => Some(*client),
            // A client that joins is counted as long as it waits.
            Self::Nothing | Self::Knock { .. } | Self::NewKey { .. } | Self::Joined { .. } => None,
        }
    }
}
