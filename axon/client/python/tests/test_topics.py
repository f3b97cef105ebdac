"""Topics, against a daemon of a few lines."""

import asyncio
import unittest

from test_library import BOB, PATIENCE, Case, inbound

import axon_client
import axon_client.sync


def said(seq, **more):
    event = inbound(seq, "topic.message")
    payload = {"topic": "build.main", "seq": 40 + seq, "hops": 2, "age_ms": 7, "message": {"n": seq}, **more}
    event["envelope"]["payload"] = payload
    return event


class Topics(Case):
    async def test_commands_have_what_was_said(self):
        agent, fake = await self.connected()

        async def asked(work, wanted, **reply):
            asking = asyncio.ensure_future(work)
            command = await fake.next()
            await fake.ok(command, **reply)
            del command["req_id"]
            self.assertEqual({name: value for name, value in command.items() if value is not None}, wanted)
            return await asking

        wanted = {"cmd": "publish", "topic": "a", "payload": {"x": 1}}
        reply = await asked(agent.publish("a", {"x": 1}), wanted, seq=5, neighbours=1, subscribers=0)
        self.assertEqual(reply["seq"], 5)
        wanted = {"cmd": "subscribe_topic", "topic": "a.>", "from": "any", "history": True}
        work = agent.subscribe_topic("a.>", from_any=True, history=True)
        await asked(work, wanted, subscribed="a.>", neighbours=1, since_seq=3)
        wanted = {"cmd": "subscribe_topic", "topic": "b", "kept": True}
        await asked(agent.subscribe_topic("b", kept=True), wanted, subscribed="b", neighbours=1, since_seq=3)
        wanted = {"cmd": "topic_keep", "topic": "a.>", "last": 5, "hours": 2}
        await asked(agent.topic_keep("a.>", last=5, hours=2), wanted, kept="a.>")
        wanted = {"cmd": "topic_keep", "topic": "a.>", "off": True}
        await asked(agent.topic_keep("a.>", off=True), wanted, kept="a.>")
        wanted = {"cmd": "topic_peers", "topic": "a"}
        row = {"id": BOB, "filters": ["a"], "keeps": [], "lazy": 0}
        self.assertEqual(await asked(agent.topic_peers("a"), wanted, peers=[row]), [row])
        nothing = {"subscriptions": [], "keeps": [], "relay": [">"], "seen": []}
        self.assertEqual((await asked(agent.topics(), {"cmd": "topics"}, **nothing))["relay"], [">"])

        wanted = {"cmd": "unsubscribe_topic", "topic": "a.>"}
        self.assertIs(await asked(agent.unsubscribe_topic("a.>"), wanted, unsubscribed=True), True)

    async def test_what_was_subscribed_is_subscribed_again(self):
        agent, fake = await self.connected()
        for topic, more in (("a.>", {"history": True}), ("b", {"kept": True}), ("c", {})):
            work = asyncio.ensure_future(agent.subscribe_topic(topic, **more))
            await fake.ok(await fake.next("subscribe_topic"), subscribed=topic, neighbours=0, since_seq=1)
            await work
        work = asyncio.ensure_future(agent.unsubscribe_topic("c"))
        await fake.ok(await fake.next("unsubscribe_topic"), unsubscribed=True)
        await work
        event = asyncio.ensure_future(agent.next_event())
        fake.close()
        fake = await self.accept()
        await fake.hello()
        # What the consumer keeps is still there, and what was kept of the topic was told.
        again = await fake.next("subscribe_topic")
        self.assertEqual((again["topic"], again.get("history")), ("a.>", None))
        await fake.ok(again, subscribed="a.>", neighbours=0, since_seq=1)
        self.assertEqual((await event).name, "missed")

    async def test_a_stream_gives_what_was_published_and_goes_on(self):
        stream = axon_client.Agent(self.path).listen("build.>", "chat", from_any=True)
        taking = asyncio.ensure_future(stream.__anext__())

        async def subscribed():
            fake = await self.accept()
            await fake.hello()
            for topic in ("build.>", "chat"):
                command = await fake.next("subscribe_topic")
                self.assertEqual((command["topic"], command["from"]), (topic, "any"))
                await fake.ok(command, subscribed=topic, neighbours=0, since_seq=1)
            return fake

        fake = await subscribed()
        await fake.say(said(1, stranger=True, via=BOB))
        first = await asyncio.wait_for(taking, PATIENCE)
        self.assertEqual((first.topic, first.publisher, first.seq), ("build.main", BOB, 41))
        self.assertEqual(first.message, {"n": 1})
        self.assertEqual((first.via, first.hops, first.age_ms), (BOB, 2, 7))
        self.assertTrue(first.stranger and not first.history)

        await fake.say({"event": "slow_consumer", "resume_from_seq": 2})
        taking = asyncio.ensure_future(stream.__anext__())
        self.assertIs((await fake.subscribed())["replay"], False)
        await fake.say(said(9))
        self.assertEqual((await asyncio.wait_for(taking, PATIENCE)).message, {"n": 9})
        self.assertEqual(stream.missed, 1)

        fake.close()
        taking = asyncio.ensure_future(stream.__anext__())
        await (await subscribed()).say(said(10))
        self.assertEqual((await asyncio.wait_for(taking, PATIENCE)).message, {"n": 10})
        taking = asyncio.ensure_future(stream.__anext__())
        await asyncio.sleep(0)
        await stream.aclose()
        with self.assertRaises(StopAsyncIteration):
            await taking

    async def test_a_plain_program_has_the_same(self):
        loop = asyncio.get_running_loop()
        agent = axon_client.sync.Agent(self.path)
        stream = await loop.run_in_executor(None, lambda: agent.listen("build.>", timeout=PATIENCE))
        taking = loop.run_in_executor(None, lambda: next(stream))
        fake = await self.accept()
        await fake.hello()
        await fake.ok(await fake.next("subscribe_topic"), subscribed="build.>", neighbours=0, since_seq=1)
        await fake.say(said(1, history=True))
        self.assertTrue((await taking).history)
        await loop.run_in_executor(None, stream.close)
        await loop.run_in_executor(None, agent.close)

    async def test_wrong_use_is_told_at_once(self):
        with self.assertRaises(ValueError):
            axon_client.Agent(self.path).listen()
        note = axon_client.Message.read(inbound(1))
        with self.assertRaises(axon_client.AxonError):
            axon_client.TopicMessage.read(note)


if __name__ == "__main__":
    unittest.main()
