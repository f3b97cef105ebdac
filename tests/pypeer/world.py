"""What all cases share: the daemon that is played against, how a peer is paired, and what is expected."""

import asyncio
import base64
import os
from contextlib import asynccontextmanager

from identity import Link as Invite
from identity import agent_id, proof
from ipc import Client
from peer import Closed, Link, Peer, StreamEnded

SOCKET = os.environ["AXON_SOCKET"]
CASES = []
ASIDES = []


def case(test):
    CASES.append(test)
    return test


def aside(test):
    """A case that mostly waits, and counts nothing: these are played at once, after the others."""
    ASIDES.append(test)
    return test


def long(test):
    """An aside that takes longer than a test of every day may: only with AXON_LONG set."""
    return aside(test) if os.environ.get("AXON_LONG") else test


def is_error(answer: dict, code: str, retryable: bool | None = None) -> dict:
    assert answer["kind"] == "error" and answer["payload"]["code"] == code, f"{code}: {answer}"
    assert isinstance(answer["payload"]["message"], str) and answer["payload"]["message"], answer
    expected = code in ("overloaded", "internal", "timeout", "unhandled")
    assert answer["payload"]["retryable"] is (expected if retryable is None else retryable), answer
    return answer["payload"]


async def ends(awaitable, kind=StreamEnded):
    """This must end so; gives the exception."""
    try:
        found = await awaitable
    except kind as why:
        return why
    raise AssertionError(f"no {kind.__name__}: {found}")


async def dropped(client: Client) -> dict:
    return (await client.ok("status"))["dropped"]


@asynccontextmanager
async def counted(client: Client, **more: int):
    """These counters, and no others, go up by so much; one-way messages are waited for."""
    before = await dropped(client)
    yield
    wanted = {name: before[name] + more.get(name, 0) for name in before}
    for _ in range(400):
        now = await dropped(client)
        if now == wanted:
            return
        # Nothing tells of a message that was dropped: look again.
        await asyncio.sleep(0.02)
    raise AssertionError(f"{more} were to be counted: {before} -> {now}")


async def place(client: Client) -> tuple[bytes, tuple[str, int]]:
    """Key and address of the daemon."""
    who = await client.ok("whoami")
    key = base64.b64decode(who["public_key"])
    assert agent_id(key) == who["agent_id"] == client.hello["agent_id"]
    host, _, port = who["listen"][0].rpartition(":")
    return key, (host, int(port))


async def knock(link: Link, invite: Invite, **more) -> dict:
    """Knocks with the invite of a link; gives the admission."""
    told, proven = proof(invite.secret, link.owner.me.key, invite.key, link.binding())
    return await link.request("knock", {"invite": told, "proof": proven} | more)


async def pair(client: Client, peer: Peer, trust: str = "known", **more) -> dict:
    """Makes the daemon know this peer, by a link."""
    said = await client.ok("invite", addrs=["127.0.0.1:%d" % (await place(client))[1][1]], trust=trust)
    invite = Invite.read(said["link"])
    for left in reversed(range(40)):
        try:
            link = await peer.dial(invite.key, invite.addrs[0])
            hello = await link.hello()
            break
        except Closed as why:
            # WF-STRANGER-4: two from one address at a time.
            if why.code != 1 or left == 0:
                raise
            assert why.reason == "too many strangers: try again", why
    assert hello.get("stranger") is True and hello["features"] == ["knock"], hello
    assert "agent_name" not in hello, hello
    answer = await knock(link, invite, name=peer.name, **more)
    assert answer["payload"]["decision"] == "accept" and answer["payload"]["level"] == trust, answer
    # PAIR-ADM-2.
    link.close(0, "done")
    return answer["payload"]


@asynccontextmanager
async def paired(name: str, features: list[str] | None = None, trust: str = "known"):
    """A client of the daemon, a peer that it knows, and their connection, dialled by the peer."""
    client, peer = await Client.open(SOCKET, name), Peer(name, features)
    try:
        await pair(client, peer, trust)
        yield client, peer, await peer.meet(*await place(client))
        assert not peer.faults, "the daemon did what it must not: " + "; ".join(peer.faults)
    finally:
        await peer.stop()
        await client.close()
