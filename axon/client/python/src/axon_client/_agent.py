"""The agent: one method for each thing that it can do."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
from typing import (
    Any, AsyncIterator, Awaitable, Callable, Dict, Generator, List, Mapping, Optional, Sequence, Set, TypeVar,
    Union, cast,
)

from ._answer import Outcome
from ._errors import AxonError
from ._events import Events, Json
from ._link import Link
from ._messages import Messages, subscribed
from ._presence import AsyncPresence
from ._request import Request, SyncRequest
from ._serve import AsyncHandler, Handler, Serving, SyncHandler
from ._topics import Published, TopicMessages, TopicPeer, Topics, TopicSubscribed
from ._types import (
    ENDS, Cancelled, Capabilities, DelegationRow, Envelope, Event, OutboxRow, Page, Peer, Reply, Sent, Status,
    Subscribed, Whoami, read_page,
)
from ._wire import PATIENCE_SECS, Wire

# The wait for an answer when none is given, and the longest.
REQUEST_SECS, DEADLINE_SECS_MAX = 30.0, 3600.0

H = TypeVar("H", bound=Union[
    Callable[[Request], Awaitable[Outcome]], Callable[[SyncRequest], Outcome], Callable[..., Any]
])


def default_path() -> str:
    """`$AXON_ROOT/axon.sock`, or `~/.axon/axon.sock`."""
    root = os.environ.get("AXON_ROOT") or os.path.join(os.path.expanduser("~"), ".axon")
    return os.path.join(root, "axon.sock")


class Delegation:
    """Work that was given away."""

    def __init__(self, agent: Agent, id: str, state: str) -> None:
        self._agent = agent
        #: Its id, by which any client of this daemon can wait for it.
        self.id = id
        #: At first: `accepted`, `queued` (the peer keeps it for an agent) or `held` (the peer is away).
        self.state = state

    def __repr__(self) -> str:
        return f"Delegation(id={self.id!r}, state={self.state!r})"

    async def wait(self, timeout: Optional[float] = None) -> DelegationRow:
        """Its row, once it has ended: see `Agent.wait`."""
        return await self._agent.wait(self.id, timeout)

    async def cancel(self, reason: Optional[str] = None) -> Cancelled:
        """Takes it back."""
        return await self._agent.cancel(self.id, reason)


class Agent(AsyncPresence):
    """An agent at the socket of its daemon.

    All calls may run at the same time. The connection is made again when the daemon was restarted: a call
    that begins while it is away waits for it `reconnect_secs` at most. A call that was under way fails with
    the code `closed`, since nobody can tell whether it was carried out.
    """

    def __init__(
        self,
        path: Optional[str] = None,
        *,
        consumer: str = "default",
        token: Optional[str] = None,
        capabilities: Optional[Union[Capabilities, Mapping[str, Any]]] = None,
        capacity: int = 16,
        lease: bool = False,
        reconnect_secs: float = 10.0,
    ) -> None:
        """`path` is that of the socket; `consumer` names whose cursor in the inbox this is.

        `capabilities`, `capacity` and `lease` are for an agent that answers: what peers `discover` of it,
        how many requests it takes at once, and whether those stay its own when it disconnects.
        """
        self.path = path or default_path()
        self.consumer = consumer
        self._token = token
        self._capabilities = None if capabilities is None else dict(capabilities)
        self._capacity = capacity
        self._lease = lease
        self._reconnect_secs = reconnect_secs
        self._handlers: List[Handler] = []
        self._link: Optional[Link] = None
        self._hello: Json = {}
        self._serving: Optional[Serving] = None
        self._serve_task: Optional[asyncio.Task[None]] = None
        self._advert: Optional[Json] = None
        self._subscription: Optional[Json] = None
        self._topics: Dict[str, Json] = {}
        self._watch = False
        self._waiting: Dict[str, Set[asyncio.Future[None]]] = {}
        self._attached: List[Callable[[], None]] = []
        self._unsent: List[Callable[[str, AxonError], None]] = []

    # ---- The connection ----------------------------------------------------------------------------------

    async def open(self) -> Agent:
        """Connects. Any call does so by itself."""
        if self._link is None:
            events = Events(self._sift)
            link = Link(self.path, self.consumer, self._token, events, self._greet, self._reconnect_secs)
            link.on_end = self._wake_all
            self._link = link
            try:
                await link.live()
            except BaseException:
                self._link = None
                raise
        return self

    async def close(self) -> None:
        """Stops answering and disconnects, for good."""
        if self._serving is not None:
            await self._serving.stop()
        if self._serve_task is not None:
            await asyncio.wait({self._serve_task})
        if self._link is not None:
            await self._link.close()

    async def __aenter__(self) -> Agent:
        return await self.open()

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    @property
    def agent_id(self) -> str:
        """The daemon's agent id; empty before the first connection."""
        return str(self._hello.get("agent_id", ""))

    @property
    def features(self) -> List[str]:
        """What the daemon offers; empty before the first connection."""
        return [str(feature) for feature in self._hello.get("features", [])]

    async def _greet(self, wire: Wire, again: bool) -> None:
        self._hello = wire.hello
        if self._advert is not None:
            await wire.call("advertise", {"capabilities": self._advert}, PATIENCE_SECS)
        if self._subscription is not None:
            await wire.call("subscribe", self._subscription, PATIENCE_SECS)
        for fields in self._topics.values():
            await wire.call("subscribe_topic", fields, PATIENCE_SECS)
        if self._watch:
            await wire.call("delegations", {"limit": 1, "watch": True}, PATIENCE_SECS)
        if again and self._link is not None:
            self._link.events.miss()

    async def _live(self) -> Link:
        await self.open()
        assert self._link is not None
        return self._link

    async def _call(self, cmd: str, fields: Mapping[str, Any]) -> Json:
        return await (await self._live()).call(cmd, fields)

    async def command(self, cmd: str, fields: Optional[Mapping[str, Any]] = None) -> Json:
        """Any command of spec/IPC.md that waits for no peer, by its name; gives the whole reply."""
        return await self._call(cmd, fields or {})

    # ---- The daemon --------------------------------------------------------------------------------------

    async def whoami(self) -> Whoami:
        """Who the daemon is."""
        return cast(Whoami, await self._call("whoami", {}))

    async def status(self) -> Status:
        """What the daemon counts."""
        return cast(Status, await self._call("status", {}))

    async def peers(self) -> List[Peer]:
        """The peers that the daemon knows."""
        return cast(List[Peer], (await self._call("peers", {}))["peers"])

    # ---- To peers ----------------------------------------------------------------------------------------

    async def _send(
        self, to: Optional[str], kind: str, payload: Json, wait_secs: float = REQUEST_SECS, **fields: Any
    ) -> Json:
        line = {"to": to, "kind": kind, "payload": payload, **fields}
        return await (await self._live()).call("send", line, limit=wait_secs + PATIENCE_SECS, slow=True)

    async def ask(
        self,
        to: str,
        question: str,
        *,
        domain: Optional[str] = None,
        max_tokens: Optional[int] = None,
        deadline_ms: Optional[int] = None,
    ) -> str:
        """Asks a peer, and gives its agent's answer in words.

        `to` is a name, an agent id or its beginning.
        """
        reply = await self.query(to, question, domain=domain, max_tokens=max_tokens, deadline_ms=deadline_ms)
        return reply.text

    async def query(
        self,
        to: str,
        question: str,
        *,
        domain: Optional[str] = None,
        max_tokens: Optional[int] = None,
        deadline_ms: Optional[int] = None,
    ) -> Reply:
        """The same with the whole answer: its data for programs, and who gave it."""
        payload = {
            "question": question, "domain": domain, "max_tokens": max_tokens, "deadline_ms": deadline_ms,
        }
        wait = min(deadline_ms / 1000, DEADLINE_SECS_MAX) if deadline_ms else REQUEST_SECS
        return _answer(await self._send(to, "query", _given(payload), wait))

    async def delegate(
        self,
        to: str,
        task: str,
        *,
        context: Any = None,
        priority: Optional[str] = None,
        report_back: Optional[bool] = None,
        deadline_ms: Optional[int] = None,
        hold_secs: Optional[int] = None,
    ) -> Delegation:
        """Gives work to a peer. `wait` on what this gives waits for the result.

        With `hold_secs` the daemon keeps it so long for a peer that is away. A peer that says no is the error
        `declined`.
        """
        payload = {
            "task": task, "context": context, "priority": priority, "report_back": report_back,
            "deadline_ms": deadline_ms,
        }
        said = await self._send(to, "delegate", _given(payload), hold_secs=hold_secs)
        if "response" not in said:
            return Delegation(self, str(said["msg_id"]), str(said.get("state")))
        ack = _answer(said)
        if ack.payload.get("accepted") is not True:
            reason = ack.payload.get("reason") or "the peer gave no reason"
            raise AxonError("declined", f"the work is declined: {reason}", peer=ack.sender, id=ack.id)
        queued = ack.payload.get("state") == "queued"
        return Delegation(self, ack.id, "queued" if queued else "accepted")

    async def wait(self, id: str, timeout: Optional[float] = None) -> DelegationRow:
        """Waits until a delegation has ended, and gives its row: `state`, and `result` if there is one.

        It goes on when the daemon is restarted, and may be asked before or after the end. When it is not done
        within `timeout` seconds, that is the error `timeout`, and nothing is changed.
        """
        try:
            return await asyncio.wait_for(self._ended(id), timeout)
        except asyncio.TimeoutError:
            raise AxonError(
                "timeout", f"the delegation {id} is not done within {timeout} s: wait again, or cancel it"
            ) from None

    async def _ended(self, id: str) -> DelegationRow:
        link = await self._live()
        while True:
            changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.setdefault(id, set()).add(changed)
            try:
                reply = await link.ask_until_told("delegations", {"id": id, "watch": True})
                rows = cast(List[DelegationRow], reply["delegations"])
                if not rows:
                    why = f"the daemon knows no delegation {id}: look at `delegations`"
                    raise AxonError("not_found", why)
                if rows[0]["state"] in ENDS:
                    return rows[0]
                await changed
            finally:
                self._waiting[id].discard(changed)
                if not self._waiting[id]:
                    del self._waiting[id]

    async def cancel(self, id: str, reason: Optional[str] = None) -> Cancelled:
        """Takes a delegation back. True also for one that was still held, and never leaves."""
        said = await self._send(None, "cancel", _given({"reason": reason}), ref=id)
        if "response" not in said:
            return Cancelled(said.get("state") == "cancelled", None)
        ack = _answer(said)
        return Cancelled(ack.payload.get("accepted") is True, ack.payload.get("reason"))

    async def notify(
        self,
        to: str,
        topic: str,
        data: Any = None,
        *,
        importance: Optional[str] = None,
        hold_secs: Optional[int] = None,
        read_receipt: bool = False,
    ) -> Sent:
        """Tells a peer something. `delivered` means that its daemon has it on disk.

        With `hold_secs` the daemon keeps it so long for a peer that is away; without, that is an error. With
        `read_receipt` a `delivery` event with the state `read` follows when an agent has acked it.
        """
        payload = {**_given({"topic": topic, "importance": importance}), "data": data}
        receipt = read_receipt or None
        said = await self._send(to, "notify", payload, hold_secs=hold_secs, read_receipt=receipt)
        return Sent(str(said["msg_id"]), str(said.get("state")))

    async def discover(self, to: str) -> Capabilities:
        """What a peer's agents say that they can do."""
        return cast(Capabilities, _answer(await self._send(to, "discover", {})).payload)

    async def ping(self, to: str) -> Json:
        """How a peer's daemon is: `status`, `uptime_secs`, `active_tasks`."""
        return _answer(await self._send(to, "ping", {})).payload

    # ---- What is kept ------------------------------------------------------------------------------------

    async def outbox(
        self,
        *,
        id: Optional[str] = None,
        to: Optional[str] = None,
        state: Optional[str] = None,
        limit: Optional[int] = None,
    ) -> List[OutboxRow]:
        """Messages that are held or were, oldest first."""
        fields = {"id": id, "to": to, "state": state, "limit": limit}
        return cast(List[OutboxRow], (await self._call("outbox", fields))["outbox"])

    async def cancel_held(self, id: str) -> None:
        """Takes a held message back before it has left."""
        await self._call("outbox", {"cancel": id})

    async def delegations(
        self,
        *,
        id: Optional[str] = None,
        peer: Optional[str] = None,
        state: Optional[str] = None,
        direction: Optional[str] = None,
        limit: Optional[int] = None,
    ) -> List[DelegationRow]:
        """Work given away (`direction` `out`) and taken in (`in`), newest first."""
        fields = {"id": id, "peer": peer, "state": state, "direction": direction, "limit": limit}
        return cast(List[DelegationRow], (await self._call("delegations", fields))["delegations"])

    async def advertise(
        self, capabilities: Union[Capabilities, Mapping[str, Any]], *, persist: bool = False
    ) -> None:
        """Says what this agent can do, for peers that ask `discover`.

        It ends with this agent; with `persist` it stays for the consumer, until an empty one takes it away.
        """
        said = dict(capabilities)
        await self._call("advertise", {"capabilities": said, "persist": persist or None})
        self._advert = None if persist else said

    # ---- The inbox ---------------------------------------------------------------------------------------

    def inbox(
        self, kinds: Optional[Sequence[str]] = None, *, on_lost: Optional[Callable[[int], None]] = None
    ) -> Messages:
        """All messages that this consumer has not acked, and then those that come, for ever.

            async for message in agent.inbox(["notify"]):
                print(message.payload)
                await message.ack()

        An ack is for all rows up to its own. What was not acked comes again with the next stream. Messages
        of other kinds than asked for are passed over, and acked with those around them.
        """
        return Messages(self.path, self.consumer, self._token, kinds, on_lost, self._reconnect_secs)

    async def read_inbox(
        self, limit: Optional[int] = None, kinds: Optional[Sequence[str]] = None
    ) -> Page:
        """One part of the inbox, from the cursor on, without waiting. Reading does not ack."""
        fields = {"limit": limit, "kinds": None if kinds is None else list(kinds)}
        return read_page(await self._call("inbox", fields), self.ack)

    async def ack(self, seq: int) -> int:
        """Says that all rows up to this one are done with. Gives where the cursor stands."""
        return int((await self._call("ack", {"up_to_seq": seq}))["acked_seq"])

    # ---- Topics ------------------------------------------------------------------------------------------

    async def publish(self, topic: str, message: Mapping[str, Any]) -> Published:
        """Publishes a message, a JSON object, to whoever has subscribed. Who gets it is not told."""
        return cast(Published, await self._call("publish", {"topic": topic, "payload": dict(message)}))

    def listen(self, *topics: str, from_any: bool = False, history: bool = False) -> TopicMessages:
        """What is published on these topics from now on; with `history` also what was kept before.

            async for said in agent.listen("build.>"):
                print(said.topic, said.from_name, said.message)

        A topic is a name or a filter: `*` is one level, `>` at its end all that follow. `from_any` is also
        for what agents publish that are no peers here.
        """
        if not topics:
            raise ValueError("name a topic, or a filter such as 'build.>'")
        fields = {"from": "any" if from_any else None, "history": history or None}
        return TopicMessages(self.path, self.consumer, self._token, topics, fields, self._reconnect_secs)

    async def subscribe_topic(
        self, topic: str, *, kept: bool = False, from_any: bool = False, history: bool = False
    ) -> TopicSubscribed:
        """Subscribes: what is published comes as an `inbound` event, of kind `topic.message`.

        With `kept` the subscription is the consumer's until `unsubscribe_topic`, and what comes waits in the
        inbox: read it by `inbox(["topic.message"])` and `TopicMessage.read`.
        """
        said = {
            "topic": topic, "kept": kept or None, "from": "any" if from_any else None,
            "history": history or None,
        }
        reply = await self._call("subscribe_topic", said)
        if not kept:
            # What was kept before is not told again over a new connection.
            self._topics[topic] = {**said, "history": None}
        return cast(TopicSubscribed, reply)

    async def unsubscribe_topic(self, topic: str) -> bool:
        """Ends a subscription of this agent or of its consumer; gives whether there was one."""
        self._topics.pop(topic, None)
        return (await self._call("unsubscribe_topic", {"topic": topic})).get("unsubscribed") is True

    async def topics(self) -> Topics:
        """Subscriptions, what is kept and relayed, and topics that were seen."""
        return cast(Topics, await self._call("topics", {}))

    async def topic_peers(self, topic: Optional[str] = None) -> List[TopicPeer]:
        """Connected peers that offer topics, or those that want this one."""
        return cast(List[TopicPeer], (await self._call("topic_peers", {"topic": topic}))["peers"])

    async def topic_keep(
        self, topic: str, *, last: Optional[int] = None, hours: Optional[int] = None, off: bool = False
    ) -> None:
        """Has the daemon keep what comes of these topics, or with `off` no longer. The owner's word."""
        await self._call("topic_keep", {"topic": topic, "last": last, "hours": hours, "off": off or None})

    # ---- Events ------------------------------------------------------------------------------------------

    async def watch(self) -> None:
        """Asks for an event at each change of any delegation."""
        self._watch = True
        await self._call("delegations", {"limit": 1, "watch": True})

    async def subscribe(
        self,
        *,
        kinds: Optional[Sequence[str]] = None,
        replay: Optional[bool] = None,
        answer: Optional[Sequence[str]] = None,
        domains: Optional[Sequence[str]] = None,
        capacity: Optional[int] = None,
        lease: Optional[bool] = None,
    ) -> Subscribed:
        """Asks for messages as events, for who does by hand what `inbox` and `answer` do."""
        fields = {
            "kinds": None if kinds is None else list(kinds),
            "replay": replay,
            "answer": None if answer is None else list(answer),
            "domains": None if domains is None else list(domains),
            "capacity": capacity,
            "lease": lease,
        }
        reply = await self._call("subscribe", fields)
        self._subscription = fields
        return subscribed(reply)

    async def next_event(self) -> Event:
        """The next event. May be cancelled while it waits without losing anything."""
        event = await (await self._live()).next_event()
        return Event(str(event["event"]), event)

    async def events(self) -> AsyncIterator[Event]:
        """All events, for ever. `delivery` comes unasked, the others after `watch` and `subscribe`."""
        while True:
            yield await self.next_event()

    def _sift(self, event: Json) -> bool:
        row = event.get("delegation")
        if event.get("event") != "delegation" or not isinstance(row, dict):
            return True
        self._wake(self._waiting.get(str(row.get("id")), set()))
        return self._watch

    def _wake(self, waiting: Set[asyncio.Future[None]]) -> None:
        for changed in waiting:
            if not changed.done():
                changed.set_result(None)

    def _wake_all(self) -> None:
        for waiting in self._waiting.values():
            self._wake(waiting)

    # ---- Answering ---------------------------------------------------------------------------------------

    def answer(self, *kinds: str, domain: Optional[str] = None) -> Callable[[H], H]:
        """Makes a function answer what peers ask: `query`, `delegate`, or both when none is named.

            @agent.answer("query", domain="family")
            async def family(request):
                return f"You asked: {request.subject}"

        It returns an `Answer`, its text, or any JSON value, or raises `Refuse`. A plain function runs in a
        thread, which nobody can stop: with long work it looks at `request.ended` now and then. Of several for
        one kind, that with the narrowest fitting domain is taken.
        """
        for kind in kinds:
            if kind not in ("query", "delegate"):
                raise ValueError(f"{kind!r} is not answered: name 'query', 'delegate', or none for both")

        def register(function: H) -> H:
            is_async = inspect.iscoroutinefunction(function)
            for kind in kinds or ("query", "delegate"):
                run = cast(Union[AsyncHandler, SyncHandler], function)
                # A domain is of queries only.
                self._handlers.append(Handler(kind, domain if kind == "query" else None, run, is_async))
            return function

        return register

    def on_attached(self, call: Callable[[], None]) -> None:
        """Calls this each time that requests can come: at first, and when the daemon is back."""
        self._attached.append(call)

    def on_unsent(self, call: Callable[[str, AxonError], None]) -> None:
        """Calls this with the request's id when an answer or a result could not be given, and why."""
        self._unsent.append(call)

    async def start(self) -> None:
        """Answers from now on, beside all else, until `close`. Returns once it is attached."""
        if not self._handlers:
            raise ValueError("nothing answers yet: put @agent.answer() before a function first")
        if self._serving is not None:
            raise ValueError("this agent answers already")
        serving = Serving(
            self.path, self.consumer, self._token, self._handlers, self._capacity, self._lease,
            self._capabilities, self._was_attached, self._was_unsent,
        )
        await serving.attach()
        self._serving = serving
        self._serve_task = asyncio.ensure_future(serving.run())

    async def serve(self) -> None:
        """Answers until `close`, or until it is cancelled. Connects again whenever the daemon was away."""
        if self._serving is None:
            await self.start()
        assert self._serve_task is not None and self._serving is not None
        try:
            await asyncio.shield(self._serve_task)
        finally:
            await self._serving.stop()

    def run(self) -> None:
        """Answers until Ctrl-C: for a program that does nothing else."""
        # Who has said what Ctrl-C does in this program is left alone.
        ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        try:
            asyncio.run(self._serve_until_interrupted() if ours else self.serve())
        except KeyboardInterrupt:
            pass

    async def _serve_until_interrupted(self) -> None:
        """Python's own handler of a signal sets a flag, which is looked at between two steps of the first
        thread. When that thread waits for events and another one gets the signal, or it comes just before
        the wait, nothing ends the wait. The loop's handler does: it writes into a socket of the loop."""
        task = asyncio.current_task()
        interrupted = False

        def interrupt() -> None:
            nonlocal interrupted
            # Who asks twice does not want to wait for last words.
            if interrupted or task is None:
                raise KeyboardInterrupt
            interrupted = True
            task.cancel()

        try:
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, interrupt)
        except (NotImplementedError, RuntimeError, ValueError):
            # Another kind of loop, or not the first thread, which is the only one that hears of signals.
            pass
        try:
            await self.serve()
        except asyncio.CancelledError:
            if not interrupted:
                raise

    async def reply(
        self, ref: str, kind: str, payload: Mapping[str, Any], *, hold_secs: Optional[int] = None
    ) -> Json:
        """Answers a request by hand: `response`, `ack`, `error`, `progress` or `result`."""
        fields = {"ref": ref, "kind": kind, "payload": dict(payload), "hold_secs": hold_secs}
        return await (await self._live()).call("reply", fields, limit=REQUEST_SECS + PATIENCE_SECS)

    def _was_attached(self) -> None:
        for call in self._attached:
            call()

    def _was_unsent(self, id: str, error: AxonError) -> None:
        for call in self._unsent:
            call(id, error)


