"""The library against a daemon of a few lines: what it sends, and what it makes of what it hears.

    python3 -m unittest discover -s tests
"""

import asyncio
import json
import os
import re
import sys
import tempfile
import threading
import unittest
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "src"))

import axon_client  # noqa: E402
import axon_client.sync  # noqa: E402
from axon_client import AxonError, _serve, _wire  # noqa: E402
from axon_client._answer import PAYLOAD_BYTES_MAX, Answer, Refuse, reply_of  # noqa: E402
from axon_client._events import EVENT_BYTES_MAX, EVENTS_MAX, Events  # noqa: E402

ME = "ed25519.00000000000000000000000000000001"
BOB = "ed25519.00000000000000000000000000000002"
PATIENCE = 10


def envelope(id, kind, payload, **more):
    return {"v": 1, "id": id, "from": BOB, "to": ME, "ts": 1, "kind": kind, "payload": payload, **more}


def row(seq, kind="notify", **payload):
    known = {"seq": seq, "buffered_at_ms": 1, "trust": "known", "from_name": "bob"}
    return {**known, "envelope": envelope(f"m{seq}", kind, payload)}


def inbound(seq, kind="notify", **more):
    return {"event": "inbound", "replay": False, **row(seq, kind), **more}


class Fake:
    """The daemon's end of one connection."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    async def next(self, cmd=None):
        line = await asyncio.wait_for(self.reader.readline(), PATIENCE)
        said = json.loads(line)
        assert cmd in (None, said["cmd"]), f"wanted {cmd}, got {said}"
        return said

    async def say(self, line):
        self.writer.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        await self.writer.drain()

    async def ok(self, command, **fields):
        await self.say({"ok": True, "req_id": command["req_id"], **fields})

    async def fail(self, command, code):
        await self.say({"ok": False, "req_id": command["req_id"], "error": code, "message": "Do otherwise."})

    async def hello(self):
        hello = await self.next("hello")
        assert hello["version"] == 2
        # As for a client of version 1: it came before the daemon had read the hello.
        await self.say({"inbound": True, "envelope": envelope("x", "notify", {})})
        await self.ok(hello, version=2, daemon_max_version=2, agent_id=ME, features=["new"], new_field={})
        return hello

    async def subscribed(self, *events, **fields):
        command = await self.next("subscribe")
        for event in events:
            await self.say(event)
        await self.ok(command, subscribed=True, replayed=len(events), replay_to_seq=0, **fields)
        return command

    async def replied(self):
        command = await self.next("reply")
        await self.ok(command, msg_id="m")
        return command["ref"], command["kind"], command["payload"]

    def close(self):
        self.writer.close()


class Case(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        self.dir = tempfile.TemporaryDirectory()
        self.path = os.path.join(self.dir.name, "axon.sock")
        self.come = asyncio.Queue()
        self.fakes = []

        async def accept(reader, writer):
            fake = Fake(reader, writer)
            self.fakes.append(fake)
            await self.come.put(fake)

        self.server = await asyncio.start_unix_server(accept, self.path, limit=1 << 22)

    async def asyncTearDown(self):
        self.server.close()
        for fake in self.fakes:
            fake.close()
        self.dir.cleanup()

    async def accept(self):
        return await asyncio.wait_for(self.come.get(), PATIENCE)

    async def connected(self, **more):
        connecting = asyncio.ensure_future(self.opened(axon_client.Agent(self.path, **more)))
        fake = await self.accept()
        await fake.hello()
        agent = await connecting
        self.addAsyncCleanup(agent.close)
        return agent, fake

    async def opened(self, agent):
        return await agent.open()

    async def fails(self, code, work):
        with self.assertRaises(AxonError) as caught:
            await asyncio.wait_for(work, PATIENCE)
        self.assertEqual(caught.exception.code, code)
        self.assertTrue(caught.exception.message)
        return caught.exception


class Lines(Case):
    async def test_no_number_of_a_peer_ends_the_connection(self):
        agent, fake = await self.connected()
        asked = asyncio.ensure_future(agent.query("bob", "how many?"))
        command = await fake.next("send")
        said = '{"ok":true,"req_id":"%s","msg_id":"m","response":%s}' % (
            command["req_id"],
            json.dumps(envelope("r", "response", {"summary": "many", "data": "N"})).replace('"N"', "7" * 9000),
        )
        fake.writer.write(said.encode() + b"\n")
        self.assertEqual((await asyncio.wait_for(asked, PATIENCE)).data, float("inf"))
        whole = asyncio.ensure_future(agent.query("bob", "exactly?"))
        command = await fake.next("send")
        answer = envelope("r", "response", {"summary": "so many", "data": 10**600})
        await fake.ok(command, msg_id="m", response=answer)
        self.assertEqual((await asyncio.wait_for(whole, PATIENCE)).data, 10**600)

    async def test_replies_find_their_command_in_any_order(self):
        agent, fake = await self.connected()
        self.assertEqual((agent.agent_id, agent.features), (ME, ["new"]))
        one = asyncio.ensure_future(agent.query("bob", "one", deadline_ms=5))
        first = await fake.next("send")
        self.assertEqual(first["payload"], {"question": "one", "deadline_ms": 5})
        two = asyncio.ensure_future(agent.ask("bob", "two"))
        second = await fake.next("send")
        for command, text in ((second, "2"), (first, "1")):
            answer = envelope("r", "response", {"data": None, "summary": text}, ref=command["req_id"])
            await fake.ok(command, msg_id="m", response=answer)
        self.assertEqual(((await one).text, await two), ("1", "2"))

    async def test_characters_may_be_cut_between_reads(self):
        agent, fake = await self.connected()
        asking = asyncio.ensure_future(agent.whoami())
        command = await fake.next("whoami")
        line = json.dumps({"ok": True, "req_id": command["req_id"], "name": "é🦀東"}, ensure_ascii=False)
        for byte in line.encode() + b"\n":
            fake.writer.write(bytes([byte]))
            await fake.writer.drain()
            await asyncio.sleep(0)
        self.assertEqual((await asking)["name"], "é🦀東")

    async def test_a_long_line_is_read_and_a_longer_one_ends_it(self):
        agent, fake = await self.connected()
        asking = asyncio.ensure_future(agent.read_inbox())
        await fake.ok(await fake.next("inbox"), messages=[row(1, text="é" * 1_000_000)], next_seq=1)
        self.assertEqual(len((await asking).messages[0].payload["text"]), 1_000_000)
        asking = asyncio.ensure_future(agent.read_inbox())
        command = await fake.next("inbox")
        try:
            await fake.ok(command, messages=[row(1, text="é" * 1_300_000)], next_seq=1)
        except ConnectionError:
            pass  # It is not read to its end.
        await self.fails("protocol", asking)

    async def test_an_error_without_an_id_belongs_to_the_only_call(self):
        agent, fake = await self.connected()
        asking = asyncio.ensure_future(agent.status())
        await fake.next("status")
        await fake.say({"ok": False, "error": "brand_new", "message": "Do otherwise."})
        await self.fails("brand_new", asking)

    async def test_the_last_word_is_the_reason_of_the_end(self):
        connecting = asyncio.ensure_future(self.opened(axon_client.Agent(self.path)))
        fake = await self.accept()
        await fake.say({"ok": False, "error": "too_many_clients", "message": "Close one."})
        fake.close()
        await self.fails("too_many_clients", connecting)

    async def test_a_line_that_is_none_ends_it(self):
        for line in (b"\xff\n", b"[]\n", b"{\n"):
            agent, fake = await self.connected()
            asking = asyncio.ensure_future(agent.status())
            await fake.next("status")
            fake.writer.write(line)
            await self.fails("protocol", asking)

    async def test_an_older_daemon_is_told_apart_and_a_token_is_shown(self):
        connecting = asyncio.ensure_future(self.opened(axon_client.Agent(self.path)))
        fake = await self.accept()
        await fake.ok(await fake.next("hello"), version=1)
        await self.fails("unsupported_version", connecting)
        connecting = asyncio.ensure_future(self.opened(axon_client.Agent(self.path, token="ab" * 32)))
        fake = await self.accept()
        await fake.hello()
        await fake.fail(await fake.next("auth"), "auth_failed")
        await self.fails("auth_failed", connecting)

    async def test_a_daemon_that_does_not_answer_is_stuck(self):
        agent, _ = await self.connected()
        await self.fails("stuck", agent._link.wire.call("status", {}, 0.05))

    async def test_what_cannot_be_written_is_refused_here(self):
        agent, fake = await self.connected()
        for data in (float("nan"), object(), "\ud800"):
            await self.fails("invalid_command", agent.notify("bob", "t", data))
        await self.fails("command_too_large", agent.notify("bob", "t", "x" * 65_536))
        asking = asyncio.ensure_future(agent.notify("bob", "t", None))
        command = await fake.next("send")
        self.assertEqual(command["payload"], {"topic": "t", "data": None})
        await fake.ok(command, msg_id="m", state="brand_new")
        self.assertEqual((await asking).state, "brand_new")

    async def test_a_call_that_was_given_up_harms_no_other(self):
        agent, fake = await self.connected()
        asking = asyncio.ensure_future(agent.status())
        command = await fake.next("status")
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await fake.fail(command, "internal_error")
        asking = asyncio.ensure_future(agent.whoami())
        await fake.ok(await fake.next("whoami"), agent_id=ME)
        self.assertEqual((await asking)["agent_id"], ME)

    async def test_a_new_connection_is_told_what_the_old_one_was(self):
        agent, fake = await self.connected()
        advertising = asyncio.ensure_future(agent.advertise({"agent_name": "x"}))
        await fake.ok(await fake.next("advertise"), advertised=True)
        await advertising
        watching = asyncio.ensure_future(agent.watch())
        await fake.ok(await fake.next("delegations"), delegations=[], has_more=False)
        await watching
        event = asyncio.ensure_future(agent.next_event())
        fake.close()
        fake = await self.accept()
        await fake.hello()
        self.assertEqual((await fake.next("advertise"))["capabilities"], {"agent_name": "x"})
        await fake.say({"ok": True, "req_id": "2", "advertised": True})
        again = await fake.next("delegations")
        self.assertTrue(again["watch"])
        await fake.ok(again, delegations=[], has_more=False)
        self.assertEqual((await event).name, "missed")


class Stream(Case):
    async def opened_stream(self, *events, kinds=None, **fields):
        self.lost = []
        stream = axon_client.Agent(self.path).inbox(kinds, on_lost=self.lost.append)
        opening = asyncio.ensure_future(stream.open())
        fake = await self.accept()
        await fake.hello()
        await fake.subscribed(*events, **fields)
        await opening
        self.addAsyncCleanup(stream.aclose)
        return stream, fake

    async def next(self, stream):
        return (await asyncio.wait_for(stream.__anext__(), PATIENCE)).seq

    async def test_after_slow_consumer_it_reads_the_inbox_and_goes_on(self):
        stream, fake = await self.opened_stream(inbound(1), kinds=["notify"])
        await fake.say({"event": "brand_new"})
        await fake.say({"event": "slow_consumer", "resume_from_seq": 2})
        self.assertEqual(await self.next(stream), 1)
        following = asyncio.ensure_future(self.next(stream))
        page = await fake.next("inbox")
        self.assertNotIn("kinds", page)
        await fake.ok(page, messages=[row(1), row(2), row(3, "result"), row(4)], next_seq=4, has_more=True)
        self.assertEqual((await following, await self.next(stream)), (2, 4))
        following = asyncio.ensure_future(stream.ack(4))
        command = await fake.next("ack")
        self.assertEqual(command["up_to_seq"], 4)
        await fake.ok(command, acked_seq=4)
        await following
        following = asyncio.ensure_future(self.next(stream))
        await fake.ok(await fake.next("inbox"), messages=[row(5)], next_seq=5, has_more=False)
        self.assertEqual(await following, 5)
        # What the inbox gave already is not given again.
        await fake.say(inbound(5))
        await fake.say(inbound(6))
        self.assertEqual(await self.next(stream), 6)

    async def test_what_is_not_acked_bounds_how_far_it_reads(self):
        stream, fake = await self.opened_stream(inbound(1))
        await fake.say({"event": "slow_consumer", "resume_from_seq": 2})
        self.assertEqual(await self.next(stream), 1)
        following = asyncio.ensure_future(self.next(stream))
        await fake.ok(await fake.next("inbox"), messages=[row(1)], next_seq=1, has_more=True)
        await self.fails("not_acked", following)

    async def test_what_is_not_wanted_is_acked_where_nothing_else_is_left(self):
        stream, fake = await self.opened_stream(kinds=["result"])
        await fake.say({"event": "slow_consumer", "resume_from_seq": 1})
        following = asyncio.ensure_future(self.next(stream))
        await fake.ok(await fake.next("inbox"), messages=[row(1), row(2)], next_seq=2, has_more=True)
        command = await fake.next("ack")
        self.assertEqual(command["up_to_seq"], 2)
        await fake.ok(command, acked_seq=2)
        await fake.ok(await fake.next("inbox"), messages=[row(3, "result")], next_seq=3, has_more=False)
        self.assertEqual(await following, 3)

    async def test_a_new_connection_goes_on_where_the_old_one_was(self):
        stream, fake = await self.opened_stream(inbound(1), inbound(2))
        self.assertEqual(await self.next(stream), 1)
        following = [asyncio.ensure_future(self.next(stream))]
        self.assertEqual(await following[0], 2)
        acking = asyncio.ensure_future(stream.ack(1))
        await fake.next("ack")
        # Whether it was acked is not known: it is told again.
        fake.close()
        fake = await self.accept()
        await fake.hello()
        await fake.subscribed(inbound(2), inbound(7), lost_before_seq=7)
        command = await fake.next("ack")
        await fake.ok(command, acked_seq=1)
        self.assertEqual(await acking, 1)
        self.assertEqual(await self.next(stream), 7)
        self.assertEqual((self.lost, stream.lost_before_seq), ([7], 7))

    async def test_a_stream_that_is_closed_ends(self):
        stream, _ = await self.opened_stream()
        seen = asyncio.ensure_future(self.all(stream))
        await asyncio.sleep(0)
        await stream.aclose()
        self.assertEqual(await asyncio.wait_for(seen, PATIENCE), [])

    async def all(self, stream):
        return [message async for message in stream]


class Queue(Case):
    async def test_a_full_queue_drops_messages_and_says_where(self):
        events = Events()
        for seq in range(1, 3 * EVENTS_MAX):
            events.push(inbound(seq), 100)
            events.push({"event": "delivery", "id": "x", "state": "read"}, 100)
            if seq % 500 == 0:
                events.push(inbound(seq, "query", answer=True), 100)
        taken = []
        while (event := events.pop()) is not None:
            taken.append(event)
        self.assertLess(len(taken), EVENTS_MAX + 20)
        names = [event["event"] for event in taken]
        self.assertEqual((names.count("slow_consumer"), names.count("missed")), (1, 1))
        messages = [event["seq"] for event in taken if event["event"] == "inbound" and "answer" not in event]
        slow = taken[names.index("slow_consumer")]
        self.assertEqual(slow["resume_from_seq"], messages[-1] + 1)
        # Requests always fit, and after all were taken there is room again.
        self.assertEqual(len([event for event in taken if event.get("answer")]), 6)
        events.push(inbound(9), EVENT_BYTES_MAX)
        self.assertEqual(events.pop()["seq"], 9)

    async def test_more_requests_than_there_can_be_end_the_connection(self):
        events = Events()
        with self.assertRaises(AxonError):
            for seq in range(5000):
                events.push(inbound(seq, "query", answer=True), 100)


class Answering(Case):
    async def attached(self, agent):
        starting = asyncio.ensure_future(agent.start())
        fake = await self.accept()
        await fake.hello()
        command = await fake.subscribed()
        await starting
        self.addAsyncCleanup(agent.close)
        return fake, command

    def request(self, id, kind, payload, **more):
        event = inbound(7, kind, answer=True, **more)
        event["envelope"] = envelope(id, kind, payload, **more.pop("envelope", {}))
        return event

    async def test_the_narrowest_domain_answers(self):
        agent = axon_client.Agent(self.path, capacity=3)

        @agent.answer("query", domain="family")
        async def family(request):
            return "family"

        @agent.answer("query", domain="family.calendar")
        def calendar(request):
            return {"at": request.domain}

        fake, command = await self.attached(agent)
        self.assertEqual(
            (command["answer"], command["domains"], command["capacity"]),
            (["query"], ["family", "family.calendar"], 3),
        )
        await fake.say(self.request("q", "query", {"question": "?", "domain": "family.calendar.today"}))
        _, kind, payload = await fake.replied()
        self.assertEqual((kind, payload["data"]), ("response", {"at": "family.calendar.today"}))
        await fake.say(self.request("r", "query", {"question": "?", "domain": "family.other"}))
        self.assertEqual((await fake.replied())[2]["summary"], "family")

    async def test_who_does_not_listen_is_cancelled_and_the_cancel_is_acked_after_it(self):
        agent, begun, left = axon_client.Agent(self.path), asyncio.Event(), []

        @agent.answer("delegate")
        async def work(request):
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                left.append(request.ended)

        self.shorten(_serve, "GRACE_SECS", 0.02)
        fake, command = await self.attached(agent)
        self.assertEqual(command["answer"], ["delegate", "cancel"])
        await fake.say(self.request("d", "delegate", {"task": "t"}))
        self.assertEqual(await fake.replied(), ("d", "ack", {"accepted": True}))
        await begun.wait()
        await fake.say(self.request("c", "cancel", {}, envelope={"ref": "d"}))
        self.assertEqual(await fake.replied(), ("c", "ack", {"accepted": True}))
        self.assertEqual(left, ["cancelled"])
        await fake.say(self.request("c", "cancel", {}, envelope={"ref": "d"}))
        self.assertFalse((await fake.replied())[2]["accepted"])

    def shorten(self, module, name, secs):
        before = getattr(module, name)
        setattr(module, name, secs)
        self.addCleanup(setattr, module, name, before)

    async def test_a_result_is_given_again_over_a_new_connection_and_while_it_is_refused_for_now(self):
        agent, go = axon_client.Agent(self.path), asyncio.Event()

        @agent.answer("delegate")
        async def work(request):
            await request.progress("running", 10)
            await request.progress("running", 20)
            await go.wait()
            return "done"

        self.shorten(_serve, "RETRY_SECS", 0.01)
        fake, _ = await self.attached(agent)
        await fake.say(self.request("d", "delegate", {"task": "t"}))
        self.assertEqual((await fake.replied())[1], "ack")
        await fake.fail(await fake.next("reply"), "not_offered")
        await fake.fail(await fake.next("reply"), "peer_unreachable")
        fake.close()
        fake = await self.accept()
        await fake.hello()
        await fake.subscribed()
        # The daemon hands it out again; it is not begun again.
        await fake.say(self.request("d", "delegate", {"task": "t"}))
        self.assertEqual(await fake.replied(), ("d", "ack", {"accepted": True}))
        go.set()
        await fake.fail(await fake.next("reply"), "overloaded")
        self.assertEqual(
            await fake.replied(), ("d", "result", {"status": "completed", "outcome": "done"})
        )

    async def test_what_cannot_be_said_is_told(self):
        agent, unsent = axon_client.Agent(self.path), asyncio.Queue()
        agent.on_unsent(lambda id, error: unsent.put_nowait((id, error.code)))

        @agent.answer("query")
        async def late(request):
            return "late"

        fake, _ = await self.attached(agent)
        await fake.say(self.request("q", "query", {"question": "?"}))
        await fake.fail(await fake.next("reply"), "timeout")
        self.assertEqual(await asyncio.wait_for(unsent.get(), PATIENCE), ("q", "timeout"))

    async def test_wrong_use_is_told_at_once(self):
        agent = axon_client.Agent(self.path)
        with self.assertRaises(ValueError):
            agent.answer("cancel")
        with self.assertRaises(ValueError):
            await agent.start()


class Answers(unittest.TestCase):
    def test_words_are_cut_near_the_tokens_asked_for(self):
        self.assertEqual(
            reply_of("ä" * 10, "query", 2),
            ("response", {"summary": "ääää", "data": None, "truncated": True}),
        )

    def test_every_answer_fits_into_a_message(self):
        for text in ("x" * 200_000, "\x01" * 70_000, '"' * 70_000, "€" * 70_000, "\ud800" * 70_000):
            for kind in ("query", "delegate"):
                for outcome in (text, Refuse("internal", text), Answer(text, data="x" * 60_000), {"x": text}):
                    _, payload = reply_of(outcome, kind, None)
                    size = len(json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode())
                    self.assertLessEqual(size, PAYLOAD_BYTES_MAX)

    def test_any_value_is_an_answer_and_what_is_no_json_is_an_error(self):
        self.assertEqual(reply_of(None, "query", None)[1], {"summary": "", "data": None})
        self.assertEqual(reply_of([1], "delegate", None)[1],
                         {"status": "completed", "outcome": "[1]", "data": [1]})
        for outcome in (object(), {1, 2}, float("nan"), Answer("x", data=object())):
            kind, payload = reply_of(outcome, "query", None)
            self.assertEqual((kind, payload["code"]), ("error", "internal"))


class Sync(Case):
    async def test_a_close_ends_what_waits_in_other_threads(self):
        agent = axon_client.sync.Agent(self.path)
        opening = asyncio.get_running_loop().run_in_executor(None, agent.open)
        fake = await self.accept()
        await fake.hello()
        await opening
        self.assertIsNone(
            await asyncio.get_running_loop().run_in_executor(None, agent.next_event, 0.01)
        )
        said = []

        def ask():
            try:
                agent.ask("bob", "?")
            except AxonError as error:
                said.append(error.code)

        thread = threading.Thread(target=ask)
        thread.start()
        await fake.next("send")
        await asyncio.get_running_loop().run_in_executor(None, agent.close)
        await asyncio.get_running_loop().run_in_executor(None, thread.join, PATIENCE)
        self.assertEqual(said, ["closed"])
        with self.assertRaises(AxonError):
            agent.status()

    def test_both_faces_have_the_same_names(self):
        def names(face):
            return {name for name in dir(face) if not name.startswith("_")}

        for name in ("Agent", "Delegation", "Message", "Page"):
            slow, quick = getattr(axon_client, name), getattr(axon_client.sync, name)
            # What a plain class sets when it is made is not among its names.
            extra = {"run"} if name == "Agent" else set()
            here = names(slow) - extra if name != "Page" else set()
            self.assertLessEqual(here, names(quick) | {"consumer", "read", "path"}, name)


# An agent that gets Ctrl-C while its first thread sleeps: the signal is delivered to another thread.
INTERRUPTED = """
import signal, sys, threading, time
# Whoever runs the tests in the background may have them ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
import {module} as client

