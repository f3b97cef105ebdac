"""The pipe, by WIRE_FORMAT 4.1."""

import asyncio

MESSAGE_MAX = 65_536
TELL, ASK, ANSWER, NONE, DROP, HEARD = 1, 2, 3, 4, 5, 6


class Violation(Exception):
    """What WF-PIPE-8 lists: the connection is closed with code 4."""


def record(sort: int, number: int, body: bytes = b"") -> bytes:
    return bytes([sort]) + len(body).to_bytes(3, "big") + number.to_bytes(4, "big") + body


class Pipe:
    """Both directions of it, on one connection."""

    def __init__(self, link) -> None:
        self.link = link
        self.out: int | None = None
        self.number = 0
        self.asked: dict[int, asyncio.Future] = {}
        self.told: dict[int, asyncio.Future] = {}
        self.stream: int | None = None
        self.buffer = bytearray()
        self.begun = False
        self.open: set[int] = set()
        self.last_tell = 0
        self.records = {sort: 0 for sort in range(1, 7)}

    def waiting(self) -> list[asyncio.Future]:
        return [*self.asked.values(), *self.told.values()]

    # What is sent.

    def put(self, data: bytes) -> None:
        if self.out is None:
            self.out = self.link._quic.get_next_available_stream_id(is_unidirectional=True)
            data = b"\x01" + data
        self.link.write(self.out, data, end=False)

    def next(self) -> int:
        self.number += 1
        return self.number

    async def ask(self, body: bytes) -> bytes | None:
        """The answer; None where there is none."""
        number = self.next()
        waiting = asyncio.get_running_loop().create_future()
        self.asked[number] = waiting
        self.put(record(ASK, number, body))
        return await waiting

    async def tell(self, body: bytes) -> None:
        """Returns when it was heard (WF-PIPE-7)."""
        number = self.next()
        waiting = asyncio.get_running_loop().create_future()
        self.told[number] = waiting
        self.put(record(TELL, number, body))
        await waiting

    def drop(self, number: int) -> None:
        self.put(record(DROP, number))

    # What comes.

    def takes(self, stream: int, beginning: bytes) -> bool:
        """Whether this stream of the other side is the pipe, or a second one."""
        return stream == self.stream or beginning[:1] == b"\x01"

    def feed(self, stream: int, data: bytes, end: bool) -> None:
        if self.stream is None:
            self.stream = stream
        elif stream != self.stream:
            raise Violation("a second pipe")
        self.buffer += data
        if not self.begun and self.buffer:
            del self.buffer[0]
            self.begun = True
        while len(self.buffer) >= 8:
            length = int.from_bytes(self.buffer[1:4], "big")
            if length > MESSAGE_MAX:
                raise Violation("a record is too long")
            if len(self.buffer) < 8 + length:
                break
            sort, number = self.buffer[0], int.from_bytes(self.buffer[4:8], "big")
            body = bytes(self.buffer[8 : 8 + length])
            del self.buffer[: 8 + length]
            self.take(sort, number, body)
        if end and self.buffer:
            raise Violation("a pipe ended within a record")

    def take(self, sort: int, number: int, body: bytes) -> None:
        if sort in self.records:
            self.records[sort] += 1
        if sort == TELL:
            if number <= self.last_tell:
                raise Violation("a tell goes back")
            self.last_tell = number
            self.link.later(self.link.one_way(body))
            self.put(record(HEARD, number))
        elif sort == ASK:
            if number in self.open or len(self.open) >= 256:
                raise Violation("an ask too many")
            self.open.add(number)
            self.link.later(self.serve(number, body))
        elif sort in (ANSWER, NONE):
            if number not in self.asked:
                raise Violation("an answer to no ask")
            waiting = self.asked.pop(number)
            if not waiting.done():
                waiting.set_result(body if sort == ANSWER else None)
        elif sort == HEARD:
            if number not in self.told:
                raise Violation("heard of no tell")
            for told in [told for told in self.told if told <= number]:
                self.told.pop(told).set_result(None)

    async def serve(self, number: int, body: bytes) -> None:
        answer = await self.link.answer_to(body)
        self.open.discard(number)
        self.put(record(NONE, number) if answer is None else record(ANSWER, number, answer))
