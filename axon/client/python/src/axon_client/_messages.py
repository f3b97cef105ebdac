"""The inbox as a stream: messages in order, over restarts of the daemon, until they are acked."""

from __future__ import annotations

from collections import deque
from typing import AsyncIterator, Callable, Deque, Optional, Sequence

from ._errors import AxonError, closed
from ._events import Events, Json
from ._link import Link
from ._types import Message, Subscribed, is_message
from ._wire import PATIENCE_SECS, Wire

# Rows that are read at once to catch up, which is as many as the daemon gives.
PAGE_ROWS = 1000


class Messages(AsyncIterator[Message]):
    """What `Agent.inbox` gives. It has a connection of its own, which is made again when it ends.

    A row is given once by one stream. What was not acked comes again with the next stream of the same
    consumer: at least once in all. What the inbox let go before this consumer had read it is told by
    `lost_before_seq` and by `on_lost`.
    """

    def __init__(
        self,
        path: str,
        consumer: str,
        token: Optional[str],
        kinds: Optional[Sequence[str]],
        on_lost: Optional[Callable[[int], None]],
        patience: float,
    ) -> None:
        #: Messages below this number are lost, as last told; None when none are.
        self.lost_before_seq: Optional[int] = None
        self._kinds = None if kinds is None else list(kinds)
        self._on_lost = on_lost
        self._last = 0
        self._ready: Deque[Message] = deque()
        self._behind = False
        self._shut = False
        self._subscribed = False
        self._link: Optional[Link] = None
        self._where = (path, consumer, token)
        self._patience = patience

    async def _greet(self, wire: Wire, again: bool) -> None:
        # Whatever waits here of the old connection is replayed by the new one.
        self._events().clear_messages()
        self._behind = False
        reply = await wire.call("subscribe", {"kinds": self._kinds, "replay": True}, PATIENCE_SECS)
        self._lose(reply.get("lost_before_seq"))

    def _events(self) -> Events:
        assert self._link is not None
        return self._link.events

    async def open(self) -> Messages:
        """Connects now; without it the first message does."""
        if self._shut:
            raise closed("this stream was closed: open a new one")
        if self._link is None:
            self._link = Link(*self._where, Events(is_message), self._greet, self._patience)
            try:
                await self._link.live()
            except BaseException:
                self._link = None
                raise
        return self

    async def __aenter__(self) -> Messages:
        return await self.open()

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def __aiter__(self) -> Messages:
        return self

    async def __anext__(self) -> Message:
        """The next message. May be cancelled while it waits without losing anything."""
        try:
            await self.open()
            return await self._next()
        except AxonError:
            if self._shut:
                raise StopAsyncIteration from None
            raise

    async def _next(self) -> Message:
        link = self._link
        assert link is not None
        while True:
            while self._ready:
                message = self._ready.popleft()
                if message.seq > self._last:
                    self._last = message.seq
                    return message
            if self._behind:
                await self._catch_up(link)
                continue
            event = await link.next_event()
            if event["event"] == "inbound":
                self._ready.append(Message.read(event, self.ack))
            else:
                self._behind = True

    async def _catch_up(self, link: Link) -> None:
        """Reads what was not told. Rows that were given and are not acked come again, and are passed over."""
        page = await link.ask_until_told("inbox", {"limit": PAGE_ROWS})
        self._lose(page.get("lost_before_seq"))
        rows = [row for row in page["messages"] if row["seq"] > self._last]
        wanted = [row for row in rows if self._wants(row)]
        self._ready.extend(Message.read(row, self.ack) for row in wanted)
        if not page.get("has_more"):
            self._behind = False
        elif not wanted:
            if self._last < page["next_seq"] and rows:
                # Nothing of all this is wanted: what was given stays unacked, the rest is done with.
                first = page["messages"][0]
                if first["seq"] > self._last:
                    await self._ack(page["next_seq"])
                    return
            raise AxonError(
                "not_acked",
                f"{len(page['messages'])} messages were given and are not acked: ack them before you read on",
            )

    def _wants(self, row: Json) -> bool:
        return self._kinds is None or row["envelope"]["kind"] in self._kinds

    def _lose(self, before: object) -> None:
        if isinstance(before, int) and before != self.lost_before_seq:
            self.lost_before_seq = before
            if self._on_lost is not None:
                self._on_lost(before)

    async def ack(self, seq: int) -> int:
        """Says that all rows up to this one are done with. Gives where the cursor stands."""
        await self.open()
        return await self._ack(seq)

    async def _ack(self, seq: int) -> int:
        assert self._link is not None
        fields = {"up_to_seq": seq}
        return int((await self._link.ask_until_told("ack", fields, self._link.patience))["acked_seq"])

    async def aclose(self) -> None:
        """Ends the stream. What was given and not acked comes again with the next one."""
        self._shut = True
        if self._link is not None:
            await self._link.close()


def subscribed(reply: Json) -> Subscribed:
    """A reply to `subscribe`."""
    return Subscribed(
        replayed=int(reply.get("replayed", 0)),
        replay_to_seq=int(reply.get("replay_to_seq", 0)),
        lost_before_seq=reply.get("lost_before_seq"),
    )
