"""A small peer: it dials and is dialled, and knows hello, streams and the core kinds, by WIRE_FORMAT."""

import asyncio
import os
import time
from typing import Any, Awaitable, Callable

import envelope as env
from aioquic.asyncio import server
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic import events
from handshake import Axon, Connection, configuration
from identity import Identity, agent_id, base64, proof
from pipe import Pipe, Violation

# aioquic's server makes its connections by this name.
server.QuicConnection = Connection

PATIENCE = 8.0
Answer = tuple[str, dict] | None
Agent = Callable[["Link", dict], Awaitable[Answer]]


class StreamEnded(Exception):
    """The stream was reset or stopped, or the ask had `none`: there is no answer."""


class Closed(Exception):
    """The connection ended: with this code, for this reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"closed with code {code}: {reason}")
        self.code, self.reason = code, reason


class Peer:
    """One agent: identity, whom it has pinned, what it offers, and what it answers."""

    def __init__(self, name: str, features: list[str] | None = None) -> None:
        self.name = name
        self.me = Identity()
        self.features = env.ALL_FEATURES if features is None else features
        self.boot = os.urandom(8).hex()
        self.pins: dict[str, bytes] = {}
        self.agents: dict[str, Agent] = {}
        self.heard: list[dict] = []
        self.news = asyncio.Condition()
        self.faults: list[str] = []
        self.links: list[Link] = []
        self.seen: set[str] = set()
        self.started = time.monotonic()
        self.listener = None
        self.axon = Axon(self.me, self.lets_in)
        self.port = 0
        # The secret of an invite that is open here.
        self.secret: bytes | None = None

    def lets_in(self, name: str, key: bytes) -> bool:
        """WF-PIN-3, and WF-STRANGER-1 while an invite is open. A dialler has always pinned somebody."""
        return self.pins.get(name, key if self.secret else None) == key

    def link(self) -> str:
        """A link to this peer, with the secret of its invite if one is open (PAIR-LINK-1)."""
        text = f"axon://{base64(self.me.key)}@127.0.0.1:{self.port}"
        return text if self.secret is None else f"{text}?k={base64(self.secret)}"

    def judge(self, link: "Link", message: dict) -> tuple[str, dict]:
        """A knock, by the invite alone."""
        key = link._quic.tls.peer_key
        told, right = proof(self.secret or b"", key, self.me.key, link.binding())
        payload = message["payload"]
        if self.secret is None or (payload.get("invite"), payload.get("proof")) != (told, right):
            return "admission", {"decision": "reject", "reason": "no such invite", "retry_after_ms": 1}
        self.pins[link.them] = key
        self.secret = None
        kinds = ["ping", "query", "notify", "discover"]
        return "admission", {"decision": "accept", "level": "known", "constraints": {"kinds": kinds}}

    async def listen(self) -> None:
        """Takes connections on a free port of loopback."""
        loop = asyncio.get_running_loop()
        transport, self.listener = await loop.create_datagram_endpoint(
            lambda: server.QuicServer(
                configuration=configuration(self.axon, None),
                create_protocol=lambda quic, stream_handler=None: Link(quic, self, None),
            ),
            local_addr=("127.0.0.1", 0),
        )
        self.port = transport.get_extra_info("sockname")[1]

    async def dial(self, key: bytes, addr: tuple[str, int], name: str | None = None) -> "Link":
        """A connection with its handshake done; pins this key. `name` is another server name to ask for."""
        found = agent_id(key)
        self.pins[found] = key
        loop = asyncio.get_running_loop()
        wanted = configuration(self.axon, name or found)
        link = Link(Connection(configuration=wanted), self, found)
        _, link = await loop.create_datagram_endpoint(lambda: link, local_addr=("127.0.0.1", 0))
        link.connect(addr)
        await asyncio.wait_for(link.shaken, PATIENCE)
        return link

    async def meet(self, key: bytes, addr: tuple[str, int]) -> "Link":
        """A connection with its hello done."""
        link = await self.dial(key, addr)
        await link.hello()
        return link

    async def wait_heard(self, fits: Callable[[dict], bool]) -> dict:
        """The first message that came, from now or before, for which this holds; takes it."""

        def look() -> dict | None:
            return next((said for said in self.heard if fits(said)), None)

        async with self.news:
            await asyncio.wait_for(self.news.wait_for(lambda: look() is not None), PATIENCE)
            found = look()
            self.heard.remove(found)
            return found

    async def wait_link(self) -> "Link":
        """A connection that the other side made, with its hello done."""
        async with self.news:
            await asyncio.wait_for(self.news.wait_for(self.came), PATIENCE)
        return self.came()

    def came(self) -> "Link | None":
        fits = lambda link: not link.dialled and link.theirs and not link.stranger  # noqa: E731
        return next(filter(fits, self.links), None)

    async def stop(self) -> None:
        """Closes all it has, with code 5."""
        for link in list(self.links):
            link.close(5, "shutting down")
        if self.listener is not None:
            self.listener.close()

    async def tell_of(self, message: dict | None = None) -> None:
        async with self.news:
            if message is not None:
                self.heard.append(message)
            self.news.notify_all()

    async def answer(self, link: "Link", message: dict) -> Answer:
        """What this peer says to a request or a one-way message; None resets the stream."""
        kind, payload = message["kind"], message["payload"]
        asks = kind in env.ANSWERS
        if kind != "hello" and message["id"] in self.seen:
            return ("ack", {"accepted": True}) if not asks else None
        self.seen.add(message["id"])
        await self.tell_of(message)
        if kind in self.agents:
            return await self.agents[kind](link, message)
        if kind == "ping":
            uptime = int(time.monotonic() - self.started)
            return "pong", {"status": "idle", "uptime_secs": uptime, "active_tasks": 0}
        if kind == "discover":
            return "capabilities", {"agent_name": self.name, "domains": ["python"], "x-odd": [1, None]}
        if kind in ("query", "cancel"):
            return refusal("unhandled", "No agent is attached to answer here; try again later.", True)
        if kind == "delegate":
            return "ack", {"accepted": True, "state": "queued"}
        if kind in env.ONE_WAY:
            return "ack", {"accepted": True}
        return refusal("unknown_kind", "This kind is not known here; use another.", False)


def refusal(code: str, message: str, retryable: bool) -> tuple[str, dict]:
    return "error", {"code": code, "message": message, "retryable": retryable}


class Link(QuicConnectionProtocol):
    """One connection with another daemon."""

    def __init__(self, quic: Connection, owner: Peer, them: str | None) -> None:
        super().__init__(quic)
        self.owner = owner
        self.dialled = them is not None
        self.them = them
        self.stranger = False
        loop = asyncio.get_running_loop()
        self.shaken: asyncio.Future[None] = loop.create_future()
        self.greeted: asyncio.Future[None] = loop.create_future()
        self.over: asyncio.Future[Closed] = loop.create_future()
        self.theirs: dict | None = None
        self.coming: dict[int, bytearray] = {}
        self.answers: dict[int, asyncio.Future] = {}
        self.tasks: set[asyncio.Task] = set()
        self.pipe: Pipe | None = None
        for future in (self.shaken, self.greeted):
            future.add_done_callback(lambda done: done.cancelled() or done.exception())
        owner.links.append(self)

    # What is sent.

    def envelope(self, kind: str, payload: dict, **more: Any) -> dict:
        return env.make(self.owner.me.id, self.them, kind, payload, **more)

    def write(self, stream: int, data: bytes, end: bool = True) -> None:
        self._quic.send_stream_data(stream, data, end)
        self.transmit()

    def reset(self, stream: int) -> None:
        self._quic.reset_stream(stream, 0)
        self.transmit()

    async def raw(self, data: bytes, end: bool = True, wait: float = PATIENCE) -> dict:
        """These bytes on a stream of their own; gives the answer, whatever it is."""
        if self.over.done():
            raise self.over.result()
        stream = self._quic.get_next_available_stream_id()
        waiting = asyncio.get_running_loop().create_future()
        self.answers[stream] = waiting
        self.coming[stream] = bytearray()
        self.write(stream, data, end)
        return await asyncio.wait_for(waiting, wait)

    def begin(self, data: bytes) -> int:
        """These bytes on a unidirectional stream."""
        stream = self._quic.get_next_available_stream_id(is_unidirectional=True)
        self.write(stream, data)
        return stream

    async def ask(self, message: dict) -> dict:
        """This request, or one-way message that wants its receipt; gives the answer, if it is one."""
        data = env.write(message)
        if self.pipe is not None and len(data) <= 4096:
            answer = await asyncio.wait_for(self.pipe.ask(data), PATIENCE)
            if answer is None:
                raise StreamEnded("none")
            answer = env.read(answer)
        else:
            answer = await self.raw(data)
        self.check(answer)
        if answer.get("ref") != message["id"]:
            self.owner.faults.append(f"WF-ENV-6: {answer} to {message}")
        allowed = env.ANSWERS.get(message["kind"], {"ack", "error"})
        if answer["kind"] not in allowed:
            self.owner.faults.append(f"MT-ALL-8: {answer} to {message}")
        return answer

    async def request(self, kind: str, payload: dict, **more: Any) -> dict:
        return await self.ask(self.envelope(kind, payload, **more))

    async def tell(self, kind: str, payload: dict, **more: Any) -> dict | None:
        """A one-way message (WF-STR-9): gives its receipt, if there is to be one."""
        message = self.envelope(kind, payload, **more)
        if "receipt" in self.theirs["features"]:
            return await self.ask(message)
        if self.pipe is not None:
            await asyncio.wait_for(self.pipe.tell(env.write(message)), PATIENCE)
        else:
            self.begin(env.write(message))
        return None

    def hello_payload(self, **more: Any) -> dict:
        return {
            "protocol_versions": [1],
            "agent_name": self.owner.name,
            "features": self.owner.features,
            "boot": self.owner.boot,
        } | more

    async def hello(self, **more: Any) -> dict:
        """Says hello as the dialler; gives the answer's payload."""
        answer = await self.request("hello", self.hello_payload(), **more)
        if answer["kind"] != "hello" or answer["payload"].get("selected_version") != 1:
            self.close(4, "hello failed")
            raise Closed(4, f"hello failed: {answer}")
        self.greet(answer["payload"])
        return answer["payload"]

    def greet(self, payload: dict) -> None:
        """Hello is done: what they offer is known."""
        self.theirs = payload | {"features": payload.get("features", [])}
        if "pipe" in self.owner.features and "pipe" in self.theirs["features"]:
            self.pipe = Pipe(self)
        self.greeted.set_result(None)
        self.later(self.owner.tell_of())

    def binding(self) -> bytes:
        """WF-STRANGER-6."""
        return self._quic.tls.export(b"EXPORTER-axon-knock", 32)

    def group(self) -> int:
        return self._quic.tls.key_group()

    # What comes.

    def later(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.finished)

    def finished(self, task: asyncio.Task) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and isinstance(task.exception(), Violation):
            self.close(4, str(task.exception()))
        elif not task.cancelled() and task.exception() is not None and not self.over.done():
            self.owner.faults.append(f"{task.exception()!r}")

    def check(self, message: dict) -> None:
        self.owner.faults.extend(env.faults(message, self.them, self.owner.me.id))

    def datagram_received(self, data: bytes, addr: Any) -> None:
        super().datagram_received(data, addr)
        # aioquic tells of a close only when it has drained: that is a long wait for a test.
        event = self._quic._close_event
        if event is not None:
            self.gone(Closed(event.error_code, event.reason_phrase))

    def quic_event_received(self, event: events.QuicEvent) -> None:
        match event:
            case events.HandshakeCompleted():
                # An acceptor knows now who dialled.
                self.them = agent_id(self._quic.tls.peer_key)
                self.stranger = self.them not in self.owner.pins
                if not self.shaken.done():
                    self.shaken.set_result(None)
            case events.StreamDataReceived():
                self.arrived(event.stream_id, event.data, event.end_stream)
            case events.StreamReset() | events.StopSendingReceived():
                self.ended(event.stream_id)
            case events.ConnectionTerminated():
                self.gone(Closed(event.error_code, event.reason_phrase))

    def ended(self, stream: int) -> None:
        waiting = self.answers.pop(stream, None)
        if waiting is not None and not waiting.done():
            waiting.set_exception(StreamEnded(f"stream {stream} was reset"))

    def gone(self, why: Closed) -> None:
        if self.over.done():
            return
        self.over.set_result(why)
        if self in self.owner.links:
            self.owner.links.remove(self)
        waiting = [self.shaken, self.greeted, *self.answers.values()]
        if self.pipe is not None:
            waiting += self.pipe.waiting()
        for future in waiting:
            if not future.done():
                future.set_exception(why)
        if self.dialled and self._transport is not None:
            self._transport.close()

    def arrived(self, stream: int, data: bytes, end: bool) -> None:
        mine = (stream & 1 == 0) == self.dialled
        so_far = self.coming.setdefault(stream, bytearray())
        if not mine and stream & 2 and self.pipe is not None and self.pipe.takes(stream, so_far or data):
            try:
                self.pipe.feed(stream, data, end)
            except Violation as why:
                self.close(4, str(why))
            return
        so_far += data
        if len(so_far) > env.MESSAGE_MAX:
            self.owner.faults.append(f"{len(so_far)} bytes on stream {stream}")
            self._quic.stop_stream(stream, 0)
            return
        if not end:
            return
        whole = bytes(self.coming.pop(stream))
        if mine:
            waiting = self.answers.pop(stream, None)
            if waiting is not None and not waiting.done():
                self.give(waiting, whole)
        elif stream & 2:
            self.later(self.one_way(whole))
        else:
            self.later(self.serve(stream, whole))

    @staticmethod
    def give(waiting: asyncio.Future, whole: bytes) -> None:
        try:
            waiting.set_result(env.read(whole))
        except ValueError as why:
            waiting.set_exception(StreamEnded(f"an answer of {len(whole)} bytes: {why}"))

    async def one_way(self, whole: bytes) -> None:
        """A message on a unidirectional stream."""
        if not await self.may_come():
            return
        if self.pipe is None and self.theirs is not None and whole[:1] == b"\x01":
            self.owner.faults.append("WF-PIPE-1: a pipe that was not agreed on")
            return
        message = env.read(whole)
        self.check(message)
        if message["kind"] in env.ANSWERS:
            self.owner.faults.append(f"WF-STR-8: {message}")
        elif "receipt" in self.owner.features and message["kind"] in env.ONE_WAY:
            self.owner.faults.append(f"WF-STR-9: {message}")
        elif message["id"] not in self.owner.seen:
            self.owner.seen.add(message["id"])
            await self.owner.tell_of(message)

    async def may_come(self) -> bool:
        """WF-HEL-3: a dialler holds what comes before hello is done. An acceptor drops it."""
        if self.dialled:
            try:
                await self.greeted
            except Closed:
                return False
        return self.theirs is not None

    async def serve(self, stream: int, whole: bytes) -> None:
        """A request, or a one-way message that wants its receipt, on a stream of its own."""
        answer = await self.answer_to(whole)
        if self.over.done():
            return
        if answer is None:
            self.reset(stream)
        else:
            self.write(stream, answer)

    async def answer_to(self, whole: bytes) -> bytes | None:
        message = env.read(whole)
        self.check(message)
        kind, feature = message["kind"], env.FEATURE.get(message["kind"])
        if kind == "hello":
            return self.welcome(message)
        if not await self.may_come():
            said: Answer = refusal("not_authorized", "Say hello first.", False)
        elif feature is not None and feature not in self.owner.features:
            self.owner.faults.append(f"WF-FEA-1: {message}")
            said = refusal("unknown_kind", "This kind is not offered here.", False)
        elif kind == "knock" and self.owner.port:
            await self.owner.tell_of(message)
            said = self.owner.judge(self, message)
        elif self.stranger:
            self.owner.faults.append(f"WF-STRANGER-5: {message}")
            said = refusal("not_authorized", "Knock first.", False)
        else:
            said = await self.owner.answer(self, message)
        if said is None:
            return None
        return env.write(self.envelope(said[0], said[1], ref=message["id"]))

    def welcome(self, message: dict) -> bytes:
        """The answer to hello, as the acceptor."""
        versions = message["payload"].get("protocol_versions", [])
        if 1 not in versions:
            self.owner.faults.append(f"hello offers {versions}")
        if self.theirs is None:
            asyncio.get_running_loop().call_soon(self.greet, message["payload"])
        payload = self.hello_payload(selected_version=1)
        if self.stranger:
            # WF-STRANGER-2.
            payload |= {"features": ["knock"], "stranger": True}
            del payload["agent_name"]
        return env.write(self.envelope("hello", payload, ref=message["id"]))
