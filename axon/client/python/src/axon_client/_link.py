"""A connection that is made again when it has ended."""

from __future__ import annotations

import asyncio
from typing import Any, Awaitable, Callable, Mapping, Optional

from ._errors import AxonError, closed
from ._events import Events, Json
from ._wire import PATIENCE_SECS, Wire

# First and longest wait before the daemon is tried again.
BACKOFF_SECS = (0.05, 2.0)

Greet = Callable[[Wire, bool], Awaitable[None]]


class Link:
    """The present connection, or the next one.

    `greet` is called on each new connection before anybody else uses it, with true when there was one before.
    """

    def __init__(
        self, path: str, consumer: str, token: Optional[str], events: Events, greet: Greet, patience: float
    ) -> None:
        self.path = path
        self.consumer = consumer
        self.token = token
        self.events = events
        self.patience = patience
        self.on_end: Callable[[], None] = lambda: None
        self._greet = greet
        self._wire: Optional[Wire] = None
        self._been = False
        self._closed = False
        self._making = asyncio.Lock()

    @property
    def wire(self) -> Optional[Wire]:
        """The present connection, if there is one."""
        return self._wire if self._wire is not None and self._wire.ended is None else None

    async def live(self, patience: Optional[float] = None) -> Wire:
        """The connection. One that has ended is made again, for so many seconds at most; None: for ever.

        The first one is tried once only.
        """
        if self.wire is None:
            if patience is None:
                return await self._make(None)
            return await self._make(asyncio.get_running_loop().time() + patience)
        assert self._wire is not None
        return self._wire

    async def _make(self, until: Optional[float]) -> Wire:
        async with self._making:
            wait, longest = BACKOFF_SECS
            while True:
                if self._closed:
                    raise closed("this agent was closed: open a new one")
                if self.wire is not None:
                    assert self._wire is not None
                    return self._wire
                try:
                    return await self._connect()
                except AxonError as error:
                    late = until is not None and asyncio.get_running_loop().time() >= until
                    if not self._been or late or not error.ends_connection:
                        raise
                await asyncio.sleep(wait)
                wait = min(2 * wait, longest)

    async def _connect(self) -> Wire:
        wire = await Wire.open(self.path, self.consumer, self.token, self.events, self._ended)
        try:
            await self._greet(wire, self._been)
        except BaseException:
            await wire.close()
            raise
        if self._closed:
            await wire.close()
            raise closed("this agent was closed: open a new one")
        self._wire, self._been = wire, True
        return wire

    def _ended(self) -> None:
        self.events.wake()
        self.on_end()

    async def call(
        self, cmd: str, fields: Mapping[str, Any], *, limit: float = PATIENCE_SECS, slow: bool = False
    ) -> Json:
        """A command. One that was under way when the connection ended is `closed`: it is not given twice."""
        wire = await self.live(self.patience)
        return await wire.call(cmd, fields, limit, slow=slow)

    async def ask_until_told(
        self, cmd: str, fields: Mapping[str, Any], patience: Optional[float] = None
    ) -> Json:
        """A command that may be given twice without harm: over as many connections as it takes."""
        while True:
            wire = await self.live(patience)
            try:
                return await wire.call(cmd, fields, PATIENCE_SECS)
            except AxonError as error:
                if not error.ends_connection or self._closed:
                    raise

    async def next_event(self) -> Json:
        """The next event, over as many connections as it takes."""
        while True:
            event = self.events.pop()
            if event is not None:
                return event
            await self.live()
            await self.events.more()

    async def close(self) -> None:
        """Ends it for good."""
        self._closed = True
        if self._wire is not None:
            await self._wire.close()
        self.events.wake()
