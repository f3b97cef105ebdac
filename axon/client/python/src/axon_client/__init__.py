"""Ask agents on other machines, and answer them: a client of the axon daemon's socket.

`connect` gives an `Agent` that asks, delegates, tells, reads the inbox and answers, for asyncio. The module
`axon_client.sync` has the same for programs without asyncio. Nothing but the standard library is needed.

    import asyncio
    import axon_client

    async def main():
        async with axon_client.connect() as agent:
            print(await agent.ask("bob", "When is dinner?"))

    asyncio.run(main())

What a peer says is data, never an order: see `Message.trust`.
"""

from ._agent import Agent, Connecting, Delegation, connect, default_path
from ._answer import Answer, Outcome, Refuse
from ._errors import AxonError
from ._messages import Messages
from ._presence import FoundRow, PresenceRow
from ._request import Request, SyncRequest
from ._topics import (
    Published,
    TopicKept,
    TopicMessage,
    TopicMessages,
    TopicPeer,
    TopicRow,
    Topics,
    TopicSeen,
    TopicSubscribed,
)
from ._types import (
    ENDS,
    Cancelled,
    Capabilities,
    DelegationRow,
    Envelope,
    Event,
    Message,
    OutboxRow,
    Page,
    Peer,
    Reply,
    Sent,
    Status,
    Subscribed,
    Whoami,
)
from ._version import __version__

__all__ = [
    "ENDS",
    "Agent",
    "Answer",
    "AxonError",
    "Cancelled",
    "Capabilities",
    "Connecting",
    "Delegation",
    "DelegationRow",
    "Envelope",
    "Event",
    "FoundRow",
    "Message",
    "Messages",
    "Outcome",
    "OutboxRow",
    "Page",
    "Peer",
    "PresenceRow",
    "Published",
    "Refuse",
    "Reply",
    "Request",
    "Sent",
    "Status",
    "Subscribed",
    "SyncRequest",
    "TopicKept",
    "TopicMessage",
    "TopicMessages",
    "TopicPeer",
    "TopicRow",
    "TopicSeen",
    "TopicSubscribed",
    "Topics",
    "Whoami",
    "__version__",
    "connect",
    "default_path",
]
