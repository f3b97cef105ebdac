"""The peer asks and an agent of the daemon answers."""

import asyncio

import envelope as env
from ipc import Client
from peer import Link, Peer
from world import case, is_error, paired


async def ask_the_daemon(client: Client, peer: Peer, link: Link) -> None:
    """Every core kind from the peer to the daemon. The client is the daemon's agent."""
    pong = await link.request("ping", {})
    assert pong["kind"] == "pong" and pong["payload"]["status"] in ("idle", "busy"), pong
    assert type(pong["payload"]["uptime_secs"]) is int and pong["payload"]["agent_name"] == "alice", pong

    is_error(await link.request("query", {"question": "Is anybody there?"}), "unhandled")
    await client.ok("advertise", capabilities={"domains": ["family"], "tools": ["t"], "x": {"y": [None]}})
    able = await link.request("discover", {})
    assert able["payload"]["domains"] == ["family"] and able["payload"]["x"] == {"y": [None]}, able

    await client.ok("subscribe", answer=["query", "delegate", "cancel"], domains=["family"])
    is_error(await link.request("query", {"question": "?", "domain": "sport"}), "unknown_domain")

    asked = asyncio.ensure_future(
        link.request("query", {"question": "Who?", "domain": "family.calendar", "ünknown": "é\u2028"})
    )
    query = await client.request("query")
    assert query["payload"]["ünknown"] == "é\u2028" and query["from"] == peer.me.id, query
    await client.reply(query, "response", {"data": {"a": [1, None]}, "summary": "Me: ø"})
    answer = await asked
    assert answer["kind"] == "response" and answer["payload"]["data"] == {"a": [1, None]}, answer
    assert answer["payload"]["summary"] == "Me: ø", answer

    asked = asyncio.ensure_future(link.request("query", {"question": "Now?", "deadline_ms": 150}))
    await client.request("query")
    is_error(await asked, "timeout")
    gone = await client.event(lambda event: event["event"] == "withdrawn")
    assert gone["reason"] == "timeout", gone

    await delegate_to_the_daemon(client, peer, link)

    receipt = await link.tell("notify", {"topic": "py.topic", "data": None, "importance": "high"})
    news = await client.ok("inbox", limit=1000)
    last = news["messages"][-1]["envelope"]
    assert last["kind"] == "notify" and last["payload"]["topic"] == "py.topic", last
    assert receipt is None or receipt["payload"] == {"accepted": True}, receipt
    await link.tell("error", {"code": "odd_code", "message": "Something broke.", "retryable": False})
    news = await client.ok("inbox", limit=1000)
    last = news["messages"][-1]
    assert last["envelope"]["payload"]["code"] == "odd_code" and last["trust"] == "known", last
    assert last["from_name"] == peer.name, last
    await client.ok("ack", up_to_seq=last["seq"])

    is_error(await link.request("x-strange", {"a": 1}), "unknown_kind")


