"""The clients of one side. Each goes on by itself when it was cut off or its daemon has ended."""

import asyncio
import json
import os
import random
import subprocess
from typing import Any

from book import Book
from ipc import Client

PATIENCE = 60.0


class Lost(Exception):
    """The connection is gone, and what was asked on it has no answer."""


class Socket(Client):
    """A client that hears of the end, and looks that each command has one reply."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.gone = asyncio.Event()
        self.strange: list[dict] = []
        super().__init__(reader, writer)

    async def read(self) -> None:
        try:
            while line := await self.reader.readline():
                if not line.endswith(b"\n"):
                    break
                said = json.loads(line)
                if "ok" not in said and "event" not in said:
                    # Until it has said hello, a client is one of version 1, and is shown what comes.
                    if self.hello:
                        self.strange.append(said)
                elif "ok" not in said:
                    async with self.news:
                        self.events.append(said)
                        self.news.notify_all()
                elif (waiting := self.replies.pop(said.get("req_id"), None)) is None:
                    self.strange.append(said)
                elif not waiting.done():
                    waiting.set_result(said)
        except OSError:
            pass
        finally:
            self.gone.set()
            for waiting in self.replies.values():
                if not waiting.done():
                    waiting.set_exception(Lost())
                    # Nobody may be waiting any more.
                    waiting.exception()
            async with self.news:
                self.news.notify_all()

    def begin(self, cmd: str, **fields: Any) -> asyncio.Future:
        if self.gone.is_set():
            raise Lost
        return super().begin(cmd, **fields)

    async def cmd(self, cmd: str, **fields: Any) -> dict:
        return await asyncio.wait_for(self.begin(cmd, **fields), PATIENCE)

    async def next(self) -> dict:
        """The next event."""
        async with self.news:
            await self.news.wait_for(lambda: self.events or self.gone.is_set())
            if not self.events:
                raise Lost
            return self.events.pop(0)

    def abort(self) -> None:
        self.writer.transport.abort()

    async def close(self) -> None:
        self.writer.close()
        await self.task


class Actor:
    """One client, over all its connections."""

    consumer = "nobody"

    def __init__(self, side, other: str, book: Book, rng: random.Random, rate: float) -> None:
        self.side, self.other, self.book, self.random = side, other, book, random.Random(rng.random())
        # Of both sides: of ten messages six are notifications, three queries, one a delegation.
        self.rate = rate / 2
        self.quiet = self.over = False
        self.socket: Socket | None = None

    async def run(self) -> None:
        # `wait_for` may lose a cancellation when what it waits for ends at the same time.
        while not self.over:
            await self.side.up.wait()
            try:
                self.socket = await Socket.open(self.side.path, self.consumer)
                await self.play(self.socket)
            except TimeoutError:
                self.book.wrong(f"{self.side.name}: {self.consumer} has had no reply in {PATIENCE} s")
            except AssertionError as refused:
                self.book.wrong(f"{self.side.name}: {self.consumer} is refused: {refused}")
                await asyncio.sleep(0.2)
            except (Lost, OSError):
                # The daemon has ended, or this was cut off.
                await asyncio.sleep(0.02)
            finally:
                if self.socket is not None:
                    if self.socket.strange:
                        self.book.wrong(f"{self.consumer} was told unasked: {self.socket.strange[0]}")
                    self.socket.abort()
                    await self.socket.task
                    self.socket = None

    def end(self) -> None:
        self.over = True
        self.cut()

    def cut(self) -> bool:
        """Ends the connection as the end of the process would."""
        if self.socket is not None:
            self.socket.abort()
        return self.socket is not None

    async def play(self, socket: Socket) -> None:
        raise NotImplementedError

    async def pace(self, a_second: float) -> None:
        """So long, and as long as all is quiet."""
        await asyncio.sleep(self.random.uniform(0.5, 1.5) / a_second)
        while self.quiet:
            if self.socket.gone.is_set():
                raise Lost
            await asyncio.sleep(0.2)


class Sender(Actor):
    """Sends notifications that are held and kept."""

    consumer = "sender"

    async def play(self, socket: Socket) -> None:
        while True:
            number = self.book.next()
            fill = "x" * self.random.choice([10, 100, 100, 1000, 10_000])
            payload = {"topic": "soak", "data": {"number": number, "fill": fill}}
            sent = socket.begin("send", to=self.other, kind="notify", payload=payload, hold_secs=3600)
            sent.add_done_callback(lambda sent, number=number: self.noted(sent, number))
            await self.pace(0.6 * self.rate)

    def noted(self, sent: asyncio.Future, number: int) -> None:
        if sent.cancelled() or sent.exception() is not None:
            self.book.count("notifications without a reply")
        elif sent.result()["ok"]:
            self.book.promised[number] = self.other
        else:
            self.book.count(f"notifications refused: {sent.result()['error']}")


class Reader(Actor):
    """Reads and acks the inbox, told by events that there is something."""

    consumer = "reader"

    async def play(self, socket: Socket) -> None:
        await socket.ok("subscribe", kinds=["notify", "result"], replay=False)
        while True:
            news = await socket.ok("inbox", limit=200)
            if news.get("lost_before_seq") is not None:
                self.book.wrong(f"{self.side.name}: rows were lost: {news['lost_before_seq']}")
            for row in news["messages"]:
                self.book.row(self.side.name, row)
            if news["messages"]:
                last = news["messages"][-1]["seq"]
                await socket.ok("ack", up_to_seq=last)
                self.book.acked[self.side.name] = last
            else:
                socket.events.clear()
                try:
                    await asyncio.wait_for(socket.next(), 1.0)
                except asyncio.TimeoutError:
                    pass
            # Some at a time.
            await asyncio.sleep(0.05)


class Agent(Actor):
    """Answers."""

    consumer = "agent"

    async def play(self, socket: Socket) -> None:
        await socket.ok("subscribe", answer=["query", "delegate", "cancel"], capacity=32)
        under_way: set[asyncio.Task] = set()
        try:
            while True:
                event = await socket.next()
                if event["event"] == "inbound" and event.get("answer") is True:
                    task = asyncio.ensure_future(self.answer(socket, event["envelope"]))
                    under_way.add(task)
                    task.add_done_callback(under_way.discard)
        finally:
            for task in under_way:
                task.cancel()

    async def answer(self, socket: Socket, request: dict) -> None:
        try:
            if request["kind"] == "query":
                await self.say(socket, request, "response", {"summary": request["payload"]["question"]})
            elif request["kind"] == "delegate" and self.random.random() < 0.1:
                await self.say(socket, request, "ack", {"accepted": False, "reason": "no time"})
            elif request["kind"] == "delegate":
                await self.say(socket, request, "ack", {"accepted": True})
                await asyncio.sleep(self.random.uniform(0, 1))
                await self.say(socket, request, "progress", {"state": "running", "percent": 50})
                await asyncio.sleep(self.random.uniform(0, 1))
                outcome = {"status": "completed", "outcome": request["payload"]["task"]}
                await self.say(socket, request, "result", outcome)
            else:
                await self.say(socket, request, "ack", {"accepted": False})
        except Lost:
            pass

    async def say(self, socket: Socket, request: dict, kind: str, payload: dict) -> None:
        reply = await socket.cmd("reply", ref=request["id"], kind=kind, payload=payload)
        self.book.count("answers given" if reply["ok"] else f"answers refused: {reply['error']}")


class Asker(Actor):
    """Asks, delegates, and finds out what became of its delegations."""

    consumer = "asker"

    async def play(self, socket: Socket) -> None:
        settling = asyncio.ensure_future(self.settle(socket))
        try:
            turn = 0
            while True:
                turn += 1
                if turn % 4:
                    self.ask(socket)
                else:
                    self.delegate(socket)
                await self.pace(0.4 * self.rate)
        finally:
            settling.cancel()

    def ask(self, socket: Socket) -> None:
        question = f"question {self.book.next()}"
        asked = socket.begin("send", to=self.other, kind="query", payload={"question": question})

        def answered(asked: asyncio.Future) -> None:
            if asked.cancelled() or asked.exception() is not None:
                self.book.count("queries without a reply")
            elif not asked.result()["ok"]:
                self.book.count(f"queries failed: {asked.result()['error']}")
            elif (response := asked.result()["response"])["kind"] != "response":
                self.book.count(f"queries refused: {response['payload'].get('code')}")
            elif response["payload"]["summary"] != question:
                self.book.wrong(f"{self.side.name}: {question} was answered by {response['payload']}")
            else:
                self.book.count("queries answered")

        asked.add_done_callback(answered)

    def delegate(self, socket: Socket) -> None:
        payload = {"task": f"task {self.book.next()}"}
        given = socket.begin("send", to=self.other, kind="delegate", payload=payload, hold_secs=3600)

        def noted(given: asyncio.Future) -> None:
            if given.cancelled() or given.exception() is not None:
                self.book.count("delegations without a reply")
            elif given.result()["ok"]:
                self.book.open[given.result()["msg_id"]] = self.side.name
            else:
                self.book.count(f"delegations not sent: {given.result()['error']}")

        given.add_done_callback(noted)

    async def settle(self, socket: Socket) -> None:
        """Asks the ledger what has ended, so that its oldest rows may go."""
        over = ("completed", "failed", "partial", "cancelled", "refused", "expired")
        try:
            while True:
                await asyncio.sleep(1)
                mine = [one for one, name in self.book.open.items() if name == self.side.name]
                for one in mine[:100]:
                    rows = (await socket.ok("delegations", id=one))["delegations"]
                    state = rows[0]["state"] if rows else "not in the ledger"
                    if state in over or not rows:
                        del self.book.open[one]
                        self.book.over[one] = state
                    if not rows:
                        self.book.wrong(f"{self.side.name}: delegation {one} is not in the ledger")
        except Lost:
            pass


class Visitor(Actor):
    """Comes and goes."""

    consumer = "visitor"

    async def play(self, socket: Socket) -> None:
        await self.pace(2)
        self.book.count("visits")
        if self.random.random() < 0.5:
            await self.listen()
            return
        for _ in range(self.random.randrange(4)):
            await socket.ok("subscribe", kinds=["notify"], replay=self.random.random() < 0.5)
            await socket.ok(self.random.choice(["peers", "status", "inbox", "outbox", "delegations"]))
            await socket.ok("subscribe", kinds=[])
        if self.random.random() < 0.5:
            socket.writer.write(b'{"cmd":"inb')
        # It ends here, perhaps in the middle of a line.

    async def listen(self) -> None:
        """A process of its own, which ends as badly as one can."""
        listening = subprocess.Popen(
            [self.side.axon, "--root", self.side.root, "listen", "--consumer", "visitor"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"HOME": str(self.side.place)},
        )
        try:
            await asyncio.sleep(self.random.uniform(0, 0.5))
        finally:
            listening.kill()
            listening.wait()


ROLES = (Sender, Reader, Agent, Asker, Visitor)
