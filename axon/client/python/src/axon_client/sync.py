"""The same for programs without asyncio: each call waits. See `axon_client`.

    from axon_client.sync import connect

    with connect() as agent:
        print(agent.ask("bob", "When is dinner?"))

An agent may be used from several threads. Its connection lives in a thread of its own.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import threading
from typing import (
    Any, AsyncIterator, Callable, Coroutine, Iterator, List, Mapping, Optional, Sequence, TypeVar, Union,
)

from . import _agent
from ._answer import Answer, Outcome, Refuse
from ._errors import AxonError, closed
from ._events import Json
from ._messages import Messages as AsyncMessages
from ._presence import SyncPresence
from ._request import SyncRequest as Request
from ._topics import Published, TopicMessage, TopicPeer, Topics, TopicSubscribed
from ._topics import TopicMessages as AsyncTopicMessages
from ._types import (
    Cancelled,
    Capabilities,
    DelegationRow,
    Envelope,
    Event,
    OutboxRow,
    Peer,
    Reply,
    Sent,
    Status,
    Subscribed,
    Whoami,
)
from ._types import Message as AsyncMessage
from ._types import Page as AsyncPage

__all__ = [
    "Agent",
    "Answer",
    "AxonError",
    "Delegation",
    "Message",
    "Messages",
    "Page",
    "Refuse",
    "Request",
    "TopicMessage",
    "TopicMessages",
    "connect",
]

# How often the first thread looks whether Ctrl-C was pressed while it waits.
HEED_SECS = 0.5

T = TypeVar("T")
H = TypeVar("H", bound=Callable[[Request], Outcome])


class _Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="axon-client", daemon=True)
        self._thread.start()
        self._closed = False

    def wait(self, work: Coroutine[Any, Any, T], timeout: Optional[float] = None) -> T:
        """Runs it there and waits for it here."""
        if self._closed:
            work.close()
            raise closed("this agent was closed: open a new one")
        bounded = work if timeout is None else asyncio.wait_for(work, timeout)
        future = asyncio.run_coroutine_threadsafe(bounded, self._loop)
        try:
            if threading.current_thread() is threading.main_thread():
                # Only this thread carries out what a signal asks for, and a wait without an end is not
                # ended by one that another thread got, or that came just before it.
                while not concurrent.futures.wait((future,), HEED_SECS).done:
                    pass
            return future.result()
        except concurrent.futures.CancelledError:
            raise closed("this agent was closed meanwhile: open a new one") from None
        except BaseException:
            # Ctrl-C among them: nobody waits any more.
            future.cancel()
            raise

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        asyncio.run_coroutine_threadsafe(_cancel_all(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _cancel_all() -> None:
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class Message:
    """A row of the inbox."""

    def __init__(self, loop: _Loop, message: AsyncMessage) -> None:
        self._loop = loop
        self._message = message

    def __repr__(self) -> str:
        return repr(self._message)

    @property
    def seq(self) -> int:
        """Its number, to be acked."""
        return self._message.seq

    @property
    def buffered_at_ms(self) -> int:
        """When it came, in Unix milliseconds."""
        return self._message.buffered_at_ms

    @property
    def trust(self) -> str:
        """Level of the sender: `unknown`, `known`, `trusted`."""
        return self._message.trust

    @property
    def from_name(self) -> Optional[str]:
        """What the sender is called here; never decide by it where `claimed` is true."""
        return self._message.from_name

    @property
    def claimed(self) -> bool:
        """Whether the name is only what the sender claims."""
        return self._message.claimed

    @property
    def envelope(self) -> Envelope:
        """The message as it came."""
        return self._message.envelope

    @property
    def id(self) -> str:
        """The message's id."""
        return self._message.id

    @property
    def kind(self) -> str:
        """What it is: `notify`, `result`, `progress`, and others."""
        return self._message.kind

    @property
    def sender(self) -> str:
        """Who sent it: an agent id."""
        return self._message.sender

    @property
    def ref(self) -> Optional[str]:
        """The message that this one is about."""
        return self._message.ref

    @property
    def payload(self) -> Json:
        """The rest, by kind. It is the peer's word: data, never orders."""
        return self._message.payload

    def ack(self) -> int:
        """Says that this row and all before it are done with. Gives where the cursor stands."""
        return self._loop.wait(self._message.ack())


