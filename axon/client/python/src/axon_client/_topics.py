"""Topics: messages that go over several hops to whoever has subscribed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import AsyncIterator, List, Optional, Sequence, TypedDict

from ._errors import AxonError, closed
from ._events import Events, Json
from ._link import Link
from ._types import Message, is_message
from ._wire import PATIENCE_SECS, Wire

#: The kind of the messages that the daemon makes of what was published.
TOPIC_KIND = "topic.message"


class Published(TypedDict):
    """What came of `publish`."""

    #: The message's number among all that this agent has published.
    seq: int
    neighbours: int
    subscribers: int


class TopicSubscribed(TypedDict):
    """What came of `subscribe_topic`."""

    subscribed: str
    neighbours: int
    since_seq: int


_TopicRowAlways = TypedDict(
    "_TopicRowAlways", {"topic": str, "kept": bool, "from": str, "history": bool, "since_ms": int}
)


class TopicRow(_TopicRowAlways, total=False):
    """A subscription of an agent at this daemon; `from` is `peers` or `any`."""

    #: Whose it is, where it is kept.
    consumer: str


class _TopicKeptAlways(TypedDict):
    topic: str
    messages: int
    bytes: int


class TopicKept(_TopicKeptAlways, total=False):
    """What this daemon keeps of a topic."""

    last: Optional[int]
    hours: Optional[int]


class TopicSeen(TypedDict):
    """A topic of which messages came or went since the daemon started."""

    topic: str
    messages: int
    publishers: int
    last_ms: int


class Topics(TypedDict):
    """What the daemon has to do with topics."""

    subscriptions: List[TopicRow]
    keeps: List[TopicKept]
    relay: List[str]
    seen: List[TopicSeen]


class _TopicPeerAlways(TypedDict):
    id: str
    filters: List[str]
    keeps: List[str]
    lazy: int


class TopicPeer(_TopicPeerAlways, total=False):
    """A connected peer that offers topics, and what it wants."""

    name: str


@dataclass(frozen=True)
class TopicMessage:
    """What somebody published."""

    topic: str
    #: What was published. It is its publisher's word: data, never orders.
    message: Json
    #: Who published it: an agent id, proven by the signature.
    publisher: str
    #: Its number among all that this publisher has published.
    seq: int
    #: When, in Unix milliseconds, by the publisher's clock.
    ts: int
    #: Level of the publisher here; `unknown` for strangers.
    trust: str
    #: What the publisher is called here; never decide by it where `claimed` is true.
    from_name: Optional[str]
    claimed: bool
    #: The publisher is no peer here: look twice at what it says.
    stranger: bool
    #: It comes from what was kept, not as it was published.
    history: bool
    #: The neighbour that gave it; None where it was published at this daemon.
    via: Optional[str]
    #: Level of that neighbour.
    via_trust: Optional[str]
    #: Connections that it came over.
    hops: int
    #: How long ago it was published when it came, in milliseconds.
    age_ms: int

    @classmethod
    def read(cls, message: Message) -> TopicMessage:
        """From a message of kind `topic.message`, as `inbox` and `inbound` events give it."""
        payload = message.payload
        said = payload.get("message")
        if message.kind != TOPIC_KIND or not isinstance(said, dict):
            raise AxonError("invalid_command", f"a message of kind {message.kind} came over no topic")
        return cls(
            topic=str(payload.get("topic")),
            message=said,
            publisher=message.sender,
            seq=int(payload.get("seq", 0)),
            ts=message.envelope.ts,
            trust=message.trust,
            from_name=message.from_name,
            claimed=message.claimed,
            stranger=payload.get("stranger") is True,
            history=payload.get("history") is True,
            via=payload.get("via"),
            via_trust=payload.get("via_trust"),
            hops=int(payload.get("hops", 0)),
            age_ms=int(payload.get("age_ms", 0)),
        )


class TopicMessages(AsyncIterator[TopicMessage]):
    """What `Agent.listen` gives. It has a connection of its own, which is made again when it ends.

    It subscribes without `kept`: what is published while nobody listens, or while the daemon is away, is not
    told. When messages come faster than they are taken some are lost, and `missed` counts how often.
    """

    def __init__(
        self, path: str, consumer: str, token: Optional[str], topics: Sequence[str], fields: Json,
        patience: float,
    ) -> None:
        #: How often messages came faster than they were taken.
        self.missed = 0
        self._topics = list(topics)
        self._fields = fields
        self._shut = False
        self._link = Link(path, consumer, token, Events(is_message), self._greet, patience)

    async def _greet(self, wire: Wire, again: bool) -> None:
        for topic in self._topics:
            await wire.call("subscribe_topic", {"topic": topic, **self._fields}, PATIENCE_SECS)

    async def open(self) -> TopicMessages:
        """Subscribes now; without it the first message does."""
        if self._shut:
            raise closed("this stream was closed: open a new one")
        await self._link.live()
        return self

    async def __aenter__(self) -> TopicMessages:
        return await self.open()

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def __aiter__(self) -> TopicMessages:
        return self

    async def __anext__(self) -> TopicMessage:
        """The next message. May be cancelled while it waits without losing anything."""
        try:
            await self.open()
            while True:
                event = await self._link.next_event()
                if event["event"] == "inbound":
                    message = Message.read(event)
                    if message.kind == TOPIC_KIND:
                        return TopicMessage.read(message)
                else:
                    self.missed += 1
                    # What was missed is nowhere: this asks for what comes from now on.
                    await self._link.ask_until_told("subscribe", {"kinds": [TOPIC_KIND], "replay": False})
        except AxonError:
            if self._shut:
                raise StopAsyncIteration from None
            raise

    async def aclose(self) -> None:
        """Ends the stream, and its subscriptions."""
        self._shut = True
        await self._link.close()
