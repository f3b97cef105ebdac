"""Plays everything against one real daemon: the peer over QUIC, and the client over its socket.

Given: AXON_SOCKET, the main socket of a daemon that is called alice and whose settings are those of
tests/pypeer.rs. Prints a line `ok NAME` or `FAILED NAME: why` for each case. AXON_ONLY names the only case to
play; `-v` adds times and the places of failures.
"""

import asyncio
import os
import sys
import time
import traceback

import cases_meeting  # noqa: F401
import cases_asking  # noqa: F401
import cases_answering  # noqa: F401
import cases_wrong  # noqa: F401
import cases_pipe  # noqa: F401
from world import CASES


async def main() -> int:
    failed = 0
    only = os.environ.get("AXON_ONLY")
    for test in CASES:
        name = test.__name__
        if only not in (None, name):
            continue
        begun = time.monotonic()
        try:
            await asyncio.wait_for(test(), 60)
            took = round((time.monotonic() - begun) * 1000)
            print(f"ok {name}", *([f"({took} ms)"] if "-v" in sys.argv else []), flush=True)
        except BaseException as why:
            failed += 1
            where = "".join(traceback.format_exception(why)) if "-v" in sys.argv else ""
            print(f"FAILED {name}: {type(why).__name__}: {why}".replace("\n", " "), flush=True)
            print(where, file=sys.stderr, flush=True)
    return failed


sys.exit(asyncio.run(main()) > 0)
