"""What the peer does wrong on purpose, and what the pages promise for it."""

import asyncio

import envelope as env
from identity import Identity
from peer import Closed
from world import case, counted, ends, is_error, paired, place


@case
async def faults_of_messages():
    # shows: WF-ERR-1, WF-ERR-5, WF-CLOSE-1, WF-ID-3, WF-ENV-2
    async with paired("wrong") as (client, peer, link):
        question = {"question": "Wrong?"}
        wrong = (
            ("not_authorized", "not_authorized", {"from": Identity().id}),
            ("peer_not_found", "malformed", {"to": Identity().id}),
            ("incompatible_version", "malformed", {"v": 2}),
            ("incompatible_version", "malformed", {"to": "rsa." + "0" * 32}),
            ("invalid_envelope", "malformed", {"v": 0}),
            ("invalid_envelope", "malformed", {"ts": 0}),
            ("invalid_envelope", "malformed", {"ts": "now"}),
            ("invalid_envelope", "malformed", {"kind": "k" * 65}),
            ("invalid_envelope", "malformed", {"kind": ""}),
            ("invalid_envelope", "malformed", {"ref": "no id"}),
            ("invalid_envelope", "malformed", {"payload": []}),
            ("invalid_envelope", "malformed", {"payload": {}}),
            ("invalid_envelope", "malformed", {"payload": {"question": 7}}),
            ("invalid_envelope", "malformed", {"payload": {"question": "?", "domain": "d" * 257}}),
            ("invalid_envelope", "malformed", {"kind": "response"}),
            ("unknown_kind", "malformed", {"kind": "queryy"}),
        )
        for code, cause, fields in wrong:
            async with counted(client, **{cause: 1}):
                message = link.envelope("query", question) | fields
                answer = await link.raw(env.write(message))
                is_error(answer, code)
                assert answer["ref"] == message["id"], (fields, answer)
        # WF-ERR-1: without a valid id there is no answer.
        nil = "00000000-0000-0000-0000-000000000000"
        v1 = "5f2c0d9e-1c3b-11f0-8de9-0242ac120002"
        for broken in (
            env.write(link.envelope("query", question, id=nil)),
            env.write(link.envelope("query", question, id=v1)),
            env.write(link.envelope("query", question, id=env.new_id().upper())),
            env.write(link.envelope("query", question))[:-1],
            b"[]",
            b"\xff{}",
            b"",
        ):
            async with counted(client, malformed=1):
                await ends(link.raw(broken))
        # WF-CLOSE-1: and the connection stands.
        assert (await link.request("ping", {}))["kind"] == "pong"


@case
async def messages_that_are_too_large():
    # shows: WF-STR-4
    async with paired("large") as (client, _, link):
        await client.ok("subscribe", answer=["query"])
        message = link.envelope("query", {"question": ""})
        room = env.MESSAGE_MAX - len(env.write(message))
        message["payload"]["question"] = "x" * room
        whole = env.write(message)
        assert len(whole) == env.MESSAGE_MAX
        asked = asyncio.ensure_future(link.raw(whole))
        query = await client.request("query")
        assert len(query["payload"]["question"]) == room
        await client.reply(query, "response", {"summary": "It fits."})
        assert (await asked)["payload"] == {"data": None, "summary": "It fits."}
        # WF-STR-4: one byte more.
        async with counted(client, over_limit=1):
            message = link.envelope("query", {"question": "x" * (room + 1)})
            await ends(link.raw(env.write(message)))
        async with counted(client, over_limit=1):
            message = link.envelope("notify", {"topic": "big", "data": "x" * env.MESSAGE_MAX})
            link.begin(env.write(message))
        assert (await link.request("ping", {}))["kind"] == "pong"


@case
async def streams_that_are_wrong():
    # shows: WF-STR-8, WF-ERR-2, WF-REP-4, WF-REP-6, WF-REP-7, MT-ALL-2, MT-ALL-6
    async with paired("streams") as (client, _, link):
        for kind, payload in (("query", {"question": "?"}), ("pong", {}), ("knock", {})):
            async with counted(client, wrong_stream=1):
                link.begin(env.write(link.envelope(kind, payload)))
        # MT-ALL-2 on a unidirectional stream.
        async with counted(client, malformed=1):
            link.begin(env.write(link.envelope("notify", {"data": 1})))
        is_error(await link.tell("notify", {"data": 1}), "invalid_envelope")
        # MT-ALL-6: unknown, one way: shown as it came.
        begun = link.envelope("x-news", {"any": {"thing": [None]}})
        await client.ok("subscribe", kinds=["x-news"])
        link.begin(env.write(begun))
        event = await client.event(lambda event: event["event"] == "inbound")
        assert event["envelope"] == begun, event
        # WF-REP-6, WF-REP-4: what comes again.
        async with counted(client, replayed=2):
            link.begin(env.write(begun))
            ping = env.write(link.envelope("ping", {}))
            assert (await link.raw(ping))["kind"] == "pong"
            await ends(link.raw(ping))
        async with counted(client, replayed=1):
            news = link.envelope("notify", {"topic": "twice", "data": 1})
            assert (await link.ask(news))["kind"] == "ack"
            assert (await link.ask(news))["kind"] == "ack"


@case
async def unknown_peers_may_not_delegate():
    # shows: TRUST-LEV-2, TRUST-POL-3, WF-ERR-9
    async with paired("low", trust="unknown") as (client, _, link):
        async with counted(client, refused=1):
            is_error(await link.request("delegate", {"task": "Please."}), "not_authorized")
        assert (await link.request("ping", {}))["kind"] == "pong"
        # policy.unknown.messages_per_minute: 30.
        for _ in range(40):
            answer = await link.request("ping", {})
            if answer["kind"] == "error":
                break
        assert is_error(answer, "overloaded")["retry_after_ms"] > 0, answer


@case
async def blocked_while_connected():
    # shows: TRUST-OUT-1, TRUST-OUT-2
    async with paired("out") as (client, peer, link):
        await client.ok("trust", peer=peer.me.id, trust="blocked")
        why = await asyncio.wait_for(link.over, 8)
        assert why.code == 0, why
        again = await ends(peer.meet(*await place(client)), Closed)
        assert 0x100 <= again.code < 0x200, again
