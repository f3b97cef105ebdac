"""Plays the shared cases of the client libraries (tests/clients/README.md) over this one.

    AXON_CASES=… AXON_A=… AXON_B=… python3 cases.py [--sync]

With `--sync` it plays them over `axon_client.sync`, each call in a thread.
"""

import asyncio
import functools
import json
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "src"))

import axon_client  # noqa: E402
import axon_client.sync  # noqa: E402

SYNC = "--sync" in sys.argv
STEP_SECS = 15
THREADS = ThreadPoolExecutor(64)
WORDS = ("do", "on", "as", "save", "expect", "error", "start")


class Failed(Exception):
    """A step did not hold."""


async def call(function, *args, **fields):
    """Calls a method of the library, whichever face it has."""
    bound = functools.partial(function, *args, **fields)
    if SYNC:
        return await asyncio.get_running_loop().run_in_executor(THREADS, bound)
    return await bound()


def harness(line):
    """Asks the harness for something."""
    print(line, flush=True)
    said = sys.stdin.readline().strip()
    if said != "done":
        raise Failed(f"the harness, to {line!r}: {said}")


def matches(want, is_):
    """Whether a result is as expected."""
    if isinstance(want, dict):
        if len(want) == 1:
            (key, arg), = want.items()
            if key == "$any":
                return is_ is not None
            if key == "$has" and isinstance(is_, str):
                return arg in is_
            if key == "$has":
                return isinstance(is_, list) and any(matches(arg, one) for one in is_)
            if key == "$gt":
                return isinstance(is_, (int, float)) and is_ > arg
            if key == "$len":
                return hasattr(is_, "__len__") and len(is_) == arg
            if key == "$in":
                return any(matches(one, is_) for one in arg)
        return isinstance(is_, dict) and all(matches(one, is_.get(name)) for name, one in want.items())
    if isinstance(want, list):
        return isinstance(is_, list) and len(want) == len(is_) and all(map(matches, want, is_))
    return type(want) is type(is_) and want == is_ or want == is_ and not isinstance(want, bool)


def row(message):
    """A message as the cases see it."""
    return {
        "seq": message.seq,
        "trust": message.trust,
        "from_name": message.from_name,
        "envelope": message.envelope.raw,
    }


class Answerer:
    """An agent that does what a script says."""

    def __init__(self, case, path, consumer, step):
        self.case = case
        self.handled = []
        self.attached = self.begun = 0
        self.changed = asyncio.Condition()
        self.loop = asyncio.get_running_loop()
        face = axon_client.sync if SYNC else axon_client
        self.agent = face.Agent(path, consumer=consumer, capacity=step.get("capacity", 16))
        self.agent.on_attached(lambda: self.note(self.attach))
        kinds = step.get("kinds") or ["query", "delegate"]
        handler = self.plainly if SYNC else self.awaiting
        for domain in step.get("domains") or [None]:
            if "query" in kinds:
                self.agent.answer("query", domain=domain)(functools.partial(handler, step["script"])
                                                          if SYNC else self.wrap(step["script"]))
        if "delegate" in kinds:
            self.agent.answer("delegate")(functools.partial(handler, step["script"])
                                          if SYNC else self.wrap(step["script"]))

    def wrap(self, script):
        async def handler(request):
            return await self.awaiting(script, request)

        return handler

    def note(self, change):
        async def noted():
            async with self.changed:
                change()
                self.changed.notify_all()

        asyncio.run_coroutine_threadsafe(noted(), self.loop)

    def attach(self):
        self.attached += 1

    def begin(self):
        self.begun += 1

    async def until(self, holds):
        async with self.changed:
            await self.changed.wait_for(holds)

    def left(self, request):
        seen = {
            "kind": request.kind,
            "subject": request.subject,
            "domain": request.domain,
            "from_name": request.from_name,
            "trust": request.trust,
            "ended": request.ended,
        }
        self.note(lambda: self.handled.append(seen))

    async def awaiting(self, script, request):
        self.note(self.begin)
        try:
            while True:
                script = script["by"][request.subject] if "by" in script else script
                if "progress" in script:
                    for told in script["progress"]:
                        await request.progress(**told)
                elif "gate" in script:
                    gate = asyncio.ensure_future(self.case.gate(script["gate"]).wait())
                    ended = asyncio.ensure_future(request.wait_ended())
                    await asyncio.wait({gate, ended}, return_when=asyncio.FIRST_COMPLETED)
                    if request.ended:
                        return None
                elif "until_end" in script:
                    await request.wait_ended()
                    return None
                else:
                    return last(script, request)
                script = script["then"]
        finally:
            self.left(request)

    def plainly(self, script, request):
        self.note(self.begin)
        try:
            while True:
                script = script["by"][request.subject] if "by" in script else script
                if "progress" in script:
                    for told in script["progress"]:
                        request.progress(**told)
                elif "gate" in script:
                    gate = self.case.plain_gate(script["gate"])
                    while not gate.wait(0.02):
                        if request.ended:
                            return None
                elif "until_end" in script:
                    request.wait_ended()
                    return None
                else:
                    return last(script, request)
                script = script["then"]
        finally:
            self.left(request)


