//! The owner's commands: pairing, trust, pause, sockets. The main socket takes them, and no scoped one.

use std::time::Duration;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::client::{Client, Nothing, PATIENCE};
use crate::trust::{
    Approved, Connect, Connected, Contacts, Invite, InviteOptions, Invited, Knock, Paused, PolicyCheck,
    Rekeyed, Ruling, Scope, SetTrust, Socket, Trust, Trusted,
};
use crate::{ClientError, Direction};

/// How long the daemon tries to pair when nothing is said.
const CONNECT_MS: u64 = 15_000;

#[derive(Serialize)]
struct ById<'a> {
    id: &'a str,
}

#[derive(Serialize)]
struct ByPeer<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<&'a str>,
}

#[derive(Deserialize)]
struct Whom {
    agent_id: String,
}

#[derive(Deserialize)]
struct Placed {
    path: String,
}

impl Client {
    /// Makes an invite: a link that pairs whoever proves its secret.
    ///
    /// ```no_run
    /// # async fn example(ours: axon_client::Client, theirs: axon_client::Client)
    /// # -> Result<(), axon_client::ClientError> {
    /// use axon_client::{Connect, InviteOptions, PairState};
    ///
    /// let invite = ours.invite(&InviteOptions::default()).await?;
    /// // On the other machine:
    /// let done = theirs.pair(&Connect { link: &invite.link, ..Connect::default() }).await?;
    /// assert_eq!(done.state, PairState::Paired);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn invite(&self, options: &InviteOptions) -> Result<Invited, ClientError> {
        self.quick("invite", options).await
    }

    /// The invites that are open.
    pub async fn invites(&self) -> Result<Vec<Invite>, ClientError> {
        #[derive(Deserialize)]
        struct Reply {
            invites: Vec<Invite>,
        }
        self.quick::<Reply>("invites", Nothing {}).await.map(|reply| reply.invites)
    }

    /// Ends an invite, by what it is called.
    pub async fn revoke_invite(&self, id: &str) -> Result<(), ClientError> {
        self.quick::<IgnoredAny>("revoke_invite", ById { id }).await.map(drop)
    }

    /// Pairs with the agent that a link leads to: the command `connect`.
    ///
    /// `not_authorized` when the invite is used, expired or wrong, or the other side refused;
    /// `peer_unreachable` and `timeout` when it did not answer.
    pub async fn pair(&self, connect: &Connect<'_>) -> Result<Connected, ClientError> {
        let limit = Duration::from_millis(connect.deadline_ms.unwrap_or(CONNECT_MS)) + PATIENCE;
        self.slow("connect", connect, limit).await
    }

    /// The knocks that wait for the owner's word.
    pub async fn knocks(&self) -> Result<Vec<Knock>, ClientError> {
        #[derive(Deserialize)]
        struct Reply {
            knocks: Vec<Knock>,
        }
        self.quick::<Reply>("knocks", Nothing {}).await.map(|reply| reply.knocks)
    }

    /// Lets in who knocked, at this level (known when none is given), under this name.
    pub async fn approve(
        &self,
        id: &str,
        trust: Option<Trust>,
        name: Option<&str>,
    ) -> Result<Approved, ClientError> {
        #[derive(Serialize)]
        struct Body<'a> {
            id: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            trust: Option<Trust>,
            #[serde(skip_serializing_if = "Option::is_none")]
            name: Option<&'a str>,
        }
        self.quick("approve", Body { id, trust, name }).await
    }

    /// Turns away who knocked; gives its agent id.
    pub async fn deny(&self, id: &str) -> Result<String, ClientError> {
        self.quick::<Whom>("deny", ById { id }).await.map(|reply| reply.agent_id)
    }

    /// Says how far a peer is trusted. Once this has returned for [`Trust::Blocked`], nothing of that peer is
    /// delivered any more.
    pub async fn trust(&self, set: &SetTrust<'_>) -> Result<Trusted, ClientError> {
        self.quick("trust", set).await
    }

    /// Whom the owner has said something of.
    pub async fn contacts(&self) -> Result<Contacts, ClientError> {
        self.quick("contacts", Nothing {}).await
    }

    /// Takes a peer out of all files, and gives its agent id. Once this has returned, nothing of it is
    /// delivered any more.
    pub async fn forget(&self, peer: &str) -> Result<String, ClientError> {
        self.quick::<Whom>("forget", ByPeer { peer: Some(peer) }).await.map(|reply| reply.agent_id)
    }

    /// What the policies say of a message, without sending it.
    pub async fn policy_check(&self, check: &PolicyCheck<'_>) -> Result<Ruling, ClientError> {
        self.quick("policy_check", check).await
    }

    /// Stops inbound work of this peer, or of all: requests are turned away, and what is told is kept and not
    /// shown. It stays so when the daemon starts again.
    pub async fn pause(&self, peer: Option<&str>) -> Result<Paused, ClientError> {
        self.quick("pause", ByPeer { peer }).await
    }

    /// Takes up what was paused.
    pub async fn resume(&self, peer: Option<&str>) -> Result<Paused, ClientError> {
        self.quick("resume", ByPeer { peer }).await
    }

    /// Makes a new identity; the daemon starts itself again as that, so that this connection ends.
    pub async fn rekey(&self) -> Result<Rekeyed, ClientError> {
        self.quick("rekey", Nothing {}).await
    }

    /// The scoped sockets.
    pub async fn sockets(&self) -> Result<Vec<Socket>, ClientError> {
        #[derive(Deserialize)]
        struct Reply {
            sockets: Vec<Socket>,
        }
        self.quick::<Reply>("sockets", Nothing {}).await.map(|reply| reply.sockets)
    }

    /// Makes a scoped socket, and gives its path.
    pub async fn socket_add(&self, scope: &Scope) -> Result<String, ClientError> {
        self.quick::<Placed>("socket_add", scope).await.map(|reply| reply.path)
    }

    /// Replaces what a scoped socket may do, and gives its path.
    pub async fn socket_set(&self, scope: &Scope) -> Result<String, ClientError> {
        self.quick::<Placed>("socket_set", scope).await.map(|reply| reply.path)
    }

    /// Closes a scoped socket for good.
    pub async fn socket_remove(&self, name: &str) -> Result<(), ClientError> {
        #[derive(Serialize)]
        struct Body<'a> {
            name: &'a str,
        }
        self.quick::<IgnoredAny>("socket_remove", Body { name }).await.map(drop)
    }

    /// Has the daemon read its settings and contacts again. A file that is wrong changes nothing.
    pub async fn reload(&self) -> Result<(), ClientError> {
        self.quick::<IgnoredAny>("reload", Nothing {}).await.map(drop)
    }
}

impl PolicyCheck<'_> {
    /// The same for a message to the peer.
    #[must_use]
    pub fn outward(mut self) -> Self {
        self.direction = Some(Direction::Out);
        self
    }
}
