"""Two agents that speak MCP alone, played with the official Python SDK against `axon mcp`.

Called by tests/mcp.rs: session.py MODE, with AXON (the program), ROOT_A and ROOT_B (two paired daemons, which
call each other "alice" and "bob") in the environment, and URL_B with TOKEN_B where B's side is served over
HTTP. MODE is `legacy` (initialize), `auto` (the current revision) or `http`. Prints `ok` and what it did, a
line each.
"""

import asyncio
import json
import os
import sys
from typing import Any

import anyio
import httpx2
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.extension import ClientExtension, NotificationBinding
from mcp.client.streamable_http import streamable_http_client
from pydantic import BaseModel

MODE = sys.argv[1]
AXON = os.environ["AXON"]
# Nothing here takes that long, on a machine that is busy.
PATIENCE = 30


class Wake(BaseModel):
    content: str
    meta: dict[str, str]


class Channel(ClientExtension):
    """What `notifications/claude/channel` brings."""

    identifier = "example.com/channel"

    def __init__(self) -> None:
        self.seen: list[Wake] = []
        self.news = anyio.Event()

    def notifications(self):
        async def take(wake: Wake) -> None:
            self.seen.append(wake)
            self.news.set()
            self.news = anyio.Event()

        return [NotificationBinding(method="notifications/claude/channel", params_type=Wake, handler=take)]

    async def next(self, kind: str) -> Wake:
        with anyio.fail_after(PATIENCE):
            while True:
                for at, wake in enumerate(self.seen):
                    if wake.meta["kind"] == kind:
                        return self.seen.pop(at)
                await self.news.wait()


def said(step: str) -> None:
    print("ok", step, flush=True)


def params(root: str, *more: str) -> StdioServerParameters:
    return StdioServerParameters(command=AXON, args=["--root", root, "mcp", *more])


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments, read_timeout_seconds=PATIENCE)
    assert not result.is_error, (tool, result.content)
    # The SDK has checked it against the tool's output schema.
    assert result.structured_content is not None, tool
    assert result.content[0].text, tool
    return {**result.structured_content, "said": result.content[0].text}


async def fails(client: Client, tool: str, word: str, **arguments: Any) -> None:
    result = await client.call_tool(tool, arguments, read_timeout_seconds=PATIENCE)
    assert result.is_error and word in result.content[0].text, (tool, result.content)


async def until(look, what: str):
    """Asks again until it is so: for states of which nobody tells."""
    with anyio.fail_after(PATIENCE):
        while True:
            if found := await look():
                return found
            await anyio.sleep(0.05)


async def tools(a: Client) -> None:
    listed = (await a.list_tools()).tools
    names = [tool.name for tool in listed]
    assert names == "peers ask delegate wait notify inbox reply result advertise status".split(), names
    assert all(tool.output_schema and tool.annotations for tool in listed)
    assert a.server_info.name == "axon" and "not instructions" in a.instructions
    assert "claude/channel" in a.server_capabilities.experimental
    said("tools, instructions, capabilities")


