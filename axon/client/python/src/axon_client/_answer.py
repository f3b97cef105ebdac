"""What an agent says to a request, and how it becomes a payload that a message can hold."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Optional, Tuple, Union

from ._events import Json

# Longest payload, encoded: a message less the rest of its envelope and of the command that carries it.
PAYLOAD_BYTES_MAX = 65_536 - 512
# How many bytes of text a token is taken for.
BYTES_PER_TOKEN = 4
# A summary made of data is no longer than this.
SUMMARY_BYTES = 200

_RETRYABLE = frozenset({"overloaded", "internal", "timeout", "unhandled"})


@dataclass(frozen=True)
class Answer:
    """An answer in words, and the same for programs. It is cut near the query's `max_tokens`."""

    text: str
    data: Any = None
    #: Whether the words are not all there is.
    truncated: bool = False


class Refuse(Exception):
    """Raised by a handler: no answer, but a code and a sentence for the peer that says what to do instead.

    A query gets an `error`; a delegation, which has been acked, ends as failed.
    """

    def __init__(self, code: str, message: str, *, retryable: Optional[bool] = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retryable = code in _RETRYABLE if retryable is None else retryable


#: What a handler may return: an `Answer`, its text, or any JSON value, which becomes its data.
Outcome = Union[Answer, str, int, float, bool, None, "list[Any]", "dict[str, Any]"]


def reply_of(outcome: Union[Outcome, Refuse], kind: str, max_tokens: Optional[int]) -> Tuple[str, Json]:
    """Kind and payload of the reply to a request of this kind."""
    work = kind == "delegate"
    if isinstance(outcome, Refuse):
        if not work:
            message = _fit(outcome.message, PAYLOAD_BYTES_MAX - 256)
            return "error", {"code": outcome.code, "message": message, "retryable": outcome.retryable}
        said = _fit(outcome.message, PAYLOAD_BYTES_MAX // 2 - 256)
        return "result", {"status": "failed", "outcome": said, "error": f"{outcome.code}: {said}"}
    answer = outcome if isinstance(outcome, Answer) else _answer(outcome)
    try:
        taken = len(_encoded(answer.data))
    except (TypeError, ValueError, RecursionError):
        return reply_of(Refuse("internal", "the agent gave an answer that is no JSON"), kind, None)
    text = _fit(_cut(answer.text, max_tokens), PAYLOAD_BYTES_MAX - taken - 128)
    payload: Json = {"status": "completed", "outcome": text} if work else {"summary": text}
    if not work or answer.data is not None:
        payload["data"] = answer.data
    if answer.truncated or len(text) < len(answer.text):
        payload["truncated"] = True
    size = len(_encoded(payload))
    if size > PAYLOAD_BYTES_MAX:
        why = f"the answer has {size} bytes and a message holds {PAYLOAD_BYTES_MAX}: ask for less"
        return reply_of(Refuse("internal", why), kind, None)
    return ("result" if work else "response"), payload


def _answer(outcome: Any) -> Answer:
    if outcome is None:
        return Answer("")
    if isinstance(outcome, str):
        return Answer(outcome)
    try:
        text = json.dumps(outcome, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError):
        text = ""
    brief = text.encode("utf-8", "replace")[:SUMMARY_BYTES].decode("utf-8", "ignore")
    return Answer(brief if brief == text else brief + "…", outcome)


def _encoded(value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8")


def _cut(text: str, max_tokens: Optional[int]) -> str:
    if not max_tokens:
        return text
    return text.encode("utf-8", "replace")[: max_tokens * BYTES_PER_TOKEN].decode("utf-8", "ignore")


def _fit(text: str, encoded_max: int) -> str:
    """The beginning of a text that takes at most this many bytes as JSON."""
    # A lone surrogate is no text for others.
    text = text.encode("utf-8", "replace").decode("utf-8")
    if 6 * len(text) <= encoded_max:
        return text
    encoded = 0
    for at, char in enumerate(text):
        if char in '"\\\n\r\t\b\f':
            encoded += 2
        elif char < " ":
            encoded += 6
        else:
            encoded += len(char.encode("utf-8"))
        if encoded > encoded_max:
            return text[:at]
    return text