def last(script, request):
    """What a script says in the end."""
    if "throw" in script:
        raise RuntimeError(script["throw"])
    if "fail" in script:
        raise axon_client.Refuse(script["fail"], script["message"])
    if "say" in script:
        return axon_client.Answer(script["say"], data=script.get("data"))
    return request.subject


class Case:
    """One case and what it has made."""

    def __init__(self, id):
        self.id = id
        self.things = {}
        self.saved = {}
        self.tasks = {}
        self.gates = {}
        self.plain_gates = {}

    def gate(self, name):
        return self.gates.setdefault(name, asyncio.Event())

    def plain_gate(self, name):
        return self.plain_gates.setdefault(name, threading.Event())

    def value(self, given):
        """An argument, with what stands for something else."""
        if isinstance(given, str) and given.startswith("$"):
            name, *path = given[1:].split(".")
            found = self.saved[name]
            for part in path:
                found = found[int(part)] if isinstance(found, list) else found[part]
            return found
        if isinstance(given, list):
            return [self.value(one) for one in given]
        if isinstance(given, dict):
            if set(given) == {"$text"}:
                return given["$text"][0] * given["$text"][1]
            return {name: self.value(one) for name, one in given.items()}
        return given

    async def play(self, steps):
        for number, step in enumerate(steps, 1):
            try:
                await self.step(step)
            except Failed as why:
                raise Failed(f"step {number} ({step['do']}): {why}") from None

    async def step(self, step):
        if step["do"] == "repeat":
            for _ in range(step["times"]):
                await self.play(step["steps"])
            return
        if "start" in step:
            task = asyncio.ensure_future(self.do(step))
            self.tasks[step["start"]] = task
            await asyncio.sleep(0)
            return
        work = self.tasks[step["task"]] if step["do"] == "join" else asyncio.ensure_future(self.do(step))
        done, _ = await asyncio.wait({work}, timeout=STEP_SECS)
        if not done:
            work.cancel()
            raise Failed(f"not done within {STEP_SECS} s")
        error = work.exception()
        if "error" in step:
            if not isinstance(error, axon_client.AxonError):
                raise Failed(f"wanted the error {step['error']}, got {error or work.result()!r}")
            if error.code != step["error"] or not error.message:
                raise Failed(f"wanted the error {step['error']}, got {error}")
            return
        if error is not None:
            raise Failed(f"{type(error).__name__}: {error}")
        result = work.result()
        if "save" in step:
            self.saved[step["save"]] = result
        if "expect" in step and not matches(self.value(step["expect"]), result):
            raise Failed(f"wanted {step['expect']}, got {str(result)[:600]}")

    def path(self, step):
        if "path" in step:
            return self.value(step["path"])
        if step["daemon"] == "none":
            return os.environ["AXON_A"] + "-none"
        return os.environ["AXON_" + step["daemon"]]

    async def do(self, step):
        fields = {name: self.value(one) for name, one in step.items() if name not in WORDS}
        verb = getattr(self, step["do"], None)
        if verb is not None:
            return await verb(step, fields)
        return await self.of_agent(step["do"], self.things[step["on"]], fields)

    # ---- What makes something ------------------------------------------------------------------------------

    async def connect(self, step, fields):
        face = axon_client.sync if SYNC else axon_client
        path, consumer = self.path(step), fields.get("consumer", self.id)
        if SYNC:
            agent = await call(face.connect, path, consumer=consumer)
        else:
            agent = await face.connect(path, consumer=consumer)
        self.things[step["as"]] = agent
        return {"agent_id": agent.agent_id}

    async def messages(self, step, fields):
        face = axon_client.sync if SYNC else axon_client
        agent = face.Agent(self.path(step), consumer=fields.get("consumer", self.id))
        stream = agent.inbox(fields.get("kinds"))
        await call(stream.open)
        self.things[step["as"]] = stream

    async def answer(self, step, fields):
        one = Answerer(self, self.path(step), fields.get("consumer", self.id), step)
        self.things[step["as"]] = one
        await call(one.agent.start)
        await one.until(lambda: one.attached > 0)

    async def close(self, step, fields):
        await self.end(self.things.pop(step["on"]))

    async def end(self, thing):
        thing = getattr(thing, "agent", thing)
        await call(getattr(thing, "aclose", None) or thing.close)

    # ---- Streams, answerers, the runner itself -------------------------------------------------------------

    async def next(self, step, fields):
        stream = self.things[step["on"]]
        return row(await call(stream.__next__ if SYNC else stream.__anext__))

    async def ack_to(self, step, fields):
        await call(self.things[step["on"]].ack, fields["seq"])

    async def lost(self, step, fields):
        return {"lost_before_seq": self.things[step["on"]].lost_before_seq}

    async def attached(self, step, fields):
        one = self.things[step["on"]]
        await one.until(lambda: one.attached >= fields["times"])

    async def begun(self, step, fields):
        one = self.things[step["on"]]
        await one.until(lambda: one.begun >= fields["count"])

    async def handled(self, step, fields):
        one = self.things[step["on"]]
        await one.until(lambda: len(one.handled) >= fields["count"])
        return one.handled

    async def release(self, step, fields):
        self.gate(fields["gate"]).set()
        self.plain_gate(fields["gate"]).set()

    async def harness(self, step, fields):
        await asyncio.get_running_loop().run_in_executor(THREADS, harness, fields["say"])

    async def event(self, step, fields):
        while True:
            event = await call(self.things[step["on"]].next_event)
            if matches(fields["where"], event.fields):
                return event.fields

    async def wanted(self, step, fields):
        while True:
            peers = await call(self.things[step["on"]].topic_peers, fields["topic"])
            if peers:
                return peers
            # The peer tells when it likes to: nothing tells here that it has.
            await asyncio.sleep(0.02)

    async def subscribed(self, step, fields):
        while True:
            rows = (await call(self.things[step["on"]].topics))["subscriptions"]
            if any(row["topic"] == fields["topic"] for row in rows):
                return
            # It is another client that comes back, when it likes to.
            await asyncio.sleep(0.02)

    async def drain(self, step, fields):
        agent, rows = self.things[step["on"]], 0
        while True:
            page = await call(agent.read_inbox, 1000)
            if page.next_seq is None:
                return rows
            rows += len(page.messages)
            await call(agent.ack, page.next_seq)

    # ---- An agent's methods --------------------------------------------------------------------------------

    async def of_agent(self, verb, agent, fields):
        names = {"inbox": "read_inbox", "take_back": "cancel_held"}
        method = getattr(agent, names.get(verb, verb))
        if verb == "wait" and "timeout_ms" in fields:
            fields["timeout"] = fields.pop("timeout_ms") / 1000
        got = await call(method, **fields)
        if verb == "query":
            return {"from": got.sender, "payload": got.payload}
        if verb in ("delegate", "notify"):
            return {"id": got.id, "state": got.state}
        if verb == "cancel":
            return {"accepted": got.accepted, "reason": got.reason}
        if verb == "subscribe":
            return {"subscribed": True, **vars(got)}
        if verb == "inbox":
            rows = [row(message) for message in got.messages]
            lost = got.lost_before_seq
            return {
                "messages": rows, "next_seq": got.next_seq, "has_more": got.has_more, "lost_before_seq": lost,
            }
        return got


async def main():
    cases = json.loads(Path(os.environ["AXON_CASES"]).read_text(encoding="utf-8"))["cases"]
    only, good = os.environ.get("AXON_ONLY"), True
    for given in cases:
        if only not in (None, given["id"]):
            continue
        case = Case(given["id"])
        try:
            await case.play(given["steps"])
            print(f"ok {case.id}", flush=True)
        except Failed as why:
            good = False
            print(f"FAILED {case.id} {why}".replace("\n", " "), flush=True)
        for task in case.tasks.values():
            task.cancel()
        for thing in case.things.values():
            await case.end(thing)
        await asyncio.gather(*case.tasks.values(), return_exceptions=True)
    return good


if __name__ == "__main__":
    held = asyncio.run(main())
    sys.exit(0 if held else 1)
