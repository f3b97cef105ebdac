"""A bounded queue of what the daemon tells without being asked."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Callable, Deque, Dict, Optional, Tuple

from ._errors import AxonError

Json = Dict[str, Any]

# As many and as long as the daemon itself keeps for a client.
EVENTS_MAX = 1024
EVENT_BYTES_MAX = 4_194_304
# Requests to answer: the daemon hands out no more than the capacity, which is 1024 at most.
REQUESTS_MAX = 2048


class Events:
    """Events in the order of their coming.

    A full queue holds up nothing: messages that do not fit stay in the daemon's inbox, and the event
    `slow_consumer` stands where they are missing; for changes of other things it is `missed`. Requests that
    are to be answered always fit.
    """

    def __init__(self, wants: Callable[[Json], bool] = lambda event: True) -> None:
        self._wants = wants
        self._queue: Deque[Tuple[int, Json]] = deque()
        self._bytes = 0
        self._requests = 0
        self._lagging = False
        self._missed = False
        self._more = asyncio.Event()

    def push(self, event: Json, size: int) -> None:
        """Takes an event in, or notes that it did not fit."""
        if not self._wants(event):
            return
        name = event.get("event")
        full = len(self._queue) >= EVENTS_MAX or self._bytes + size > EVENT_BYTES_MAX
        if name == "inbound" and event.get("answer") is True:
            self._requests += 1
            if self._requests > REQUESTS_MAX:
                raise AxonError("protocol", "the daemon hands out more requests than the capacity allows")
            size = 0
        elif name == "inbound":
            if self._lagging:
                return
            if full:
                self._lagging = True
                event, size = {"event": "slow_consumer", "resume_from_seq": event.get("seq", 0)}, 0
        elif name == "withdrawn":
            # What nobody has taken yet need not be.
            if self._forget(event.get("ref")):
                return
            size = 0
        elif name not in ("slow_consumer", "missed") and full:
            self.miss()
            return
        self._bytes += size
        self._queue.append((size, event))
        self._more.set()

    def miss(self) -> None:
        """Notes that some were not told."""
        if not self._missed:
            self._missed = True
            self._queue.append((0, {"event": "missed"}))
            self._more.set()

    def _forget(self, ref: object) -> bool:
        for at, (_, event) in enumerate(self._queue):
            if event.get("answer") is True and event.get("envelope", {}).get("id") == ref:
                del self._queue[at]
                self._requests -= 1
                return True
        return False

    def pop(self) -> Optional[Json]:
        """The next event, if there is one."""
        if not self._queue:
            self._more.clear()
            return None
        size, event = self._queue.popleft()
        self._bytes -= size
        name = event.get("event")
        if name == "inbound" and event.get("answer") is True:
            self._requests -= 1
        elif name == "slow_consumer":
            self._lagging = False
        elif name == "missed":
            self._missed = False
        return event

    def clear_messages(self) -> None:
        """Drops what a new connection tells again."""
        kept = [(size, event) for size, event in self._queue if event.get("event") in ("delivery", "missed")]
        self._queue = deque(kept)
        self._bytes = sum(size for size, _ in kept)
        self._requests = 0
        self._lagging = False

    def wake(self) -> None:
        """Wakes who waits, to look again."""
        self._more.set()

    async def more(self) -> None:
        """Waits until there may be something."""
        await self._more.wait()