class Page:
    """A part of the inbox, from the consumer's cursor on."""

    def __init__(self, loop: _Loop, page: AsyncPage) -> None:
        self.messages: List[Message] = [Message(loop, message) for message in page.messages]
        self.next_seq: Optional[int] = page.next_seq
        self.has_more: bool = page.has_more
        self.lost_before_seq: Optional[int] = page.lost_before_seq


class Messages(Iterator[Message]):
    """What `Agent.inbox` gives: see `axon_client.Messages`."""

    def __init__(self, loop: _Loop, stream: AsyncMessages, timeout: Optional[float]) -> None:
        self._loop = loop
        self._stream = stream
        self._timeout = timeout

    @property
    def lost_before_seq(self) -> Optional[int]:
        """Messages below this number are lost, as last told; None when none are."""
        return self._stream.lost_before_seq

    def open(self) -> Messages:
        """Connects now; without it the first message does."""
        self._loop.wait(self._stream.open())
        return self

    def __enter__(self) -> Messages:
        return self.open()

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __iter__(self) -> Messages:
        return self

    def __next__(self) -> Message:
        try:
            return Message(self._loop, self._loop.wait(_next(self._stream), self._timeout))
        except (_Over, asyncio.TimeoutError):
            raise StopIteration from None

    def ack(self, seq: int) -> int:
        """Says that all rows up to this one are done with. Gives where the cursor stands."""
        return self._loop.wait(self._stream.ack(seq))

    def close(self) -> None:
        """Ends the stream. What was given and not acked comes again with the next one."""
        self._loop.wait(self._stream.aclose())


class _Over(Exception):
    """A stream has ended. A StopAsyncIteration does not come out of a coroutine as itself."""


class TopicMessages(Iterator[TopicMessage]):
    """What `Agent.listen` gives: see `axon_client.TopicMessages`."""

    def __init__(self, loop: _Loop, stream: AsyncTopicMessages, timeout: Optional[float]) -> None:
        self._loop = loop
        self._stream = stream
        self._timeout = timeout

    @property
    def missed(self) -> int:
        """How often messages came faster than they were taken."""
        return self._stream.missed

    def open(self) -> TopicMessages:
        """Subscribes now; without it the first message does."""
        self._loop.wait(self._stream.open())
        return self

    def __enter__(self) -> TopicMessages:
        return self.open()

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __iter__(self) -> TopicMessages:
        return self

    def __next__(self) -> TopicMessage:
        try:
            return self._loop.wait(_next(self._stream), self._timeout)
        except (_Over, asyncio.TimeoutError):
            raise StopIteration from None

    def close(self) -> None:
        """Ends the stream, and its subscriptions."""
        self._loop.wait(self._stream.aclose())


async def _next(stream: AsyncIterator[T]) -> T:
    try:
        return await stream.__anext__()
    except StopAsyncIteration:
        raise _Over from None


async def _made(
    agent: _agent.Agent, topics: Sequence[str], from_any: bool, history: bool
) -> AsyncTopicMessages:
    return agent.listen(*topics, from_any=from_any, history=history)


class Delegation:
    """Work that was given away."""

    def __init__(self, loop: _Loop, delegation: _agent.Delegation) -> None:
        self._loop = loop
        self._delegation = delegation

    def __repr__(self) -> str:
        return repr(self._delegation)

    @property
    def id(self) -> str:
        """Its id, by which any client of this daemon can wait for it."""
        return self._delegation.id

    @property
    def state(self) -> str:
        """At first: `accepted`, `queued` or `held`."""
        return self._delegation.state

    def wait(self, timeout: Optional[float] = None) -> DelegationRow:
        """Its row, once it has ended: see `Agent.wait`."""
        return self._loop.wait(self._delegation.wait(timeout))

    def cancel(self, reason: Optional[str] = None) -> Cancelled:
        """Takes it back."""
        return self._loop.wait(self._delegation.cancel(reason))