class Connecting:
    """What `connect` gives: to be awaited, or entered by `async with`."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def __await__(self) -> Generator[Any, None, Agent]:
        return self._agent.open().__await__()

    async def __aenter__(self) -> Agent:
        return await self._agent.open()

    async def __aexit__(self, *exc: object) -> None:
        await self._agent.close()


def connect(
    path: Optional[str] = None,
    *,
    consumer: str = "default",
    token: Optional[str] = None,
    reconnect_secs: float = 10.0,
) -> Connecting:
    """Connects to the daemon: `async with connect() as agent`, or `agent = await connect()`.

    Without a path it is `$AXON_ROOT/axon.sock`, or `~/.axon/axon.sock`.
    """
    return Connecting(Agent(path, consumer=consumer, token=token, reconnect_secs=reconnect_secs))


def _given(payload: Json) -> Json:
    """The fields that are not None."""
    return {name: value for name, value in payload.items() if value is not None}


def _answer(said: Json) -> Reply:
    """The peer's answer; one of kind `error` is raised."""
    envelope = Envelope.read(said.get("response"))
    payload = envelope.payload
    if envelope.kind == "error":
        code, message = payload.get("code"), payload.get("message")
        retry = payload.get("retry_after_ms")
        raise AxonError(
            code if isinstance(code, str) else "internal",
            message if isinstance(message, str) and message else "the peer answered with an error",
            retryable=payload.get("retryable") is True,
            retry_after_ms=retry if isinstance(retry, int) else None,
            peer=envelope.sender,
            id=str(said["msg_id"]),
        )
    return Reply(str(said["msg_id"]), envelope.sender, envelope.kind, payload)
