//! What becomes of a delegation.

use serde::{Deserialize, Serialize};

/// What has become of a delegation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It waits here until its peer can be reached.
    Held,
    /// It has left, or an agent here has it and has said nothing yet.
    Sent,
    /// It waits for an agent.
    Queued,
    /// An agent has taken it.
    Accepted,
    /// An agent is at it and has said so.
    Running,
    /// Done.
    Completed,
    /// Not done.
    Failed,
    /// Done in part.
    Partial,
    /// Its sender took it back.
    Cancelled,
    /// It was not taken.
    Refused,
    /// Its time was up.
    Expired,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Held,
        Self::Sent,
        Self::Queued,
        Self::Accepted,
        Self::Running,
        Self::Completed,
        Self::Failed,
        Self::Partial,
        Self::Cancelled,
        Self::Refused,
        Self::Expired,
    ];

    /// As the ledger says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Sent => "sent",
            Self::Queued => "queued",
            Self::Accepted => "accepted",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Partial => "partial",
            Self::Cancelled => "cancelled",
            Self::Refused => "refused",
            Self::Expired => "expired",
        }
    }

    /// The state that a result's status means; unknown ones count as done.
    pub fn of_status(status: &str) -> Self {
        match status {
            "failed" => Self::Failed,
            "partial" => Self::Partial,
            _ => Self::Completed,
        }
    }

    /// The state that a progress message means; unknown ones count as running.
    pub fn of_progress(state: &str) -> Self {
        match state {
            "queued" => Self::Queued,
            "accepted" => Self::Accepted,
            _ => Self::Running,
        }
    }

    /// Whether nothing follows any more. One that has expired may still get its result.
    pub fn is_over(self) -> bool {
        matches!(
            self,
            Self::Completed | Self::Failed | Self::Partial | Self::Cancelled | Self::Refused | Self::Expired
        )
    }
}

/// Why nobody took a delegation, as its sender is told again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unwanted {
    /// The agent declined it, and said why.
    Declined(Option<String>),
    /// The agent did not answer in time.
    Late,
}
