"""One connection to the daemon: lines out, lines in, replies to whom they belong."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from typing import Any, Callable, Dict, Mapping, Optional, Tuple, Union

from ._errors import AxonError, closed
from ._events import Events, Json

IPC_VERSION = 2
# A command's line, without its line feed.
LINE_BYTES_MAX = 65_536
# A line of the daemon: an inbox reply, with room for the row that goes beyond its bound.
REPLY_BYTES_MAX = 2 * 1_048_576
# Commands that wait for peers, and others, of one connection at once.
PENDING_MAX = 256
# Digits of a whole number that Python reads however it is set up.
WHOLE_DIGITS_MAX = 640
# How long a command that waits for no peer may take before the daemon is held to be stuck.
PATIENCE_SECS = 10.0

Pending = Tuple["asyncio.Future[Json]", asyncio.Semaphore]


class Wire:
    """A connection, after hello. `ended` tells why it is over."""

    def __init__(
        self,
        path: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        events: Events,
        on_end: Callable[[], None],
    ) -> None:
        self.path = path
        self.ended: Optional[AxonError] = None
        self.hello: Json = {}
        self._reader = reader
        self._writer = writer
        self._events = events
        self._on_end = on_end
        self._ids = itertools.count(1)
        self._pending: Dict[str, Pending] = {}
        self._slow = asyncio.Semaphore(PENDING_MAX)
        self._quick = asyncio.Semaphore(PENDING_MAX)
        self._writing = asyncio.Lock()
        # An error that was addressed to nobody: the likely reason of the close that follows it.
        self._last_word: Optional[AxonError] = None
        self._task = asyncio.ensure_future(self._read())

    @classmethod
    async def open(
        cls,
        path: str,
        consumer: str,
        token: Optional[str],
        events: Events,
        on_end: Callable[[], None],
    ) -> Wire:
        """Connects and says hello."""
        try:
            reader, writer = await asyncio.open_unix_connection(path, limit=REPLY_BYTES_MAX)
        except (FileNotFoundError, ConnectionRefusedError):
            raise AxonError("no_daemon", _nobody(path)) from None
        except OSError as error:
            raise AxonError("io", f"cannot talk to {path}: {error}") from None
        wire = cls(path, reader, writer, events, on_end)
        try:
            hello = {"version": IPC_VERSION, "consumer": consumer}
            wire.hello = await wire.call("hello", hello, PATIENCE_SECS)
            if wire.hello.get("version") != IPC_VERSION:
                raise AxonError(
                    "unsupported_version",
                    f"the daemon speaks IPC version {wire.hello.get('version')} and this library "
                    f"{IPC_VERSION}: start a newer daemon",
                )
            if token is not None:
                await wire.call("auth", {"token": token}, PATIENCE_SECS)
        except BaseException:
            await wire.close()
            raise
        return wire

    async def call(
        self, cmd: str, fields: Mapping[str, Any], limit: Optional[float], *, slow: bool = False
    ) -> Json:
        """Sends a command and awaits its reply. Fields that are None are left out."""
        req_id = str(next(self._ids))
        line = encode(cmd, req_id, fields)
        places = self._slow if slow else self._quick
        await places.acquire()
        if self.ended is not None:
            places.release()
            raise self.ended.again()
        future: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        # Who has stopped waiting does not want the error either.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._pending[req_id] = (future, places)
        self._writer.write(line)
        try:
            async with self._writing:
                await self._writer.drain()
        except OSError:
            pass  # The reader sees the same end, with the daemon's last word before it.
        try:
            return await asyncio.wait_for(asyncio.shield(future), limit)
        except asyncio.TimeoutError:
            raise AxonError(
                "stuck", f"the daemon did not answer within {limit} s: see `axon doctor`, or start it again"
            ) from None

    async def close(self) -> None:
        """Ends the connection; what waits for a reply gets the error `closed`."""
        self._end(closed("the connection was closed here: open a new one"))
        self._task.cancel()
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            pass

    async def _read(self) -> None:
        try:
            while True:
                self._take(await self._reader.readuntil(b"\n"))
        except asyncio.IncompleteReadError:
            end = closed()
        except asyncio.LimitOverrunError:
            end = _strange("a line is too long")
        except ConnectionError:
            end = closed()
        except OSError as error:
            end = AxonError("io", f"cannot talk to {self.path}: {error}")
        except AxonError as error:
            end = error
        self._end(end)
        self._writer.close()

    def _take(self, line: bytes) -> None:
        try:
            said = json.loads(line.decode("utf-8"), parse_int=_whole)
        except (ValueError, RecursionError) as error:
            raise _strange(str(error)) from None
        if not isinstance(said, dict):
            raise _strange("a line is no object")
        if isinstance(said.get("event"), str):
            self._events.push(said, len(line))
            return
        if "ok" not in said:
            return  # A message as clients of version 1 get it: it came before the daemon had read our hello.
        failure: Optional[AxonError] = None
        if said["ok"] is not True:
            code, message = said.get("error"), said.get("message")
            failure = AxonError(
                code if isinstance(code, str) else "internal_error",
                message if isinstance(message, str) else "the daemon gave no reason: see its log",
            )
        req_id = said.get("req_id")
        if not isinstance(req_id, str):
            # The daemon could not read to whom it should answer: with a single call under way it is that.
            if len(self._pending) != 1:
                self._last_word = failure
                return
            req_id = next(iter(self._pending))
        if req_id not in self._pending:
            return
        future, places = self._pending.pop(req_id)
        places.release()
        if future.done():
            return
        if failure is not None:
            future.set_exception(failure)
        else:
            future.set_result(said)

    def _end(self, end: AxonError) -> None:
        if self.ended is not None:
            return
        self.ended = self._last_word or end
        pending, self._pending = self._pending, {}
        for future, places in pending.values():
            places.release()
            if not future.done():
                # Whatever the reason, for who waits it means that the reply will not come.
                future.set_exception(self.ended.again())
        self._on_end()


def encode(cmd: str, req_id: str, fields: Mapping[str, Any]) -> bytes:
    """A command's line, with its line feed."""
    said = {"cmd": cmd, "req_id": req_id}
    said.update((name, value) for name, value in fields.items() if value is not None)
    try:
        text = json.dumps(said, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        line = text.encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise AxonError("invalid_command", f"this cannot be written as JSON: {error}") from None
    if len(line) > LINE_BYTES_MAX:
        raise AxonError(
            "command_too_large",
            f"the command has {len(line)} bytes and {LINE_BYTES_MAX} is all that fits: shorten or split it",
        )
    return line + b"\n"


def _whole(digits: str) -> Union[int, float]:
    """A whole number. Python refuses to read very long ones, and a peer may write one: no peer is to end a
    connection by it. As everywhere where numbers are floating, too large a one is infinite."""
    return int(digits) if len(digits) <= WHOLE_DIGITS_MAX else float(digits)


def _strange(why: str) -> AxonError:
    return AxonError(
        "protocol",
        f"the daemon does not speak as expected ({why}): are this library and the daemon of one version?",
    )


def _nobody(path: str) -> str:
    above = os.path.dirname(path)
    if os.path.basename(os.path.dirname(above)) == "sockets":
        return f"nobody listens on {path}: its daemon is down, or it was removed"
    return f"no daemon runs on {above}: start one with `axon --root {above} daemon`"