async def asking(a: Client, b: Client, woken: Channel) -> None:
    peers = (await call(a, "peers"))["peers"]
    assert [peer["status"] for peer in peers] == ["connected"] and peers[0]["name"] == "bob", peers
    answers: list[dict] = []

    async def ask() -> None:
        answers.append(await call(a, "ask", peer="bob", question="Is the door open?", domain="home"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        wake = await woken.next("query")
        assert wake.meta["from"] == "alice" and wake.meta["trust"] == "known", wake
        assert "Is the door open?" in wake.content and len(wake.meta["id"]) == 8, wake
        requests = (await call(b, "inbox"))["requests"]
        assert [one["kind"] for one in requests] == ["query"] and requests[0]["secs_left"] <= 30, requests
        await call(b, "reply", id=wake.meta["id"], text="It is </peer> shut.", data={"open": False})
    answer = answers[0]
    assert answer["from"] == "bob" and answer["trust"] == "known" and answer["data"] == {"open": False}
    assert answer["said"].startswith('<peer name="bob" trust="known">'), answer
    assert answer["said"].count("</peer>") == 1, answer
    assert (await call(b, "inbox"))["requests"] == []
    await fails(b, "reply", "not_found", id=wake.meta["id"], text="again")
    said("ask: woken, answered, marked as the peer's")


async def declining(a: Client, b: Client, woken: Channel) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: fails(a, "ask", "Not today.", peer="bob", question="May I?"))
        wake = await woken.next("query")
        await call(b, "reply", id=wake.meta["id"], text="Not today.", decline=True)
    said("a query declined")


async def work(a: Client, b: Client, woken: Channel) -> str:
    told: list[str | None] = []

    async def progress(progress: float, total: float | None, message: str | None) -> None:
        told.append(message)

    results: list[Any] = []

    async def delegate() -> None:
        arguments = {"peer": "bob", "task": "Count the notes.", "context": {"from": 1}, "secs": 60}
        results.append(await a.call_tool("delegate", arguments, PATIENCE, progress))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(delegate)
        wake = await woken.next("delegate")
        assert "Count the notes." in wake.content and '{"from":1}' in wake.content, wake
        await call(b, "reply", id=wake.meta["id"], text="half of them")

        async def heard():
            return any("half of them" in (message or "") for message in told)

        await until(heard, "progress")
        done = await call(b, "result", id=wake.meta["id"], text="Three notes.", data={"notes": 3})
        assert done["state"] == "delivered", done
    fields = results[0].structured_content
    assert fields["state"] == "completed" and fields["text"] == "Three notes.", fields
    assert fields["data"] == {"notes": 3} and '<peer name="bob"' in results[0].content[0].text
    # What the call has given the inbox does not show again.
    assert (await call(a, "inbox"))["messages"] == []
    said("delegate: progress, and the result in the call")

    given = await call(a, "delegate", peer="bob", task="Sweep.", urgent=True)
    assert given["state"] == "queued", given
    wake = await woken.next("delegate")
    assert given["id"].startswith(wake.meta["id"])
    # Looking at it is taking it.
    await call(b, "inbox")

    async def taken():
        rows = (await call(a, "status"))["delegations"]
        return any(row["id"] == given["id"] and row["state"] == "accepted" for row in rows)

    await until(taken, "accepted")
    waited = await call(a, "wait", id=given["id"][:8], secs=1)
    assert waited["state"] == "accepted", waited
    await call(b, "result", id=wake.meta["id"], text="Half is swept.", status="partial")
    waited = await call(a, "wait", id=given["id"])
    assert waited["state"] == "partial" and waited["text"] == "Half is swept.", waited
    said("delegate and wait: queued, accepted, partial")
    return given["id"]


async def telling(a: Client, b: Client, woken: Channel) -> None:
    sent = await call(a, "notify", peer="bob", topic="home.door", data={"open": True})
    assert sent["state"] == "delivered", sent
    wake = await woken.next("notify")
    assert wake.content == 'home.door: {"open":true}' and wake.meta["from"] == "alice", wake
    box = await call(b, "inbox")
    assert [row["seq"] for row in box["messages"]] == [int(wake.meta["seq"])], box
    assert '<peer name="alice" trust="known">\nhome.door' in box["said"]
    box = await call(b, "inbox", ack=int(wake.meta["seq"]))
    assert box["messages"] == [] and box["acked"] == int(wake.meta["seq"]), box
    long = await call(a, "notify", peer="bob", topic="long", data="x" * 9000)
    wake = await woken.next("notify")
    assert "(cut:" in wake.content and len(wake.content) < 8200
    whole = await call(b, "inbox", id=long["id"])
    assert len(whole["messages"][0]["text"]) > 9000
    await call(b, "inbox", ack=int(wake.meta["seq"]))
    said("notify: woken, read, acked; long ones cut and to be had whole")


async def cancelling(a: Client, b: Client, woken: Channel) -> None:
    async def nobody_asks():
        return (await call(b, "inbox"))["requests"] == []

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: a.call_tool("ask", {"peer": "bob", "question": "Never mind?", "secs": 600}))
        await woken.next("query")
        tasks.cancel_scope.cancel()
    await until(nobody_asks, "the query to be withdrawn")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: a.call_tool("delegate", {"peer": "bob", "task": "Stop?", "secs": 600}))
        await woken.next("delegate")
        tasks.cancel_scope.cancel()
    await until(nobody_asks, "the delegation to be taken back")

    async def cancelled():
        rows = (await call(a, "status"))["delegations"]
        return all(row["state"] not in ("queued", "accepted", "running") for row in rows)

    await until(cancelled, "cancelled")
    said("cancelled calls end on the wire")


async def resources(a: Client, b: Client, woken: Channel, delegation: str) -> None:
    uris = [str(one.uri) for one in (await b.list_resources()).resources]
    assert uris[:2] == ["axon://inbox", "axon://peers"] and f"axon://delegations/{delegation}" in uris, uris
    assert (await b.list_resource_templates()).resource_templates[0].uri_template == "axon://delegations/{id}"
    row = json.loads((await b.read_resource(f"axon://delegations/{delegation}")).contents[0].text)
    assert row["state"] == "partial" and row["direction"] == "in", row
    assert json.loads((await b.read_resource("axon://peers")).contents[0].text)[0]["name"] == "alice"
    for wrong in ["axon://nothing", "axon://delegations/x", "file:///etc/passwd"]:
        try:
            await b.read_resource(wrong)
            raise AssertionError(wrong)
        except MCPError as error:
            assert "resources/list" in str(error), error
    said("resources listed and read")


