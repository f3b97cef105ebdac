//! How the node calls families: one input at a time, with a view of the rest of the node, and a list of what
//! they decide.

use std::collections::VecDeque;

use super::{ConnId, Effect, Key, Node, Now, view};
use crate::agents::Agents;
use crate::family::{Act, Cx, Family, Input as FamilyInput, Open};
use crate::id::{AgentId, MsgId};
use crate::session::Phase;

impl Node {
    /// Lets a family handle an input, then carries out what it decided, and what follows from that.
    pub(super) fn tell_family(&mut self, now: Now, index: usize, input: FamilyInput<'_>) -> bool {
        let mut acts = std::mem::take(&mut self.acts);
        self.ask_family(now, index, input, &mut acts);
        let decided = !acts.is_empty();
        self.carry_out_all(now, acts);
        decided
    }

    /// Lets a family handle an input; what it decides is appended to `acts`.
    pub(super) fn ask_family(
        &mut self,
        now: Now,
        index: usize,
        input: FamilyInput<'_>,
        acts: &mut VecDeque<Act>,
    ) {
        self.borrow_family(now, index, acts, |family, _, cx| family.handle(input, cx));
    }

    /// Lets a family do something else than handle an input, and carries out what it decided.
    pub(super) fn with_family(
        &mut self,
        now: Now,
        index: usize,
        work: impl FnOnce(&mut dyn Family, &mut Cx<'_>),
    ) {
        let mut acts = std::mem::take(&mut self.acts);
        self.borrow_family(now, index, &mut acts, |family, _, cx| work(family, cx));
        self.carry_out_all(now, acts);
    }

    /// Lets the family of an open request do something about it.
    pub(super) fn with_open(
        &mut self,
        now: Now,
        id: MsgId,
        work: impl FnOnce(&mut dyn Family, &Open, &mut Cx<'_>),
    ) {
        let mut acts = std::mem::take(&mut self.acts);
        self.ask_about(now, id, &mut acts, work);
        self.carry_out_all(now, acts);
    }

    /// The same; what it decides is appended to `acts`.
    pub(super) fn ask_about(
        &mut self,
        now: Now,
        id: MsgId,
        acts: &mut VecDeque<Act>,
        work: impl FnOnce(&mut dyn Family, &Open, &mut Cx<'_>),
    ) {
        let open = self.agents.get(id);
        let Some((index, _)) = open.and_then(|open| self.kinds.get(open.kind.name)) else { return };
        self.borrow_family(now, index, acts, |family, agents, cx| {
            if let Some(open) = agents.get(id) {
                work(family, open, cx);
            }
        });
    }

    fn borrow_family(
        &mut self,
        now: Now,
        index: usize,
        acts: &mut VecDeque<Act>,
        work: impl FnOnce(&mut dyn Family, &Agents, &mut Cx<'_>),
    ) {
        // The families are taken out while one of them looks at the rest of the node.
        let mut families = std::mem::take(&mut self.families);
        let mut due_ms = None;
        if let Some(family) = families.get_mut(index) {
            let uptime_ms = self.started.map_or(0, |started| now.mono_ms.saturating_sub(started.mono_ms));
            let view = view::NodeView { node: self, uptime_secs: uptime_ms / 1_000 };
            let cx = &mut Cx { now, me: self.me, view: &view, via: self.via.clone(), acts };
            work(&mut **family, &self.agents, cx);
            due_ms = family.next_due_ms();
        }
        self.families = families;
        self.family_due(now, index, due_ms);
    }

    /// Hello is done with a peer.
    pub(super) fn peer_up(&mut self, now: Now, peer: AgentId) {
        for index in 0..self.families.len() {
            self.tell_family(now, index, FamilyInput::PeerUp { peer });
        }
    }

    /// A connection to a peer has ended.
    pub(super) fn peer_down(&mut self, now: Now, peer: AgentId) {
        let up = |conn| self.sessions.get(conn).is_some_and(|session| session.phase == Phase::Up);
        if self.conns_of(peer).into_iter().any(up) {
            return;
        }
        for index in 0..self.families.len() {
            self.tell_family(now, index, FamilyInput::PeerDown { peer });
        }
    }

    /// Tells all families the same.
    pub(super) fn tell_families(&mut self, now: Now, input: impl Fn() -> FamilyInput<'static>) {
        for index in 0..self.families.len() {
            self.tell_family(now, index, input());
        }
    }

    /// What this agent can do may be something else now: who wants to know is told, if so.
    pub(super) fn capabilities_changed(&mut self, now: Now) {
        let mut now_said = None;
        for index in 0..self.families.len() {
            self.with_family(now, index, |family, cx| {
                now_said = now_said.take().or_else(|| family.capabilities(cx));
            });
        }
        let now_said = now_said.map(|said| said.get().into()).unwrap_or_default();
        if self.capabilities != now_said {
            self.capabilities = now_said;
            self.tell_families(now, || FamilyInput::Capabilities);
        }
    }

    /// Asks how many packets have come from peers, where somebody wants to know.
    pub(super) fn count_packets(&mut self) {
        if self.settings.presence.enabled {
            let up = |conn: &ConnId| self.sessions.get(*conn).is_some_and(|one| one.phase == Phase::Up);
            let conns: Vec<ConnId> = self.sessions.conns().filter(up).collect();
            if !conns.is_empty() {
                self.out.push(Effect::Count(conns));
            }
        }
    }

    /// So many have come: a peer that has sent one lives.
    pub(super) fn packets_counted(&mut self, now: Now, counts: &[(ConnId, u64)]) {
        for (conn, packets) in counts {
            if let Some(session) = self.sessions.get_mut(*conn)
                && session.packets.replace(*packets) != Some(*packets)
            {
                session.heard_ms = now.mono_ms;
            }
        }
    }

    /// When a family that has just done something wants to be called again.
    pub(super) fn family_due(&mut self, now: Now, index: usize, due_ms: Option<u64>) {
        if let Some(due_ms) = due_ms {
            // Never at once: what is due now was done just now.
            self.timers.set_if_sooner(Key::Family(index), due_ms.max(now.mono_ms + 1));
        }
    }
}
