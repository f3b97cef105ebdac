"""A client of the Unix socket, by IPC.md."""

import asyncio
import json
from typing import Any, Callable

PATIENCE = 8.0


class Client:
    """One connection of version 2."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.number = 0
        self.replies: dict[str, asyncio.Future] = {}
        self.events: list[dict] = []
        self.news = asyncio.Condition()
        self.task = asyncio.ensure_future(self.read())
        self.hello: dict = {}

    @classmethod
    async def open(cls, path: str, consumer: str = "default") -> "Client":
        # IPC 11: lines of up to 2 MiB.
        client = cls(*await asyncio.open_unix_connection(path, limit=2 << 20))
        client.hello = await client.ok("hello", version=2, consumer=consumer)
        return client

    async def read(self) -> None:
        while line := await self.reader.readline():
            said = json.loads(line)
            if "ok" in said:
                waiting = self.replies.pop(said.get("req_id"), None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(said)
            elif "event" in said:
                async with self.news:
                    self.events.append(said)
                    self.news.notify_all()

    def begin(self, cmd: str, **fields: Any) -> asyncio.Future:
        """Gives a command, and what will be its reply."""
        self.number += 1
        req_id = f"p{self.number}"
        waiting = asyncio.get_running_loop().create_future()
        self.replies[req_id] = waiting
        line = json.dumps({"cmd": cmd, "req_id": req_id} | fields, separators=(",", ":"))
        self.writer.write(line.encode() + b"\n")
        return waiting

    async def cmd(self, cmd: str, **fields: Any) -> dict:
        return await asyncio.wait_for(self.begin(cmd, **fields), PATIENCE)

    async def ok(self, cmd: str, **fields: Any) -> dict:
        reply = await self.cmd(cmd, **fields)
        assert reply["ok"] is True, f"{cmd} {fields}: {reply}"
        return reply

    async def fails(self, code: str, cmd: str, **fields: Any) -> str:
        reply = await self.cmd(cmd, **fields)
        assert reply["ok"] is False and reply["error"] == code, f"{cmd} {fields}: {reply}"
        return reply["message"]

    async def event(self, fits: Callable[[dict], bool], patience: float | None = PATIENCE) -> dict:
        """The first event, from now or before, for which this holds; takes it."""

        def look() -> dict | None:
            return next((event for event in self.events if fits(event)), None)

        async with self.news:
            await asyncio.wait_for(self.news.wait_for(lambda: look() is not None), patience)
            found = look()
            self.events.remove(found)
            return found

    async def request(self, kind: str, patience: float | None = PATIENCE) -> dict:
        """The next request of this kind that is handed to this client: its envelope."""
        event = await self.event(
            lambda event: event["event"] == "inbound"
            and event.get("answer") is True
            and event["envelope"]["kind"] == kind,
            patience,
        )
        return event["envelope"]

    async def reply(self, request: dict, kind: str, payload: dict, **more: Any) -> dict:
        return await self.ok("reply", ref=request["id"], kind=kind, payload=payload, **more)

    async def close(self) -> None:
        self.task.cancel()
        self.writer.close()
        await self.writer.wait_closed()
