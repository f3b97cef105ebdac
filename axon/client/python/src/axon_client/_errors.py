"""What can go wrong, in one class."""

from __future__ import annotations

from typing import Optional

# Errors after which only a new connection can help.
_ENDS = frozenset({"no_daemon", "io", "closed", "protocol", "too_many_clients"})


class AxonError(Exception):
    """A failed call.

    `code` is for programs, `message` says in a sentence what happened and what to do next. Codes are those
    of the daemon and of the peer (spec/IPC.md and spec/WIRE_FORMAT.md, "Errors"); unknown ones may come. The
    library's own are `no_daemon` (nobody listens on the socket), `io`, `closed` (the connection ended before
    the reply: whether the command was carried out is not known), `stuck` (the daemon does not answer),
    `protocol`, `declined` (the peer does not take the work), `timeout` (of `wait`) and `not_acked`.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        retryable: bool = False,
        retry_after_ms: Optional[int] = None,
        peer: Optional[str] = None,
        id: Optional[str] = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        #: Whether the peer said that the same request may succeed later.
        self.retryable = retryable
        #: Not before so many milliseconds from then, where the peer said so.
        self.retry_after_ms = retry_after_ms
        #: The agent id of the peer that answered with this error; None when it comes from this side.
        self.peer = peer
        #: The request that the peer refused.
        self.id = id

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

    @property
    def ends_connection(self) -> bool:
        """Whether the connection is over. The next call makes a new one."""
        return self.code in _ENDS

    def again(self) -> AxonError:
        """The same error, to be raised once more."""
        return AxonError(
            self.code,
            self.message,
            retryable=self.retryable,
            retry_after_ms=self.retry_after_ms,
            peer=self.peer,
            id=self.id,
        )


def closed(why: str = "the daemon closed the connection: it has stopped or was restarted") -> AxonError:
    """The end of a connection."""
    return AxonError("closed", why)
