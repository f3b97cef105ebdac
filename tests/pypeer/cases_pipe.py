"""The pipe."""

import asyncio

import envelope as env
from cases_answering import daemon_asks
from cases_asking import ask_the_daemon
from pipe import ANSWER, ASK, HEARD, TELL, record
from world import case, counted, ends, is_error, paired, place

PIPED = [*env.ALL_FEATURES, "pipe"]


@case
async def both_ask_on_the_pipe():
    # shows: WF-PIPE-5, WF-PIPE-6, WF-PIPE-7, WF-PIPE-9
    async with paired("piped", PIPED) as (client, peer, link):
        assert link.pipe is not None, link.theirs
        await daemon_asks(client, peer, link)
        await ask_the_daemon(client, peer, link)
        # Both directions did use it.
        assert link.pipe.records[2] > 5 and link.pipe.records[3] > 5, link.pipe.records
        # WF-REP-4: no answer is `none`.
        ping = link.envelope("ping", {})
        await link.ask(ping)
        await ends(link.ask(ping))
        # A tell is heard (WF-PIPE-7) and goes where it goes on a stream.
        begun = link.envelope("x-piped", {"n": 1})
        await asyncio.wait_for(link.pipe.tell(env.write(begun)), 8)
        await client.ok("subscribe", kinds=["x-piped"])
        event = await client.event(lambda event: event["event"] == "inbound" and "answer" not in event)
        assert event["envelope"] == begun, event
        # WF-PIPE-5: given up.
        await client.ok("subscribe", answer=["query"])
        asked = asyncio.ensure_future(link.pipe.ask(env.write(link.envelope("query", {"question": "?"}))))
        await client.request("query")
        link.pipe.drop(link.pipe.number)
        assert await asyncio.wait_for(asked, 8) is None
        gone = await client.event(lambda event: event["event"] == "withdrawn")
        assert gone["reason"] == "peer_gone", gone
        # WF-PIPE-9: passed over.
        link.pipe.put(bytes([99]) + (3).to_bytes(3, "big") + bytes(4) + b"abc")
        link.pipe.drop(4711)
        assert (await link.request("ping", {}))["kind"] == "pong"


@case
async def pipes_that_are_wrong():
    # shows: WF-PIPE-8
    async with paired("foul", PIPED) as (client, peer, link):
        key, addr = await place(client)
        news = lambda: env.write(link.envelope("x-foul", {}))  # noqa: E731
        wrong = {
            "too long": lambda link: link.pipe.put(bytes([ASK]) + (65_537).to_bytes(3, "big") + bytes(4)),
            "answer to nothing": lambda link: link.pipe.put(record(ANSWER, 9, b"{}")),
            "heard of nothing": lambda link: link.pipe.put(record(HEARD, 9)),
            "a tell back": lambda link: link.pipe.put(record(TELL, 2, news()) + record(TELL, 2, news())),
            "a second": lambda link: (link.pipe.put(b""), link.begin(b"\x01" + record(TELL, 1, news()))),
            "an end within": lambda link: (link.pipe.put(b"\x02\x00"), link.write(link.pipe.out, b"")),
        }
        for name, foul in wrong.items():
            link.close(0, "next")
            link = await peer.meet(key, addr)
            foul(link)
            why = await asyncio.wait_for(link.over, 8)
            assert why.code == 4, (name, why)
        link = await peer.meet(key, addr)
        # A fault within a message is none of these.
        is_error(await link.request("x-strange", {}), "unknown_kind")
        async with counted(client, malformed=1):
            assert await asyncio.wait_for(link.pipe.ask(b"no json"), 8) is None
