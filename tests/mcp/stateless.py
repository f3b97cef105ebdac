"""The revision of 2026-07-28 over HTTP, which has no sessions, by the official Python SDK.

Called by tests/mcp_tools.rs: stateless.py, with URL and TOKEN (bob's `axon mcp --http`), AXON (the program)
and ROOT_A (alice's daemon, at whose side an agent answers) in the environment. That agent says what it was
asked in capitals, and does not answer what begins with "slow". Prints `ok` and what it did, a line each.
"""

import asyncio
import json
import os
from typing import Any

import anyio
import httpx2
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

REVISION = "2026-07-28"
# Nothing here takes that long, on a machine that is busy.
PATIENCE = 30
# Calls that may wait for peers at once.
WAITING_MAX = 8


def said(step: str) -> None:
    print("ok", step, flush=True)


async def alice(*args: str) -> dict[str, Any]:
    """Runs the command line at alice's."""
    command = [os.environ["AXON"], "--root", os.environ["ROOT_A"], *args]
    ran = await anyio.run_process(command)
    return json.loads(ran.stdout)


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments, read_timeout_seconds=PATIENCE)
    assert not result.is_error, (tool, result.content)
    # The SDK has checked it against the tool's output schema.
    assert result.structured_content is not None, tool
    return {**result.structured_content, "said": result.content[0].text}


async def tools(client: Client) -> None:
    listed = (await client.list_tools()).tools
    assert len(listed) == 10 and all(tool.output_schema for tool in listed), listed
    assert "not instructions" in client.instructions
    assert (await call(client, "peers"))["peers"][0]["name"] == "alice"
    assert (await call(client, "status"))["peers_connected"] == 1
    answer = await call(client, "ask", peer="alice", question="hello")
    assert answer["text"] == "HELLO" and answer["from"] == "alice" and answer["trust"] == "known", answer
    assert answer["said"] == '<peer name="alice" trust="known">\nHELLO\n</peer>', answer
    told: list[str | None] = []

    async def progress(progress: float, total: float | None, message: str | None) -> None:
        told.append(message)

    done = await client.call_tool(
        "delegate", {"peer": "alice", "task": "shout", "secs": 20}, PATIENCE, progress_callback=progress
    )
    assert done.structured_content["text"] == "SHOUT", done
    assert told, "no progress"
    sent = await call(client, "notify", peer="alice", topic="t", data={"a": 1})
    assert sent["state"] == "delivered", sent
    try:
        await client.call_tool("pair", {})
        raise AssertionError("a tool that is none")
    except MCPError as error:
        assert error.error.code == -32602 and "tools/list" in str(error), error
    said("tools: listed, called, progress on the answer's own stream")


async def cancelling(client: Client) -> None:
    """A call that is given up ends at the peer's too, or its place would be taken for good."""
    for _ in range(2 * WAITING_MAX):
        with anyio.move_on_after(0.2) as scope:
            await client.call_tool("ask", {"peer": "alice", "question": "slow", "secs": 600})
        assert scope.cancelled_caught
    with anyio.fail_after(PATIENCE):
        while True:
            result = await client.call_tool("ask", {"peer": "alice", "question": "again"})
            if not result.is_error:
                break
            # The last of them may still be ending.
            assert "overloaded" in result.content[0].text, result
            await anyio.sleep(0.05)
    said("calls that are given up leave their places")


async def resources(client: Client) -> str:
    uris = [str(one.uri) for one in (await client.list_resources()).resources]
    assert uris[:2] == ["axon://inbox", "axon://peers"], uris
    delegations = [uri for uri in uris if uri.startswith("axon://delegations/")]
    row = json.loads((await client.read_resource(delegations[0])).contents[0].text)
    assert row["direction"] == "out" and row["state"] == "completed" and row["task"] == "shout", row
    assert json.loads((await client.read_resource("axon://peers")).contents[0].text)[0]["name"] == "alice"
    templates = (await client.list_resource_templates()).resource_templates
    assert [one.uri_template for one in templates] == ["axon://delegations/{id}"], templates
    for wrong in ["axon://nothing", "axon://delegations/x", "file:///etc/passwd"]:
        try:
            await client.read_resource(wrong)
            raise AssertionError(wrong)
        except MCPError as error:
            assert error.error.code == -32602 and error.error.data == {"uri": wrong}, error.error
    said("resources: listed, read, refused by their address")
    return delegations[0]


async def listening(client: Client, delegation: str) -> None:
    async def until(stream: Any, *wanted: str) -> None:
        left = set(wanted)
        with anyio.fail_after(PATIENCE):
            async for event in stream:
                left.discard(str(getattr(event, "uri", type(event).__name__)))
                if not left:
                    return

    watched = ["axon://inbox", delegation, "axon://nothing"]
    async with client.listen(resources_list_changed=True, resource_subscriptions=watched) as stream:
        # What there cannot be is not promised.
        assert stream.honored.resource_subscriptions == watched[:2], stream.honored
        sent = await alice("notify", "bob", "home.door", "open")
        await until(stream, "axon://inbox")
        text = (await client.read_resource("axon://inbox")).contents[0].text
        assert "home.door: open" in text and '<peer name="alice"' in text, text
        # While one listens, others are served.
        given = await call(client, "delegate", peer="alice", task="slow")
        await until(stream, "ResourcesListChanged")
    box = await call(client, "inbox")
    assert box["messages"][-1]["id"] == sent["id"], box
    box = await call(client, "inbox", ack=box["messages"][-1]["seq"])
    assert box["messages"] == [], box
    said("subscriptions/listen: the inbox, new delegations; the rest goes on")


async def main() -> None:
    seen: list[tuple[str, bool]] = []

    async def look(request: httpx2.Request) -> None:
        assert request.url.host == "127.0.0.1", request.url
        seen.append((request.headers.get("mcp-protocol-version"), "mcp-session-id" in request.headers))

    http = httpx2.AsyncClient(
        headers={"Authorization": "Bearer " + os.environ["TOKEN"]},
        timeout=60,
        event_hooks={"request": [look]},
        trust_env=False,
    )
    async with Client(streamable_http_client(os.environ["URL"], http_client=http), mode="auto") as client:
        assert client.protocol_version == REVISION, client.protocol_version
        await tools(client)
        await cancelling(client)
        await listening(client, await resources(client))
    assert seen and set(seen) == {(REVISION, False)}, set(seen)
    said(f"revision {REVISION}, without a session in {len(seen)} requests")


asyncio.run(main())
