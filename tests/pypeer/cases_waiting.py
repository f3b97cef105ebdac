"""What takes its time: bounds of time, and which of several connections stays. Played side by side."""

import asyncio

import envelope as env
from identity import agent_id
from ipc import Client
from peer import Peer
from world import SOCKET, aside, ends, long, pair, paired, place

# What tests/pypeer.rs sets for `handshake_timeout_secs` and `inbound_read_timeout_secs`.
TIMEOUT = 1.0


@aside
async def no_hello_in_time():
    # shows: WF-LIM-4
    async with paired("silent") as (client, peer, _):
        link = await peer.dial(*await place(client))
        begun = asyncio.get_running_loop().time()
        why = await asyncio.wait_for(link.over, 8)
        assert why.code == 4, why
        assert asyncio.get_running_loop().time() - begun > TIMEOUT / 2


@aside
async def a_stream_that_stalls():
    # shows: WF-STR-6, WF-CLOSE-1
    async with paired("stalls") as (_, _, link):
        half = env.write(link.envelope("query", {"question": "?"}))[:20]
        await ends(link.raw(half, end=False))
        assert (await link.request("ping", {}))["kind"] == "pong"


@aside
async def a_pipe_that_stalls():
    # shows: WF-PIPE-8
    async with paired("piped stall", [*env.ALL_FEATURES, "pipe"]) as (_, _, link):
        link.pipe.put(b"\x02\x00")
        why = await asyncio.wait_for(link.over, 8)
        assert why.code == 4, why


@long
async def a_strangers_time_is_over():
    # shows: WF-STRANGER-4
    client, peer = await Client.open(SOCKET), Peer("lingers")
    await client.ok("invite", addrs=["127.0.0.1:1"])
    link = await peer.dial(*await place(client))
    assert (await link.hello())["stranger"] is True
    why = await asyncio.wait_for(link.over, 15)
    assert (why.code, why.reason) == (4, "strangers are heard briefly"), why
    await client.close()


@aside
async def of_one_dialler_the_newest_stays():
    # shows: WF-DUP-2, WF-DUP-3, WF-DUP-4
    async with paired("newest") as (client, peer, old):
        new = await peer.meet(*await place(client))
        # What came on the old one is answered there.
        assert (await old.request("ping", {}))["kind"] == "pong"
        said = []

        async def respond(link, _query):
            said.append(link)
            return "response", {"data": None, "summary": "here"}

        peer.agents["query"] = respond
        for _ in range(3):
            await client.ok("send", to=peer.me.id, kind="query", payload={"question": "Where?"})
        assert said == [new] * 3, said
        why = await asyncio.wait_for(old.over, 8)
        assert why.code == 2, why
        assert not new.over.done()


@aside
async def a_restarted_peer_takes_over():
    # shows: WF-DUP-1
    async with paired("restarts") as (client, peer, old):
        peer.boot = "another"
        new = await peer.meet(*await place(client))
        await client.ok("send", to=peer.me.id, kind="ping", payload={})
        assert peer.heard[-1]["kind"] == "ping"
        why = await asyncio.wait_for(old.over, 8)
        assert why.code == 2, why
        assert not new.over.done()


@aside
async def of_both_diallers_the_lower_id_stays():
    # shows: WF-DUP-2, WF-DUP-4
    client, peer = await Client.open(SOCKET, "both"), Peer("both")
    await peer.listen()
    key, addr = await place(client)
    daemon = agent_id(key)
    peer.pins[daemon] = key
    await pair(client, peer, addrs=[f"127.0.0.1:{peer.port}"])
    await client.ok("send", to=peer.me.id, kind="ping", payload={})
    theirs = await peer.wait_link()
    mine = await peer.meet(key, addr)
    stays, goes = (mine, theirs) if peer.me.id < daemon else (theirs, mine)
    why = await asyncio.wait_for(goes.over, 8)
    assert why.code == 2, why
    assert not stays.over.done()
    assert (await stays.request("ping", {}))["kind"] == "pong"
    await peer.stop()
    await client.close()
