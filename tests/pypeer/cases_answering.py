"""An agent of the daemon asks, and the peer answers."""

import asyncio

import envelope as env
from cases_asking import ask_the_daemon
from identity import agent_id
from ipc import Client
from peer import Link, Peer
from world import SOCKET, case, is_error, pair, paired, place


async def daemon_asks(client: Client, peer: Peer, link: Link) -> None:
    """Every core kind from the daemon to the peer."""
    to = peer.me.id

    async def send(kind: str, payload: dict, **more) -> dict:
        return await client.ok("send", to=to, kind=kind, payload=payload, **more)

    pong = (await send("ping", {}))["response"]
    assert pong["kind"] == "pong" and pong["payload"]["status"] == "idle", pong
    able = (await send("discover", {}))["response"]
    assert able["payload"]["x-odd"] == [1, None] and able["payload"]["domains"] == ["python"], able
    refused = (await send("query", {"question": "Hm?"}))["response"]
    is_error(refused, "unhandled")

    async def respond(_link, query):
        return "response", {"data": query["payload"], "summary": "é " + query["payload"]["question"]}

    peer.agents["query"] = respond
    said = (await send("query", {"question": "Who?", "domain": "a.b", "odd": {"z": None}}))["response"]
    assert said["payload"]["data"]["odd"] == {"z": None} and said["payload"]["summary"] == "é Who?", said

    async def odd(_link, _query):
        return "error", {"code": "my_own_code", "message": "Ask differently.", "retryable": True}

    peer.agents["query"] = odd
    said = (await send("query", {"question": "Who?"}))["response"]
    assert said["payload"]["code"] == "my_own_code", said

    async def nothing(_link, _query):
        return None

    peer.agents["query"] = nothing
    await client.fails("peer_unreachable", "send", to=to, kind="query", payload={"question": "Reset?"})

    async def wrong(_link, _query):
        return "pong", {"status": "idle", "uptime_secs": 1, "active_tasks": 0}

    # WF-ERR-4: an answer of a known kind that may not answer that request counts as none.
    peer.agents["query"] = wrong
    reply = await client.cmd("send", to=to, kind="query", payload={"question": "Wrong?"})
    assert (reply["ok"], reply["error"]) == (False, "peer_unreachable"), reply

    receipts = "receipt" in peer.features
    told = await send("notify", {"topic": "to.python", "data": [1]})
    assert told["state"] == ("delivered" if receipts else "sent"), told
    news = await peer.wait_heard(lambda said: said["kind"] == "notify")
    assert news["id"] == told["msg_id"] and news["payload"] == {"topic": "to.python", "data": [1]}, news

    if receipts:
        await receipts_of_the_peer(client, peer, link)
    await daemon_delegates(client, peer, link)


async def receipts_of_the_peer(client: Client, peer: Peer, link: Link) -> None:
    """A message that is read, one that is refused, and a receipt of somebody else."""
    to = peer.me.id
    payload = {"topic": "read.me", "data": 1}
    told = await client.ok("send", to=to, kind="notify", payload=payload, read_receipt=True)
    news = await peer.wait_heard(lambda said: said["kind"] == "notify")
    assert news["read_receipt"] is True, news
    read = await link.tell("receipt", {"state": "read"}, ref=news["id"])
    assert read["payload"] == {"accepted": True}, read
    event = await client.event(lambda event: event["event"] == "delivery")
    assert (event["id"], event["state"]) == (told["msg_id"], "read"), event

    async def full(_link, _message):
        return "error", {"code": "overloaded", "message": "Full.", "retryable": True}

    peer.agents["notify"] = full
    await client.fails("overloaded", "send", to=to, kind="notify", payload=payload)
    del peer.agents["notify"]


