"""Handshake, hello and pairing."""

import asyncio

import envelope as env
from identity import Identity, agent_id, proof, unbase64
from identity import Link as Invite
from ipc import Client
from peer import Closed, Peer
from world import SOCKET, case, counted, ends, is_error, knock, paired, place


@case
async def vectors():
    # shows: WF-ID-1, PAIR-LINK-1
    zeros = agent_id(bytes(32))
    assert zeros == "ed25519.66687aadf862bd776c8fc18b8e9f8e20", zeros
    alice = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    assert agent_id(alice) == "ed25519.21fe31dfa154a261626bf854046fd227"
    text = "axon://PUAXw-hDiVqStwqnTRt-vJyYLM8uxJaMwM1V8Sr0Zgw@192.0.2.7:7100"
    bob = Invite.read(text + "?k=AAECAwQFBgcICQoLDA0ODw&a=[2001:db8::7]:7100")
    assert agent_id(bob.key) == "ed25519.39f713d0a644253f04529421b9f51b9b"
    assert bob.addrs == [("192.0.2.7", 7100), ("2001:db8::7", 7100)]
    invite, proven = proof(unbase64("AAECAwQFBgcICQoLDA0ODw"), alice, bob.key, bytes(range(0x20, 0x40)))
    assert invite == "66587864c2f61605"
    assert proven == "9c64f55b4d8f343679ef019249f907e0768f3ff0a75ffc21ce79b075853e7530"


@case
async def hello_and_key_exchange():
    # shows: WF-TLS-1, WF-TLS-2, WF-TLS-3, WF-TLS-4, WF-HEL-1, WF-HEL-5, WF-HEL-7
    async with paired("kx") as (client, peer, link):
        # X25519MLKEM768 is preferred by both.
        assert link.group() == 0x11EC, link.group()
        shown = link._quic.tls._peer_certificate
        assert shown.version.name == "v3" and not any(more.critical for more in shown.extensions), shown
        theirs = link.theirs
        assert theirs["protocol_versions"] == [1] and theirs["selected_version"] == 1, theirs
        assert set(env.ALL_FEATURES) <= set(theirs["features"]), theirs
        assert theirs["agent_name"] == "alice" and theirs["boot"] and "stranger" not in theirs, theirs
        # WF-HEL-7: a further hello is answered as the first was.
        again = await link.request("hello", link.hello_payload())
        assert again["payload"] == theirs, (again, theirs)
        # X25519 alone is enough.
        peer.axon.groups = [0x001D]
        other = await peer.meet(*await place(client))
        assert other.group() == 0x001D
        assert (await other.request("ping", {}))["kind"] == "pong"
        row = next(row for row in (await client.ok("peers"))["peers"] if row["id"] == peer.me.id)
        assert row["status"] == "connected" and row["trust"] == "known", row
        assert row["features"] == env.ALL_FEATURES, row


@case
async def certificates_say_nothing_but_the_key():
    # shows: WF-TLS-3
    async with paired("certificate") as (client, peer, link):
        key, addr = await place(client)
        other = Identity()
        for called, days, signer in (
            ("long over", -300, peer.me.private),
            ("", 1, peer.me.private),
            (other.id, 1, other.private),
        ):
            peer.me.certificate = peer.me.certify(called, days, signer)
            link = await peer.meet(key, addr)
            assert (await link.request("ping", {}))["kind"] == "pong"


@case
async def the_key_must_be_had():
    # shows: WF-TLS-4
    async with paired("thief") as (client, peer, link):
        # The certificate of one who is known, and another key to sign with.
        peer.me.private = Identity().private
        why = await ends(peer.meet(*await place(client)), Closed)
        assert 0x100 <= why.code < 0x200, why


@case
async def strangers_are_refused_in_the_handshake():
    # shows: WF-PIN-1, WF-PIN-2, WF-PIN-3, WF-PIN-4, TRUST-STR-1
    client, peer = await Client.open(SOCKET), Peer("nobody")
    assert (await client.ok("invites"))["invites"] == []
    key, addr = await place(client)
    # The dialler may see its own handshake succeed: the refusal then shows on the first stream.
    why = await ends(peer.meet(key, addr), Closed)
    assert 0x100 <= why.code < 0x200, why
    # WF-PIN-2: a server name that is not the daemon's.
    other = Identity()
    async with paired("names") as (_, known, link):
        known.pins[other.id] = other.key
        why = await ends(known.dial(key, addr, other.id), Closed)
        assert 0x100 <= why.code < 0x200, why
        # WF-PIN-1, from this side: who answers is not who was wanted. The daemon is asked by its right
        # name, but another key is pinned for it.
        wrong = Peer("wrong")
        wrong.axon.pinned = lambda name, raw: raw == other.key
        why = await ends(wrong.dial(key, addr), Closed)
        assert why.code == 0x100 + 42, why
    await client.close()