ended = threading.Event()
agent = client.Agent(sys.argv[1])

@agent.answer("query")
def interrupt(request):
    # Nothing tells when the first thread has come to rest.
    time.sleep(0.3)
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)
    ended.wait(60)

agent.{verb}()
ended.set()
print("ended")
"""


class Interrupted(Case):
    async def ends(self, module, verb):
        program = INTERRUPTED.format(module=module, verb=verb)
        ran = await asyncio.create_subprocess_exec(
            sys.executable, "-B", "-c", program, self.path,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(HERE.parent / "src")},
        )
        try:
            fake = await self.accept()
            await fake.hello()
            await fake.subscribed()
            event = inbound(7, "query", answer=True)
            event["envelope"] = envelope("q", "query", {"question": "?"})
            await fake.say(event)
            said = await asyncio.wait_for(ran.communicate(), PATIENCE)
            self.assertEqual((ran.returncode, *said), (0, b"ended\n", b""))
        finally:
            if ran.returncode is None:
                ran.kill()
                await ran.wait()

    async def test_an_interrupt_that_another_thread_gets_ends_it(self):
        await self.ends("axon_client", "run")

    async def test_an_interrupt_that_another_thread_gets_ends_it_without_asyncio(self):
        await self.ends("axon_client.sync", "serve")


class Shape(unittest.TestCase):
    def test_the_version_is_that_of_the_daemon(self):
        cargo = HERE.parents[3] / "Cargo.toml"
        found = re.search(r'^version = "(.*)"$', cargo.read_text(encoding="utf-8"), re.MULTILINE)
        self.assertEqual(axon_client.__version__, found.group(1))

    def test_what_the_package_says_of_itself_is_there(self):
        for name in axon_client.__all__:
            self.assertTrue(hasattr(axon_client, name), name)
        self.assertEqual(_wire.LINE_BYTES_MAX, 65_536)


if __name__ == "__main__":
    unittest.main()
