"""A request, as its handler sees it."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any, Awaitable, Callable, Optional

from ._types import Message

#: Tells the sender of a delegation how far it is.
Report = Callable[["dict[str, Any]"], Awaitable[None]]


class Request:
    """A query or a delegation that this agent is to answer.

    `ended` tells why it needs no answer any more: `cancelled`, `timeout`, `peer_gone`, `disconnected` (the
    connection to the daemon is lost; delegations go on) or `stopped` (this agent stops).
    """

    def __init__(
        self,
        message: Message,
        deadline_ms: Optional[int],
        queued: bool,
        ended: asyncio.Future[str],
        report: Report,
    ) -> None:
        #: The whole message: its sender, level, id and payload.
        self.message = message
        #: Whether it had waited for an agent.
        self.was_queued = queued
        self._ended = ended
        self._report = report
        self._due = None if deadline_ms is None else time.monotonic() + deadline_ms / 1000

    @property
    def id(self) -> str:
        """The request's id."""
        return self.message.id

    @property
    def kind(self) -> str:
        """`query` or `delegate`."""
        return self.message.kind

    @property
    def subject(self) -> str:
        """What is asked or to be done: the `question` or the `task`."""
        said = self.message.payload.get("question", self.message.payload.get("task"))
        return said if isinstance(said, str) else ""

    @property
    def domain(self) -> Optional[str]:
        """What a query is about."""
        domain = self.message.payload.get("domain")
        return domain if isinstance(domain, str) else None

    @property
    def context(self) -> Any:
        """What it helps to know for a delegation."""
        return self.message.payload.get("context")

    @property
    def max_tokens(self) -> Optional[int]:
        """How long the answer may be; None means any length."""
        tokens = self.message.payload.get("max_tokens")
        return tokens if isinstance(tokens, int) and tokens > 0 else None

    @property
    def trust(self) -> str:
        """Level of the sender: `unknown`, `known`, `trusted`."""
        return self.message.trust

    @property
    def from_name(self) -> Optional[str]:
        """What the sender is called here; only a hint where `message.claimed` is true."""
        return self.message.from_name

    @property
    def secs_left(self) -> Optional[float]:
        """How much time is left, if there is a limit."""
        return None if self._due is None else max(0.0, self._due - time.monotonic())

    @property
    def ended(self) -> Optional[str]:
        """Why it needs no answer any more; None while it does."""
        return self._ended.result() if self._ended.done() else None

    async def wait_ended(self) -> str:
        """Waits until it needs no answer any more, which may be never."""
        return await asyncio.shield(self._ended)

    async def progress(
        self, state: str = "running", percent: Optional[int] = None, note: Optional[str] = None
    ) -> None:
        """Tells the sender of a delegation how far it is.

        One that cannot be told now is left out, and so is any to a sender that takes none.
        """
        await self._report(_progress(state, percent, note))


class SyncRequest:
    """The same for a handler that is a plain function: it runs in a thread, and its calls wait."""

    def __init__(self, request: Request, loop: asyncio.AbstractEventLoop) -> None:
        self._request = request
        self._loop = loop
        self._over = threading.Event()
        request._ended.add_done_callback(lambda _: self._over.set())

    @property
    def message(self) -> Message:
        """The whole message: its sender, level, id and payload."""
        return self._request.message

    @property
    def was_queued(self) -> bool:
        """Whether it had waited for an agent."""
        return self._request.was_queued

    @property
    def id(self) -> str:
        """The request's id."""
        return self._request.id

    @property
    def kind(self) -> str:
        """`query` or `delegate`."""
        return self._request.kind

    @property
    def subject(self) -> str:
        """What is asked or to be done."""
        return self._request.subject

    @property
    def domain(self) -> Optional[str]:
        """What a query is about."""
        return self._request.domain

    @property
    def context(self) -> Any:
        """What it helps to know for a delegation."""
        return self._request.context

    @property
    def max_tokens(self) -> Optional[int]:
        """How long the answer may be."""
        return self._request.max_tokens

    @property
    def trust(self) -> str:
        """Level of the sender."""
        return self._request.trust

    @property
    def from_name(self) -> Optional[str]:
        """What the sender is called here."""
        return self._request.from_name

    @property
    def secs_left(self) -> Optional[float]:
        """How much time is left, if there is a limit."""
        return self._request.secs_left

    @property
    def ended(self) -> Optional[str]:
        """Why it needs no answer any more; None while it does. Long work looks here now and then."""
        return self._request.ended

    def wait_ended(self, timeout: Optional[float] = None) -> Optional[str]:
        """Waits until it needs no answer any more, for so many seconds; None when it still does."""
        self._over.wait(timeout)
        return self.ended

    def progress(
        self, state: str = "running", percent: Optional[int] = None, note: Optional[str] = None
    ) -> None:
        """Tells the sender of a delegation how far it is."""
        told = self._request._report(_progress(state, percent, note))
        asyncio.run_coroutine_threadsafe(_awaited(told), self._loop).result()


async def _awaited(told: Awaitable[None]) -> None:
    await told


def _progress(state: str, percent: Optional[int], note: Optional[str]) -> "dict[str, Any]":
    said = {"state": state, "percent": percent, "note": note}
    return {name: value for name, value in said.items() if value is not None}