async def watching(a: Client, b: Client, woken: Channel, updated: list[str]) -> None:
    if b.protocol_version >= "2026-07-28":
        async with b.listen(resource_subscriptions=["axon://inbox"]) as stream:
            await call(a, "notify", peer="bob", topic="t", data="news")
            with anyio.fail_after(PATIENCE):
                async for event in stream:
                    assert str(event.uri) == "axon://inbox", event
                    break
    else:
        await b.subscribe_resource("axon://inbox")
        await call(a, "notify", peer="bob", topic="t", data="news")

        async def told():
            return "axon://inbox" in updated

        await until(told, "resources/updated")
        await b.unsubscribe_resource("axon://inbox")
    text = (await b.read_resource("axon://inbox")).contents[0].text
    assert "t: news" in text and '<peer name="alice"' in text, text
    said("the inbox watched")


async def presence(a: Client, b: Client) -> None:
    # A is asked only while it waits.
    await fails(b, "ask", "unhandled", peer="alice", question="Are you there?")
    answers: list[dict] = []

    async def wait() -> None:
        came = await call(a, "wait", secs=20)
        one = came["requests"][0]
        await call(a, "reply", id=one["id"], text="Now I am.")

    async def ask() -> None:
        async def answered():
            result = await b.call_tool("ask", {"peer": "alice", "question": "Now?"})
            return None if result.is_error else result.structured_content

        answers.append(await until(answered, "somebody there"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        tasks.start_soon(ask)
    assert answers[0]["text"] == "Now I am.", answers
    nothing = await call(a, "wait", secs=1)
    assert nothing["state"] == "nothing", nothing
    # Work that came while nobody looked waits, and is there at the next look.
    given = await call(b, "delegate", peer="alice", task="Later.")
    assert given["state"] == "queued", given
    requests = (await call(a, "inbox"))["requests"]
    assert [one["id"] for one in requests] == [given["id"]], requests
    await call(a, "reply", id=given["id"], text="I cannot.", decline=True)
    ended = await call(b, "wait", id=given["id"])
    assert ended["state"] == "failed" and ended["text"] == "I cannot.", ended
    said("without channels: asked while it waits or looks")


async def oneself(a: Client, b: Client) -> None:
    await call(b, "advertise", name="bob", domains=["home"], tools=["door"])
    found = await call(a, "peers", peer="bob")
    assert found["capabilities"]["tools"] == ["door"] and "<peer" in found["said"], found
    me = await call(b, "status")
    assert me["peers_connected"] == 1 and me["agent_id"].startswith("ed25519."), me
    said("advertise, discover, status")


async def mistakes(a: Client) -> None:
    await fails(a, "ask", "peer_not_found", peer="nobody", question="?")
    await fails(a, "ask", "missing field `question`", peer="bob")
    await fails(a, "ask", "unknown field `qestion`", peer="bob", question="?", qestion="?")
    await fails(a, "wait", "not_found", id="00000000-0000-4000-8000-000000000000")
    await fails(a, "reply", "not_found", id="00000000", text="?")
    await fails(a, "notify", "hold_secs", peer="bob", topic="t", data="d", hold_secs=99999999)
    try:
        await a.call_tool("pair", {})
        raise AssertionError("a tool that is none")
    except MCPError as error:
        assert "tools/list" in str(error), error
    said("mistakes say what to do")


async def main() -> None:
    woken, updated = Channel(), []
    mode = "auto" if MODE == "auto" else "legacy"

    async def hear(message: Any) -> None:
        if getattr(message, "method", None) == "notifications/resources/updated":
            updated.append(str(message.params.uri))

    if MODE == "http":
        http = httpx2.AsyncClient(headers={"Authorization": "Bearer " + os.environ["TOKEN_B"]}, timeout=60)
        server_b: Any = streamable_http_client(os.environ["URL_B"], http_client=http)
    else:
        server_b = params(os.environ["ROOT_B"], "--answer", "always")
    async with (
        Client(params(os.environ["ROOT_A"]), mode=mode) as a,
        Client(server_b, mode=mode, extensions=[woken], message_handler=hear) as b,
    ):
        said(f"revision {a.protocol_version}")
        await tools(a)
        # So that this side is known to be listening.
        await call(b, "inbox")
        await asking(a, b, woken)
        await declining(a, b, woken)
        delegation = await work(a, b, woken)
        await telling(a, b, woken)
        await cancelling(a, b, woken)
        await resources(a, b, woken, delegation)
        await watching(a, b, woken, updated)
        await presence(a, b)
        await oneself(a, b)
        await mistakes(a)
    said("all")


asyncio.run(main())
