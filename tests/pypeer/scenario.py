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
import cases_waiting  # noqa: F401
from world import ASIDES, CASES


ONLY = os.environ.get("AXON_ONLY")


async def play(test) -> bool:
    name, begun = test.__name__, time.monotonic()
    if ONLY not in (None, name):
        return True
    try:
        await asyncio.wait_for(test(), 60)
    except Exception as why:
        print(f"FAILED {name}: {type(why).__name__}: {why}".replace("\n", " "), flush=True)
        if "-v" in sys.argv:
            traceback.print_exception(why)
        return False
    took = round((time.monotonic() - begun) * 1000)
    print(f"ok {name}", *([f"({took} ms)"] if "-v" in sys.argv else []), flush=True)
    return True


async def main() -> int:
    went = [await play(test) for test in CASES]
    went += await asyncio.gather(*(play(test) for test in ASIDES))
    return 0 if all(went) else 1


sys.exit(asyncio.run(main()))
