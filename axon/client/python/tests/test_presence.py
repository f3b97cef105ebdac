"""Presence, against a daemon of a few lines."""

import asyncio
import unittest

from test_library import BOB, Case


class Presence(Case):
    async def test_commands_have_what_was_said(self):
        agent, fake = await self.connected()

        async def asked(work, wanted, **reply):
            asking = asyncio.ensure_future(work)
            command = await fake.next()
            await fake.ok(command, **reply)
            del command["req_id"]
            self.assertEqual({name: value for name, value in command.items() if value is not None}, wanted)
            return await asking

        row = {"id": BOB, "connected": True, "status": "idle"}
        wanted = {"cmd": "presence", "peer": "bob"}
        self.assertEqual(await asked(agent.presence("bob"), wanted, status="idle", presence=[row]), [row])
        wanted = {"cmd": "set_presence", "status": "away"}
        self.assertEqual(await asked(agent.set_presence("away"), wanted, status="dnd"), "dnd")
        await asked(agent.set_presence(), {"cmd": "set_presence"}, status="idle")
        await asked(agent.watch_presence(), {"cmd": "subscribe_presence", "on": True}, on=True)
        await asked(agent.watch_presence(False), {"cmd": "subscribe_presence", "on": False}, on=False)
        wanted = {"cmd": "who", "domain": "family", "tool": "x"}
        self.assertEqual(await asked(agent.who("family", "x"), wanted, agents=[row]), [row])
        wanted = {"cmd": "find", "tool": "x", "hops": 3}
        self.assertEqual(await asked(agent.find(tool="x", hops=3), wanted, agents=[]), [])
        self.assertEqual(await asked(agent.find(BOB), {"cmd": "find", "id": BOB}, agents=[]), [])


if __name__ == "__main__":
    unittest.main()
