#!/usr/bin/env python3
"""An axon agent on Python's standard library alone (Python 3.9 or later).

    python3 examples/python/agent.py [SOCKET]

SOCKET is $AXON_ROOT/axon.sock, or ~/.axon/axon.sock, when it is not given. The agent answers queries of the
domain "text", takes delegations, tells how far they are, stops when they are cancelled, and connects again
when the daemon was restarted. Put your own agent into `answer` and `work`; the rest can stay as it is. What
is said on the socket is in spec/IPC.md.
"""
import json
import os
import socket
import sys
import threading
import time

CAPABILITIES = {"agent_name": "counter", "domains": ["text"], "max_concurrent_tasks": 4}


def answer(query):
    """The answer to a query: `data` for programs, `summary` for readers."""
    words = query["question"].split()
    letters = sum(len(word) for word in words)
    summary = f"{len(words)} words, {letters} letters."
    return {"data": {"words": len(words), "letters": letters}, "summary": summary}


def work(delegation, progress, stopped):
    """Does the work of a delegation, until the event `stopped`, and returns its result."""
    words = delegation["task"].split()
    for done, word in enumerate(words, 1):
        if stopped.wait(0.05):  # Reading takes time.
            break
        progress({"state": "running", "percent": 100 * done // len(words), "note": f"read {word}"})
    return {"status": "completed", "outcome": f"read {len(words)} words", "data": {"words": len(words)}}


def whole(digits):
    """Python refuses to read a number of thousands of digits, and a peer may write one."""
    return int(digits) if len(digits) <= 640 else float(digits)


class Session:
    """One connection to the daemon."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(path)
        self.lines = self.socket.makefile("r", encoding="utf-8", newline="\n")
        self.lock = threading.Lock()
        self.commands = 0
        self.running = {}  # A delegation's id: the event that stops it.

    def serve(self):
        """Answers until the connection ends."""
        try:
            self.command("hello", version=2)
            hello = json.loads(self.lines.readline() or "{}")
            while "inbound" in hello:  # Meant for clients that send no hello.
                hello = json.loads(self.lines.readline() or "{}")
            if hello.get("version") != 2:
                raise OSError(hello.get("message", "the daemon does not speak version 2"))
            self.command("advertise", capabilities=CAPABILITIES)
            self.command("subscribe", answer=["query", "delegate", "cancel"], domains=["text"], capacity=4)
            for line in self.lines:
                self.take(json.loads(line, parse_int=whole))
        finally:
            for stopped in list(self.running.values()):
                stopped.set()
            self.socket.close()

    def take(self, line):
        """One line of the daemon: a reply to a command, or an event. Others are to be ignored."""
        if line.get("subscribed"):
            print(f"answering as {CAPABILITIES['agent_name']}", flush=True)
        elif line.get("ok") is False:
            print(f"{line['error']}: {line['message']}", file=sys.stderr)
        elif line.get("event") == "inbound" and line.get("answer"):
            # A thread each, so that none waits for another; the daemon keeps to the capacity.
            threading.Thread(target=self.request, args=(line["envelope"],), daemon=True).start()
        elif line.get("event") == "withdrawn":
            self.stop(line["ref"])

    def request(self, envelope):
        """One request of a peer."""
        name, kind, payload = envelope["id"], envelope["kind"], envelope["payload"]
        try:
            if kind == "query":
                self.reply(name, "response", answer(payload))
            elif kind == "delegate":
                self.delegation(name, payload)
            elif self.stop(envelope["ref"]):
                self.reply(name, "ack", {"accepted": True})
            else:
                self.reply(name, "ack", {"accepted": False, "reason": "it is finished, or was never here"})
        except OSError:
            pass  # The connection is gone, and `serve` says so.
        except Exception as error:
            print(f"{kind} {name} failed: {error!r}", file=sys.stderr)
            self.stop(name)
            self.reply(name, "error", {"code": "internal", "message": "the agent failed", "retryable": False})

    def delegation(self, name, payload):
        """Accepts a delegation, works on it and reports. A cancelled one is not reported."""
        stopped = self.running[name] = threading.Event()
        self.reply(name, "ack", {"accepted": True})
        result = work(payload, lambda progress: self.reply(name, "progress", progress), stopped)
        if self.running.pop(name, None):
            self.reply(name, "result", result)

    def stop(self, name):
        """Stops a delegation. False: it does not run here."""
        stopped = self.running.pop(name, None)
        if stopped:
            stopped.set()
        return stopped is not None

    def reply(self, name, kind, payload):
        self.command("reply", ref=name, kind=kind, payload=payload)

    def command(self, cmd, **fields):
        with self.lock:  # Threads write whole lines.
            self.commands += 1
            line = json.dumps({"cmd": cmd, "req_id": str(self.commands), **fields})
            self.socket.sendall(line.encode() + b"\n")


def main():
    root = os.environ.get("AXON_ROOT") or os.path.expanduser("~/.axon")
    path = sys.argv[1] if len(sys.argv) > 1 else os.path.join(root, "axon.sock")
    wait = 0.1
    while True:
        try:
            session = Session(path)
            wait = 0.1
            session.serve()
            why = "the daemon has closed the connection"
        except (OSError, ValueError) as error:
            why = error
        print(f"{why}; trying again", file=sys.stderr)
        time.sleep(wait)
        wait = min(2 * wait, 2)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