@case
async def hello_gate():
    # shows: WF-HEL-2, WF-HEL-4, WF-HEL-5, WF-HEL-6, WF-CLOSE-1
    async with paired("gate") as (client, peer, _):
        key, addr = await place(client)
        link = await peer.dial(key, addr)
        # WF-HEL-2: nothing before hello, and the connection stays (WF-CLOSE-1).
        is_error(await link.request("ping", {}), "not_authorized")
        async with counted(client, before_hello=1):
            link.begin(env.write(link.envelope("notify", {"topic": "early", "data": 1})))
        await link.hello()
        assert (await link.request("ping", {}))["kind"] == "pong"
        # WF-HEL-4, WF-HEL-5, WF-HEL-6: the error is delivered, then code 4.
        for code, more, fields in (
            ("not_authorized", {}, {"from": Identity().id}),
            ("incompatible_version", {"protocol_versions": [2, 9]}, {}),
            ("invalid_envelope", {"protocol_versions": "1"}, {}),
        ):
            link = await peer.dial(key, addr)
            answer = await link.request("hello", link.hello_payload(**more), **fields)
            is_error(answer, code)
            why = await asyncio.wait_for(link.over, 8)
            assert why.code == 4, (code, why)


@case
async def knocks_that_are_wrong():
    # shows: WF-STRANGER-2, WF-STRANGER-3, WF-STRANGER-7, PAIR-KNOCK-1, PAIR-PROOF-1, PAIR-PROOF-4
    client, peer = await Client.open(SOCKET), Peer("guess")
    key, addr = await place(client)
    said = await client.ok("invite", addrs=["127.0.0.1:1"], label="guess")
    invite = Invite.read(said["link"])
    assert invite.key == key and invite.addrs == [("127.0.0.1", 1)]
    link = await peer.dial(key, addr)
    assert (await link.hello())["stranger"] is True
    # WF-STRANGER-3.
    is_error(await link.request("query", {"question": "May I?"}), "not_authorized")
    is_error(await link.request("knock", {"name": "x" * 2100}), "invalid_envelope")
    is_error(await link.request("knock", {"name": 7}), "invalid_envelope")
    # A proof for another connection is none (PAIR-PROOF-1).
    told, proven = proof(invite.secret, peer.me.key, key, bytes(32))
    answer = (await link.request("knock", {"invite": told, "proof": proven}))["payload"]
    assert answer["decision"] == "reject" and answer["reason"], answer
    assert 0 < answer["retry_after_ms"] <= 1000, answer
    # PAIR-PROOF-4: until the wait is over the right one is not listened to.
    again = (await knock(link, invite))["payload"]
    assert again["decision"] == "reject" and again["retry_after_ms"] <= 1000, again
    # The wait is what this is about.
    await asyncio.sleep(again["retry_after_ms"] / 1000)
    right = (await knock(link, invite, name="guess"))["payload"]
    assert right["decision"] == "accept" and right["level"] == "known", right
    kinds = right["constraints"]["kinds"]
    assert {"ping", "query", "delegate", "cancel", "notify", "discover"} <= set(kinds), right
    # WF-STRANGER-7: this connection never becomes a peer's.
    is_error(await link.request("ping", {}), "not_authorized")
    link.close(0, "done")
    link = await peer.meet(key, addr)
    assert (await link.request("ping", {}))["kind"] == "pong"
    assert not peer.faults, peer.faults
    await peer.stop()
    await client.close()


@case
async def the_daemon_knocks_with_a_link():
    # shows: IPC-JOIN-1, IPC-JOIN-2, PAIR-ADM-2, PAIR-PROOF-1, WF-STRANGER-6
    client, peer = await Client.open(SOCKET), Peer("inviter")
    await peer.listen()
    peer.secret = bytes(16)
    wrong = peer.link()
    peer.secret = bytes(range(16))
    # The other secret is not the invite's: the proof is wrong.
    await client.fails("not_authorized", "connect", link=wrong)
    assert peer.secret is not None and peer.pins == {}
    said = await client.ok("connect", link=peer.link(), name="snake", message="It is me.")
    assert (said["state"], said["level"], said["trust"]) == ("paired", "known", "known"), said
    assert said["agent_id"] == peer.me.id, said
    assert said["constraints"]["kinds"] == ["ping", "query", "notify", "discover"], said
    knocked = await peer.wait_heard(lambda heard: heard["payload"].get("message") == "It is me.")
    assert knocked["kind"] == "knock" and knocked["payload"]["name"] == "alice", knocked
    # Both sides talk on the connection that was made anew.
    pong = await client.ok("send", to="snake", kind="ping", payload={})
    assert pong["response"]["kind"] == "pong", pong
    link = await peer.wait_link()
    assert (await link.request("ping", {}))["kind"] == "pong"
    assert not peer.faults, peer.faults
    await client.ok("forget", peer="snake")
    why = await asyncio.wait_for(link.over, 8)
    assert why.code == 0, why
    await peer.stop()
    await client.close()
