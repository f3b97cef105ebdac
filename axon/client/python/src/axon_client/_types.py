"""What is said over the socket, typed. Names are those of spec/IPC.md; unknown fields are passed over."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Awaitable, Callable, Dict, List, Optional, TypedDict

from ._errors import AxonError
from ._events import Json

#: States of a delegation after which no more is to come (but a late result of one that has expired).
ENDS = frozenset({"completed", "partial", "failed", "cancelled", "refused", "expired"})


class _WhoamiAlways(TypedDict):
    agent_id: str
    public_key: str
    version: str
    ipc_version: int
    uptime_secs: int
    listen: List[str]
    pid: int


class Whoami(_WhoamiAlways, total=False):
    """Who the daemon is."""

    name: str
    root: str


class Status(TypedDict, total=False):
    """What the daemon counts. A scoped socket tells less."""

    uptime_secs: int
    peers_connected: int
    messages_sent: int
    messages_received: int
    clients: int
    answerers: int
    active_tasks: int
    capacity: int
    open_requests: int
    queued: int
    inbox_unread: int
    paused: bool
    set_aside: int
    knocks: int
    invites: int
    strangers: int
    dropped: Dict[str, int]


class _PeerAlways(TypedDict):
    id: str
    addr: Optional[str]
    status: str
    rtt_ms: Optional[float]
    source: str
    trust: str


class Peer(_PeerAlways, total=False):
    """A peer that the daemon knows."""

    name: str
    claimed: bool
    paused: bool
    since_ms: int
    features: List[str]
    early: bool
    error: str


class _OutboxRowAlways(TypedDict):
    id: str
    to: str
    kind: str
    state: str
    since_ms: int
    expires_ms: int
    attempts: int


class OutboxRow(_OutboxRowAlways, total=False):
    """A message that is held or was, and how far it has come."""

    reason: str


class _DelegationRowAlways(TypedDict):
    id: str
    peer: str
    direction: str
    priority: str
    state: str
    since_ms: int


class DelegationRow(_DelegationRowAlways, total=False):
    """A delegation, given away (`out`) or taken in (`in`)."""

    task: str
    deadline_ms: int
    progress: Json
    result: Json
    reason: str


class Capabilities(TypedDict, total=False):
    """What an agent says that it can do. Other fields may stand beside these."""

    agent_name: str
    domains: List[str]
    channels: List[str]
    tools: List[str]
    max_concurrent_tasks: int
    model: str


@dataclass(frozen=True)
class Envelope:
    """A message between agents, as it came."""

    id: str
    sender: str
    to: str
    kind: str
    ts: int
    ref: Optional[str]
    payload: Json
    #: The whole envelope.
    raw: Json = field(repr=False)

    @classmethod
    def read(cls, raw: object) -> Envelope:
        """From the parsed JSON."""
        if not isinstance(raw, dict) or not isinstance(raw.get("payload"), dict):
            raise AxonError("protocol", "the daemon gave a message that is no envelope")
        return cls(
            id=str(raw.get("id")),
            sender=str(raw.get("from")),
            to=str(raw.get("to")),
            kind=str(raw.get("kind")),
            ts=int(raw.get("ts", 0)),
            ref=raw.get("ref"),
            payload=raw["payload"],
            raw=raw,
        )


@dataclass(frozen=True)
class Reply:
    """A peer's answer."""

    #: The id of the request.
    id: str
    #: Who answered: an agent id.
    sender: str
    kind: str
    payload: Json

    @property
    def text(self) -> str:
        """The answer in words."""
        summary = self.payload.get("summary")
        return summary if isinstance(summary, str) else ""

    @property
    def data(self) -> Any:
        """The answer for programs; None when there is none."""
        return self.payload.get("data")


@dataclass(frozen=True)
class Sent:
    """What came of telling something."""

    id: str
    #: `delivered`, `sent` or `held`.
    state: str


@dataclass(frozen=True)
class Cancelled:
    """What a peer said to a cancel."""

    accepted: bool
    reason: Optional[str]


@dataclass(frozen=True)
class Subscribed:
    """The daemon's reply to `subscribe`."""

    replayed: int
    replay_to_seq: int
    lost_before_seq: Optional[int]


@dataclass(frozen=True)
class Message:
    """A row of the inbox."""

    seq: int
    buffered_at_ms: int
    #: Level of the sender: `unknown`, `known`, `trusted`.
    trust: str
    #: What the sender is called here; never decide by it where `claimed` is true.
    from_name: Optional[str]
    claimed: bool
    envelope: Envelope
    _acks: Optional[Callable[[int], Awaitable[int]]] = field(default=None, repr=False, compare=False)

    @classmethod
    def read(cls, row: Json, acks: Optional[Callable[[int], Awaitable[int]]] = None) -> Message:
        """From a row of `inbox` or an `inbound` event."""
        return cls(
            seq=int(row.get("seq", 0)),
            buffered_at_ms=int(row.get("buffered_at_ms", 0)),
            trust=str(row.get("trust", "unknown")),
            from_name=row.get("from_name"),
            claimed=row.get("claimed") is True,
            envelope=Envelope.read(row.get("envelope")),
            _acks=acks,
        )

    @property
    def id(self) -> str:
        """The message's id."""
        return self.envelope.id

    @property
    def kind(self) -> str:
        """What it is: `notify`, `result`, `progress`, and others."""
        return self.envelope.kind

    @property
    def sender(self) -> str:
        """Who sent it: an agent id, proven by the connection that it came on."""
        return self.envelope.sender

    @property
    def ref(self) -> Optional[str]:
        """The message that this one is about."""
        return self.envelope.ref

    @property
    def payload(self) -> Json:
        """The rest, by kind. It is the peer's word: data, never orders."""
        return self.envelope.payload

    async def ack(self) -> int:
        """Says that this row and all before it are done with. Gives where the cursor stands."""
        if self._acks is None:
            raise AxonError("invalid_command", "this message came as an event: ack its seq by `agent.ack`")
        return await self._acks(self.seq)


@dataclass(frozen=True)
class Page:
    """A part of the inbox, from the consumer's cursor on."""

    messages: List[Message]
    #: What to ack when all of them are done with; None when there are none.
    next_seq: Optional[int]
    has_more: bool
    #: Messages below this number, which this consumer had not read, are gone from the inbox.
    lost_before_seq: Optional[int]


@dataclass(frozen=True)
class Event:
    """What the daemon tells without being asked.

    `inbound`, `slow_consumer`, `withdrawn`, `delivery`, `delegation`, `knock` as in spec/IPC.md, and
    `missed`: some were not told, since they came faster than they were taken or the connection was lost; ask
    `outbox` and `delegations` for how things stand.
    """

    name: str
    #: All fields, as on the socket.
    fields: Json

    @property
    def message(self) -> Optional[Message]:
        """The message of an `inbound` event."""
        return Message.read(self.fields) if self.name == "inbound" else None


def is_message(event: Json) -> bool:
    """Whether a stream of messages is told of this."""
    return event.get("event") in ("inbound", "slow_consumer")


def read_page(reply: Json, acks: Optional[Callable[[int], Awaitable[int]]]) -> Page:
    """A reply to `inbox`."""
    return Page(
        messages=[Message.read(row, acks) for row in reply.get("messages", [])],
        next_seq=reply.get("next_seq"),
        has_more=reply.get("has_more") is True,
        lost_before_seq=reply.get("lost_before_seq"),
    )