async def daemon_delegates(client: Client, peer: Peer, link: Link) -> None:
    """Delegations to the peer: acked, reported on, ended; cancelled; and a second result."""
    to = peer.me.id

    async def take(_link, _task):
        return "ack", {"accepted": True, "estimated_ms": 9}

    async def stop(_link, _cancel):
        return "ack", {"accepted": True}

    peer.agents |= {"delegate": take, "cancel": stop}
    said = await client.ok("send", to=to, kind="delegate", payload={"task": "Do it."})
    assert said["response"]["payload"] == {"accepted": True, "estimated_ms": 9}, said
    task = await peer.wait_heard(lambda heard: heard["kind"] == "delegate")
    assert task["id"] == said["msg_id"], task
    await link.tell("progress", {"state": "running", "percent": 10}, ref=task["id"])

    async def row(state: str) -> dict:
        for _ in range(400):
            found = (await client.ok("delegations", id=task["id"]))["delegations"][0]
            if found["state"] == state:
                return found
            await asyncio.sleep(0.02)
        raise AssertionError(f"not {state}: {found}")

    assert (await row("running"))["progress"]["percent"] == 10
    result = link.envelope("result", {"status": "partial", "outcome": "Half."}, ref=task["id"])
    if "receipt" in peer.features:
        assert (await link.ask(result))["kind"] == "ack"
        # WF-REF-6: the same one has its receipt again. WF-REF-4: another is nobody's.
        assert (await link.ask(result))["kind"] == "ack"
        other = await link.tell("result", {"status": "completed", "outcome": "More."}, ref=task["id"])
        is_error(other, "not_authorized")
        other = await link.tell("progress", {"state": "running"}, ref=env.new_id())
        is_error(other, "not_authorized")
    else:
        link.begin(env.write(result))
    assert (await row("partial"))["result"]["outcome"] == "Half."

    said = await client.ok("send", to=to, kind="delegate", payload={"task": "Stop it."})
    task = await peer.wait_heard(lambda heard: heard["kind"] == "delegate")
    stopped = await client.ok("send", kind="cancel", ref=task["id"], payload={"reason": "enough"})
    assert stopped["response"]["payload"] == {"accepted": True}, stopped
    cancel = await peer.wait_heard(lambda heard: heard["kind"] == "cancel")
    assert cancel["ref"] == task["id"] and cancel["payload"] == {"reason": "enough"}, cancel
    await row("cancelled")


@case
async def daemon_asks_and_the_peer_answers():
    # shows: IPC-SEND-2, IPC-SEND-5, IPC-SEND-6, IPC-SEND-7, WF-ENV-1, WF-ENV-6, WF-ERR-4, WF-ERR-7, WF-REF-2
    # shows: WF-REF-4, WF-REF-6, CORE-DEL-11, CORE-RCP-5, IPC-DLG-3
    async with paired("answers") as (client, peer, link):
        await daemon_asks(client, peer, link)


@case
async def daemon_asks_a_peer_without_receipts():
    # shows: WF-STR-9, CORE-NOT-1, IPC-SEND-6
    features = [name for name in env.ALL_FEATURES if name != "receipt"]
    async with paired("bare", features) as (client, peer, link):
        await daemon_asks(client, peer, link)


@case
async def kinds_that_were_not_offered():
    # shows: WF-FEA-1, MT-ALL-7, IPC-SEND-3
    async with paired("few", []) as (client, peer, link):
        for kind, payload in (("discover", {}), ("delegate", {"task": "?"})):
            await client.fails("not_offered", "send", to=peer.me.id, kind=kind, payload=payload)
        assert (await client.ok("send", to=peer.me.id, kind="ping", payload={}))["response"]["kind"] == "pong"


@case
async def daemon_dials_and_both_ask():
    """The peer is known by where it listens: the daemon dials it, and the peer is the acceptor."""
    # shows: WF-CON-1, WF-HEL-1, WF-PIN-1, WF-STR-3
    client, peer = await Client.open(SOCKET, "dialled"), Peer("dialled")
    await peer.listen()
    key, _ = await place(client)
    peer.pins[agent_id(key)] = key
    await pair(client, peer, addrs=[f"127.0.0.1:{peer.port}"])
    await client.ok("send", to=peer.me.id, kind="ping", payload={})
    link = await peer.wait_link()
    assert link.group() == 0x11EC, link.group()
    await daemon_asks(client, peer, link)
    await ask_the_daemon(client, peer, link)
    assert not peer.faults, peer.faults
    # WF-PIN-3: who does not pin the daemon is not asked anything.
    peer.pins.clear()
    link.close(0, "done")
    await client.fails("peer_unreachable", "send", to=peer.me.id, kind="ping", payload={})
    await peer.stop()
    await client.close()