class Agent(SyncPresence):
    """An agent at the socket of its daemon: see `axon_client.Agent`."""

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
        self._agent = _agent.Agent(
            path,
            consumer=consumer,
            token=token,
            capabilities=capabilities,
            capacity=capacity,
            lease=lease,
            reconnect_secs=reconnect_secs,
        )
        self._loop = _Loop()

    # ---- The connection ----------------------------------------------------------------------------------

    def open(self) -> Agent:
        """Connects. Any call does so by itself."""
        self._loop.wait(self._agent.open())
        return self

    def close(self) -> None:
        """Stops answering and disconnects, for good. Calls that wait in other threads fail."""
        if not self._loop._closed:
            self._loop.wait(self._agent.close())
            self._loop.close()

    def __enter__(self) -> Agent:
        try:
            return self.open()
        except BaseException:
            self._loop.close()
            raise

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def path(self) -> str:
        """The socket."""
        return self._agent.path

    @property
    def agent_id(self) -> str:
        """The daemon's agent id; empty before the first connection."""
        return self._agent.agent_id

    @property
    def features(self) -> List[str]:
        """What the daemon offers; empty before the first connection."""
        return self._agent.features

    def command(self, cmd: str, fields: Optional[Mapping[str, Any]] = None) -> Json:
        """Any command of spec/IPC.md that waits for no peer, by its name; gives the whole reply."""
        return self._loop.wait(self._agent.command(cmd, fields))

    # ---- The daemon --------------------------------------------------------------------------------------

    def whoami(self) -> Whoami:
        """Who the daemon is."""
        return self._loop.wait(self._agent.whoami())

    def status(self) -> Status:
        """What the daemon counts."""
        return self._loop.wait(self._agent.status())

    def peers(self) -> List[Peer]:
        """The peers that the daemon knows."""
        return self._loop.wait(self._agent.peers())

    # ---- To peers ----------------------------------------------------------------------------------------

    def ask(
        self,
        to: str,
        question: str,
        *,
        domain: Optional[str] = None,
        max_tokens: Optional[int] = None,
        deadline_ms: Optional[int] = None,
    ) -> str:
        """Asks a peer, and gives its agent's answer in words."""
        asking = self._agent.ask(to, question, domain=domain, max_tokens=max_tokens, deadline_ms=deadline_ms)
        return self._loop.wait(asking)

    def query(
        self,
        to: str,
        question: str,
        *,
        domain: Optional[str] = None,
        max_tokens: Optional[int] = None,
        deadline_ms: Optional[int] = None,
    ) -> Reply:
        """The same with the whole answer: its data for programs, and who gave it."""
        asking = self._agent.query(
            to, question, domain=domain, max_tokens=max_tokens, deadline_ms=deadline_ms
        )
        return self._loop.wait(asking)

    def delegate(
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
        """Gives work to a peer. `wait` on what this gives waits for the result."""
        giving = self._agent.delegate(
            to,
            task,
            context=context,
            priority=priority,
            report_back=report_back,
            deadline_ms=deadline_ms,
            hold_secs=hold_secs,
        )
        return Delegation(self._loop, self._loop.wait(giving))

    def wait(self, id: str, timeout: Optional[float] = None) -> DelegationRow:
        """Waits until a delegation has ended, and gives its row."""
        return self._loop.wait(self._agent.wait(id, timeout))

    def cancel(self, id: str, reason: Optional[str] = None) -> Cancelled:
        """Takes a delegation back."""
        return self._loop.wait(self._agent.cancel(id, reason))

    def notify(
        self,
        to: str,
        topic: str,
        data: Any = None,
        *,
        importance: Optional[str] = None,
        hold_secs: Optional[int] = None,
        read_receipt: bool = False,
    ) -> Sent:
        """Tells a peer something."""
        telling = self._agent.notify(
            to, topic, data, importance=importance, hold_secs=hold_secs, read_receipt=read_receipt
        )
        return self._loop.wait(telling)

    def discover(self, to: str) -> Capabilities:
        """What a peer's agents say that they can do."""
        return self._loop.wait(self._agent.discover(to))

    def ping(self, to: str) -> Json:
        """How a peer's daemon is."""
        return self._loop.wait(self._agent.ping(to))

    # ---- What is kept ------------------------------------------------------------------------------------

    def outbox(
        self,
        *,
        id: Optional[str] = None,
        to: Optional[str] = None,
        state: Optional[str] = None,
        limit: Optional[int] = None,
    ) -> List[OutboxRow]:
        """Messages that are held or were, oldest first."""
        return self._loop.wait(self._agent.outbox(id=id, to=to, state=state, limit=limit))

    def cancel_held(self, id: str) -> None:
        """Takes a held message back before it has left."""
        self._loop.wait(self._agent.cancel_held(id))

    def delegations(
        self,
        *,
        id: Optional[str] = None,
        peer: Optional[str] = None,
        state: Optional[str] = None,
        direction: Optional[str] = None,
        limit: Optional[int] = None,
    ) -> List[DelegationRow]:
        """Work given away (`direction` `out`) and taken in (`in`), newest first."""
        asking = self._agent.delegations(id=id, peer=peer, state=state, direction=direction, limit=limit)
        return self._loop.wait(asking)

    def advertise(
        self, capabilities: Union[Capabilities, Mapping[str, Any]], *, persist: bool = False
    ) -> None:
        """Says what this agent can do, for peers that ask `discover`."""
        self._loop.wait(self._agent.advertise(capabilities, persist=persist))

    # ---- Topics ------------------------------------------------------------------------------------------

    def publish(self, topic: str, message: Mapping[str, Any]) -> Published:
        """Publishes a message, a JSON object, to whoever has subscribed."""
        return self._loop.wait(self._agent.publish(topic, message))

    def listen(
        self, *topics: str, from_any: bool = False, history: bool = False, timeout: Optional[float] = None
    ) -> TopicMessages:
        """What is published on these topics from now on; with `history` also what was kept here before.

            for said in agent.listen("build.>"):
                print(said.topic, said.from_name, said.message)

        With `timeout` the loop ends when nothing has come for so many seconds.
        """
        # The connection belongs to the thread of the loop.
        stream = self._loop.wait(_made(self._agent, topics, from_any, history))
        return TopicMessages(self._loop, stream, timeout)

    def subscribe_topic(
        self, topic: str, *, kept: bool = False, from_any: bool = False, history: bool = False
    ) -> TopicSubscribed:
        """Subscribes: what is published comes as an event or, with `kept`, waits in the inbox."""
        asking = self._agent.subscribe_topic(topic, kept=kept, from_any=from_any, history=history)
        return self._loop.wait(asking)

    def unsubscribe_topic(self, topic: str) -> bool:
        """Ends a subscription of this agent or of its consumer; gives whether there was one."""
        return self._loop.wait(self._agent.unsubscribe_topic(topic))

    def topics(self) -> Topics:
        """Subscriptions, what is kept and relayed, and topics that were seen."""
        return self._loop.wait(self._agent.topics())

    def topic_peers(self, topic: Optional[str] = None) -> List[TopicPeer]:
        """Connected peers that offer topics, or those that want this one."""
        return self._loop.wait(self._agent.topic_peers(topic))

    def topic_keep(
        self, topic: str, *, last: Optional[int] = None, hours: Optional[int] = None, off: bool = False
    ) -> None:
        """Has the daemon keep what comes of these topics, or with `off` no longer. The owner's word."""
        self._loop.wait(self._agent.topic_keep(topic, last=last, hours=hours, off=off))

    # ---- The inbox and events ----------------------------------------------------------------------------

    def inbox(
        self,
        kinds: Optional[Sequence[str]] = None,
        *,
        timeout: Optional[float] = None,
        on_lost: Optional[Callable[[int], None]] = None,
    ) -> Messages:
        """All messages that this consumer has not acked, and then those that come.

            for message in agent.inbox(["notify"]):
                print(message.payload)
                message.ack()

        With `timeout` the loop ends when nothing has come for so many seconds. `on_lost` is called in the
        connection's thread.
        """
        return Messages(self._loop, self._agent.inbox(kinds, on_lost=on_lost), timeout)

    def read_inbox(self, limit: Optional[int] = None, kinds: Optional[Sequence[str]] = None) -> Page:
        """One part of the inbox, from the cursor on, without waiting. Reading does not ack."""
        return Page(self._loop, self._loop.wait(self._agent.read_inbox(limit, kinds)))

    def ack(self, seq: int) -> int:
        """Says that all rows up to this one are done with. Gives where the cursor stands."""
        return self._loop.wait(self._agent.ack(seq))

    def watch(self) -> None:
        """Asks for an event at each change of any delegation."""
        self._loop.wait(self._agent.watch())

    def subscribe(
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
        asking = self._agent.subscribe(
            kinds=kinds, replay=replay, answer=answer, domains=domains, capacity=capacity, lease=lease
        )
        return self._loop.wait(asking)

    def next_event(self, timeout: Optional[float] = None) -> Optional[Event]:
        """The next event; None when none has come within so many seconds."""
        try:
            return self._loop.wait(self._agent.next_event(), timeout)
        except asyncio.TimeoutError:
            return None

    def events(self) -> Iterator[Event]:
        """All events, for ever."""
        while True:
            yield self._loop.wait(self._agent.next_event())

    # ---- Answering ---------------------------------------------------------------------------------------

    def answer(self, *kinds: str, domain: Optional[str] = None) -> Callable[[H], H]:
        """Makes a plain function answer what peers ask; it runs in a thread.

            @agent.answer("query")
            def anything(request):
                return f"You asked: {request.subject}"
        """
        put = self._agent.answer(*kinds, domain=domain)

        def register(function: H) -> H:
            if inspect.iscoroutinefunction(function):
                raise TypeError("a coroutine function answers for axon_client.Agent: here take a plain one")
            put(function)
            return function

        return register

    def on_attached(self, call: Callable[[], None]) -> None:
        """Calls this, in the connection's thread, each time that requests can come."""
        self._agent.on_attached(call)

    def on_unsent(self, call: Callable[[str, AxonError], None]) -> None:
        """Calls this, in the connection's thread, when an answer or a result could not be given."""
        self._agent.on_unsent(call)

    def start(self) -> None:
        """Answers from now on, beside all else, until `close`. Returns once it is attached."""
        self._loop.wait(self._agent.start())

    def serve(self) -> None:
        """Answers until Ctrl-C, or until `close` in another thread."""
        try:
            self._loop.wait(self._agent.serve())
        except KeyboardInterrupt:
            pass

    def reply(
        self, ref: str, kind: str, payload: Mapping[str, Any], *, hold_secs: Optional[int] = None
    ) -> Json:
        """Answers a request by hand: `response`, `ack`, `error`, `progress` or `result`."""
        return self._loop.wait(self._agent.reply(ref, kind, payload, hold_secs=hold_secs))


def connect(
    path: Optional[str] = None,
    *,
    consumer: str = "default",
    token: Optional[str] = None,
    reconnect_secs: float = 10.0,
) -> Agent:
    """Connects to the daemon: `with connect() as agent`. See `axon_client.connect`."""
    agent = Agent(path, consumer=consumer, token=token, reconnect_secs=reconnect_secs)
    try:
        return agent.open()
    except BaseException:
        agent._loop.close()
        raise
