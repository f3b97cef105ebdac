"""The bookkeeping of an agent that answers.

A query is answered when its handler returns. A delegation is acked at once and its result sent when the
handler returns, over a new connection if the daemon was restarted meanwhile. A request that needs no answer
any more is told so; a handler that does not listen is cancelled a little later.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Awaitable, Callable, Dict, List, Optional, Sequence, Set, Union

from ._answer import Outcome, Refuse, reply_of
from ._errors import AxonError
from ._events import Events, Json
from ._link import Link
from ._request import Request, SyncRequest
from ._types import Message
from ._wire import PATIENCE_SECS, Wire

log = logging.getLogger("axon_client")

# How long a handler may take to tidy up once its request has ended.
GRACE_SECS = 2.0
# The last words of an agent that stops are given this long.
STOP_SECS = 3.0
# A result may wait for the peer's daemon as long as a delegator may take to answer.
REPLY_SECS = 40.0
# How often, and how far apart, a result that is refused for now is given again.
RETRIES, RETRY_SECS = 120, 5.0
THREADS_MAX = 64

AsyncHandler = Callable[[Request], Awaitable[Outcome]]
SyncHandler = Callable[[SyncRequest], Outcome]


class Handler:
    """A function that answers a kind, and the domain that it is for."""

    def __init__(
        self, kind: str, domain: Optional[str], run: Union[AsyncHandler, SyncHandler], is_async: bool
    ) -> None:
        self.kind = kind
        self.domain = domain
        self.run = run
        self.is_async = is_async


class Run:
    """A request under way."""

    def __init__(self, kind: str, ended: asyncio.Future[str]) -> None:
        self.kind = kind
        self.ended = ended
        self.over = asyncio.Event()

    def end(self, why: str) -> None:
        """Tells that it needs no answer any more. The first reason counts."""
        if not self.ended.done():
            self.ended.set_result(why)


class Serving:
    """Answers requests over a connection of its own, which is made again when it ends."""

    def __init__(
        self,
        path: str,
        consumer: str,
        token: Optional[str],
        handlers: Sequence[Handler],
        capacity: int,
        lease: bool,
        capabilities: Optional[Json],
        on_attached: Callable[[], None],
        on_unsent: Callable[[str, AxonError], None],
    ) -> None:
        self._handlers = list(handlers)
        self._capacity = capacity
        self._capabilities = capabilities
        self._lease = lease
        self._on_attached = on_attached
        self._on_unsent = on_unsent
        self._events = Events(_is_request)
        self._link = Link(path, consumer, token, self._events, self._greet, PATIENCE_SECS)
        self._link.on_end = self._lost
        self._places = asyncio.Semaphore(capacity)
        self._runs: Dict[str, Run] = {}
        self._tasks: Set[asyncio.Task[None]] = set()
        self._stopped = False
        self._threads: Optional[ThreadPoolExecutor] = None

    async def attach(self) -> None:
        """Connects; requests can come from then on."""
        await self._link.live()

    async def run(self) -> None:
        """Answers until `stop`, or until connecting again is of no use."""
        try:
            while True:
                event = await self._link.next_event()
                if event["event"] == "withdrawn":
                    run = self._runs.get(str(event.get("ref")))
                    if run is not None:
                        reason = str(event.get("reason"))
                        run.end(reason if reason in ("timeout", "cancelled") else "peer_gone")
                else:
                    self._begin(self._take(event))
        except AxonError:
            if not self._stopped:
                raise
        finally:
            await self.stop()

    async def stop(self) -> None:
        """Ends what is under way, gives its last words a little time, and disconnects."""
        if self._stopped:
            return
        self._stopped = True
        for run in self._runs.values():
            run.end("stopped")
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        if tasks:
            await asyncio.wait(tasks, timeout=STOP_SECS)
        for task in tasks:
            task.cancel()
        await self._link.close()
        if self._threads is not None:
            self._threads.shutdown(wait=False)

    async def _greet(self, wire: Wire, again: bool) -> None:
        # What was handed out over the old connection is handed out anew.
        self._events.clear_messages()
        if self._capabilities is not None:
            await wire.call("advertise", {"capabilities": self._capabilities}, PATIENCE_SECS)
        await wire.call("subscribe", self._subscription(), PATIENCE_SECS)
        self._on_attached()

    def _subscription(self) -> Json:
        kinds = {handler.kind for handler in self._handlers}
        answer: List[str] = sorted(kinds)
        # Who takes work must hear when it is taken back.
        if "delegate" in kinds:
            answer.append("cancel")
        domains = [handler.domain for handler in self._handlers if handler.kind == "query"]
        said: Json = {"answer": answer, "capacity": self._capacity}
        if domains and None not in domains:
            said["domains"] = sorted({domain for domain in domains if domain is not None})
        if self._lease:
            said["lease"] = True
        return said

    def _lost(self) -> None:
        for run in self._runs.values():
            if run.kind != "delegate":
                run.end("disconnected")

    def _begin(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _take(self, event: Json) -> None:
        message = Message.read(event)
        if message.kind == "cancel":
            return await self._cancel(message)
        if message.id in self._runs:
            # The daemon was restarted and hands out again what is still being worked on.
            await self._say(message.id, "ack", {"accepted": True})
            return
        run = Run(message.kind, asyncio.get_running_loop().create_future())
        self._runs[message.id] = run
        try:
            await self._work(event, message, run)
        finally:
            del self._runs[message.id]
            run.over.set()

    async def _cancel(self, message: Message) -> None:
        run = self._runs.get(message.ref or "")
        if run is None:
            said: Json = {"accepted": False, "reason": "this work is finished or was never here"}
        else:
            run.end("cancelled")
            # So that "cancelled" is true when it is said.
            try:
                await asyncio.wait_for(run.over.wait(), GRACE_SECS + STOP_SECS)
            except asyncio.TimeoutError:
                pass
            said = {"accepted": True}
        await self._say(message.id, "ack", said)

    async def _work(self, event: Json, message: Message, run: Run) -> None:
        deadline_ms = event.get("deadline_ms")
        queued = event.get("queued") is True

        async def report(payload: Json) -> None:
            try:
                await self._reply(message.id, "progress", payload)
            except AxonError as error:
                # One that cannot be told now is left out: the result says the rest.
                if error.code in ("invalid_command", "command_too_large", "message_too_large"):
                    raise

        request = Request(message, deadline_ms, queued, run.ended, report)
        if message.kind == "delegate":
            refused = await self._say(message.id, "ack", {"accepted": True})
            # One that had waited was acked by the daemon already, and goes on all the same.
            if refused is not None and not queued:
                return self._on_unsent(message.id, refused)
        outcome = await self._outcome(request, run, deadline_ms)
        end = request.ended
        if end is not None and message.kind != "delegate":
            return  # The daemon has told the peer, or hands the query to somebody else.
        if end == "cancelled":
            return  # The ack of the cancel ends it, and nothing follows.
        if end == "timeout":
            outcome = Refuse("timeout", "the work was not done before its deadline")
        elif end == "stopped":
            outcome = Refuse("internal", "the agent was stopped before the work was done")
        elif end is not None:
            return
        kind, payload = reply_of(outcome, message.kind, request.max_tokens)
        # The result of a delegation outlives the connection that it came on; a response does not.
        unsent = await (self._say_lasting if kind == "result" else self._say)(message.id, kind, payload)
        if unsent is not None:
            self._on_unsent(message.id, unsent)

    async def _outcome(
        self, request: Request, run: Run, deadline_ms: Optional[int]
    ) -> Union[Outcome, Refuse]:
        """What the handler says; of no meaning once the request has ended."""
        work = asyncio.ensure_future(self._handle(request))
        late = None if deadline_ms is None else deadline_ms / 1000
        either: Set[asyncio.Future[Any]] = {work, run.ended}
        await asyncio.wait(either, timeout=late, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            run.end("timeout")
            await asyncio.wait({work}, timeout=GRACE_SECS)
        if not work.done():
            work.cancel()
            await asyncio.wait({work}, timeout=GRACE_SECS)
        if not work.done() or work.cancelled():
            return None
        error = work.exception()
        if error is None:
            return work.result()
        if isinstance(error, Refuse):
            return error
        if not isinstance(error, Exception):
            raise error
        # What went wrong here is none of the peer's business.
        log.error("the handler of %s failed on request %s", request.kind, request.id, exc_info=error)
        return Refuse("internal", "the agent failed on this request: ask it something else")

    async def _handle(self, request: Request) -> Outcome:
        async with self._places:
            # It may have ended while it waited for a place.
            if request.ended is not None:
                return None
            handler = self._handler(request)
            if handler is None:
                raise Refuse("unhandled", f"no handler here takes a {request.kind} of this domain")
            if handler.is_async:
                return await handler.run(request)  # type: ignore[arg-type,misc,no-any-return]
            loop = asyncio.get_running_loop()
            if self._threads is None:
                places = min(self._capacity, THREADS_MAX)
                self._threads = ThreadPoolExecutor(places, thread_name_prefix="axon")
            plain: Any = handler.run
            said: Outcome = await loop.run_in_executor(self._threads, plain, SyncRequest(request, loop))
            return said

    def _handler(self, request: Request) -> Optional[Handler]:
        """The one with the narrowest fitting domain."""
        fitting = [
            handler
            for handler in self._handlers
            if handler.kind == request.kind and covers(handler.domain, request.domain)
        ]
        return max(fitting, key=lambda handler: labels(handler.domain), default=None)

    async def _reply(self, ref: str, kind: str, payload: Json) -> None:
        wire = self._link.wire
        if wire is None:
            raise AxonError("closed", "the connection to the daemon is lost; it is made again")
        await wire.call("reply", {"ref": ref, "kind": kind, "payload": payload}, REPLY_SECS)

    async def _say(self, ref: str, kind: str, payload: Json) -> Optional[AxonError]:
        """Replies, and gives what went wrong."""
        try:
            await self._reply(ref, kind, payload)
        except AxonError as error:
            return error
        return None

    async def _say_lasting(self, ref: str, kind: str, payload: Json) -> Optional[AxonError]:
        """The same, after a new connection as well, and again while it is refused for now."""
        tries = 0
        while True:
            try:
                await self._link.live()
            except AxonError as error:
                return error
            unsent = await self._say(ref, kind, payload)
            if unsent is None or self._stopped:
                return unsent
            if unsent.ends_connection:
                continue
            if unsent.code not in ("overloaded", "peer_unreachable") or tries == RETRIES:
                return unsent
            tries += 1
            await asyncio.sleep(RETRY_SECS)


def covers(own: Optional[str], asked: Optional[str]) -> bool:
    """Whether a handler of this domain takes what is asked: `family` covers `family.calendar`."""
    return own is None or asked is None or asked == own or asked.startswith(own + ".")


def labels(domain: Optional[str]) -> int:
    """How narrow a domain is."""
    return 0 if domain is None else 1 + domain.count(".")


def _is_request(event: Json) -> bool:
    name = event.get("event")
    return name == "withdrawn" or (name == "inbound" and event.get("answer") is True)
