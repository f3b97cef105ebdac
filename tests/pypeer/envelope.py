"""Envelopes, as WIRE_FORMAT 5 has them."""

import json
import re
import time
import uuid

UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
AGENT_ID = re.compile(r"ed25519\.[0-9a-f]{32}")
MESSAGE_MAX = 65_536

ALL_FEATURES = [
    "delegate",
    "ack",
    "result",
    "cancel",
    "discover",
    "capabilities",
    "progress",
    "receipt",
    "knock",
    "rekey",
]
# WF-FEA: what the receiver must have offered.
FEATURE = {
    kind: kind
    for kind in "delegate ack result cancel discover capabilities progress receipt knock rekey".split()
} | {"admission": "knock"}
# MESSAGE_TYPES: what each request may be answered by.
ANSWERS = {
    "hello": {"hello", "error"},
    "ping": {"pong", "error"},
    "query": {"response", "error"},
    "delegate": {"ack", "error"},
    "cancel": {"ack", "error"},
    "discover": {"capabilities", "error"},
    "knock": {"admission", "error"},
    "rekey": {"ack", "error"},
}
ONE_WAY = {"notify", "result", "progress", "error", "receipt"}


def new_id() -> str:
    return str(uuid.uuid4())


def make(sender: str, to: str, kind: str, payload: dict, **more) -> dict:
    """An envelope. What is given as None is left out (WF-ENV-1)."""
    made = {
        "v": 1,
        "id": new_id(),
        "from": sender,
        "to": to,
        "ts": time.time_ns() // 1_000_000,
        "kind": kind,
        "payload": payload,
    } | more
    return {name: value for name, value in made.items() if value is not None}


def write(envelope: dict) -> bytes:
    return json.dumps(envelope, ensure_ascii=False, separators=(",", ":")).encode()


def once(pairs: list) -> dict:
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        raise ValueError(f"a field is named twice: {names}")
    return dict(pairs)


def read(data: bytes) -> dict:
    """One JSON object in which no field is named twice."""
    found = json.loads(data.decode(), object_pairs_hook=once)
    if not isinstance(found, dict):
        raise ValueError("no object")
    return found


def faults(envelope: dict, sender: str, to: str) -> list[str]:
    """What a sender MUST have done and this one has not (WF-ENV-1, WF-ENV-7)."""
    found = []

    def wants(name: str, fits: bool) -> None:
        if not fits:
            found.append(f"{name} is {envelope.get(name)!r} in {envelope}")

    wants("v", envelope.get("v") == 1)
    wants("id", isinstance(envelope.get("id"), str) and bool(UUID4.fullmatch(envelope["id"])))
    wants("from", envelope.get("from") == sender)
    wants("to", envelope.get("to") == to)
    wants("ts", type(envelope.get("ts")) is int and envelope["ts"] > 0)
    kind = envelope.get("kind")
    wants("kind", isinstance(kind, str) and 1 <= len(kind.encode()) <= 64)
    wants("payload", isinstance(envelope.get("payload"), dict))
    if "ref" in envelope:
        wants("ref", isinstance(envelope["ref"], str) and bool(UUID4.fullmatch(envelope["ref"])))
    if "resend_until" in envelope:
        wants("resend_until", type(envelope["resend_until"]) is int)
    return found