async def delegate_to_the_daemon(client: Client, peer: Peer, link: Link) -> None:
    """A delegation with progress and result, one that is declined, and two that are cancelled."""
    message = link.envelope("delegate", {"task": "Sum up.", "context": [1], "priority": "urgent"})
    asked = asyncio.ensure_future(link.ask(message))
    task = await client.request("delegate")
    await client.reply(task, "ack", {"accepted": True, "estimated_ms": 5})
    ack = await asked
    assert ack["kind"] == "ack" and ack["payload"] == {"accepted": True, "estimated_ms": 5}, ack
    if "progress" in peer.features:
        await client.reply(task, "progress", {"state": "running", "percent": 50})
        progress = await peer.wait_heard(lambda said: said["kind"] == "progress")
        assert progress["ref"] == message["id"] and progress["payload"]["percent"] == 50, progress
    done = await client.reply(task, "result", {"status": "completed", "outcome": "Done.", "data": 3})
    wanted = "delivered" if "receipt" in peer.features else "sent"
    assert done["state"] == wanted, done
    result = await peer.wait_heard(lambda said: said["kind"] == "result")
    assert result["ref"] == message["id"] and result["payload"]["outcome"] == "Done.", result
    # CORE-DEL-13, WF-REP-5: what was ended is told again, and not begun again.
    assert result["resend_until"] > result["ts"], result
    again = await link.raw(env.write(message))
    assert again["kind"] == "ack" and again["payload"]["accepted"] is True, again
    # CORE-CAN: has ended.
    late = await link.request("cancel", {}, ref=message["id"])
    assert late["kind"] == "ack" and late["payload"]["accepted"] is False, late
    is_error(await link.request("cancel", {}, ref=env.new_id()), "not_authorized")
    is_error(await link.request("cancel", {}), "invalid_envelope")

    asked = asyncio.ensure_future(link.request("delegate", {"task": "No."}))
    await client.reply(await client.request("delegate"), "ack", {"accepted": False, "reason": "busy"})
    assert (await asked)["payload"] == {"accepted": False, "reason": "busy"}

    message = link.envelope("delegate", {"task": "Wait."})
    asked = asyncio.ensure_future(link.ask(message))
    task = await client.request("delegate")
    stop = asyncio.ensure_future(link.request("cancel", {"reason": "over"}, ref=message["id"]))
    cancel = await client.request("cancel")
    assert cancel["ref"] == message["id"], cancel
    await client.reply(cancel, "ack", {"accepted": True})
    assert (await stop)["payload"]["accepted"] is True
    # CORE-CAN-2: its own stream had no answer yet.
    is_error(await asked, "cancelled")
    assert not (await client.cmd("reply", ref=task["id"], kind="ack", payload={"accepted": True}))["ok"]


@case
async def peer_asks_and_the_daemon_answers():
    # shows: WF-STR-2, CORE-PING-1, CORE-QUERY-1, CORE-QUERY-3, CORE-DEL-3, CORE-DEL-8, CORE-CAN-1, CORE-CAN-2
    # shows: CORE-DIS-2, CORE-ERR-1, CORE-NOT-2, WF-REP-5, MT-ALL-3, MT-ALL-5, MT-ALL-10
    async with paired("asks") as (client, peer, link):
        await ask_the_daemon(client, peer, link)


@case
async def peer_without_receipts_asks():
    # shows: WF-STR-9, CORE-DEL-10, CORE-DEL-13, IPC-REP-7
    features = [name for name in env.ALL_FEATURES if name not in ("receipt", "progress")]
    async with paired("plain", features) as (client, peer, link):
        await ask_the_daemon(client, peer, link)


@case
async def delegations_wait_for_an_agent():
    # shows: CORE-DEL-2, CORE-DEL-5, CORE-CAN-1, WF-REP-5, IPC-REP-3
    async with paired("waits") as (client, peer, link):
        message = link.envelope("delegate", {"task": "Later."})
        ack = await link.ask(message)
        assert ack["payload"] == {"accepted": True, "state": "queued"}, ack
        again = await link.ask(message)
        assert again["payload"] == {"accepted": True, "state": "queued"}, again
        gone = link.envelope("delegate", {"task": "Never."})
        await link.ask(gone)
        stop = await link.request("cancel", {}, ref=gone["id"])
        assert stop["payload"]["accepted"] is True, stop
        await client.ok("subscribe", answer=["delegate"])
        task = await client.request("delegate")
        assert task["id"] == message["id"], task
        await client.reply(task, "ack", {"accepted": True})
        # CORE-DEL-5.
        progress = await peer.wait_heard(lambda said: said["kind"] == "progress")
        assert progress["payload"]["state"] == "accepted" and progress["ref"] == message["id"], progress
        stop = asyncio.ensure_future(link.request("cancel", {}, ref=message["id"]))
        # It answers no cancels: CORE-CAN-1.
        is_error(await stop, "unhandled")
        await client.reply(task, "result", {"status": "failed", "outcome": "No."})
        result = await peer.wait_heard(lambda said: said["kind"] == "result")
        assert result["payload"]["status"] == "failed", result
