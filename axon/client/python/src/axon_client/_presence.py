"""Presence: how peers are, and agents that were found."""

from __future__ import annotations

from typing import Any, List, Mapping, Optional, TypedDict, cast

from ._events import Json


class _PresenceAlways(TypedDict):
    id: str
    connected: bool
    status: str


class PresenceRow(_PresenceAlways, total=False):
    """How a peer is, and what it says of what it can do and where it is."""

    name: str
    claimed: bool
    since_ms: int
    phi: float
    age_ms: int
    capabilities: str
    domains: List[str]
    tools: List[str]
    addrs: List[str]
    more: bool


class _FoundAlways(TypedDict):
    id: str
    public_key: str
    hops: int
    status: str
    ts_ms: int
    capabilities: str
    domains: List[str]
    tools: List[str]
    addrs: List[str]


class FoundRow(_FoundAlways, total=False):
    """An agent that was found, perhaps one that is no peer; `link` is for `axon connect`."""

    name: str
    claimed: bool
    trust: str
    more: bool
    link: str


class AsyncPresence:
    """What an agent says and asks of presence."""

    async def command(self, cmd: str, fields: Optional[Mapping[str, Any]] = None) -> Json:
        raise NotImplementedError

    async def presence(self, peer: Optional[str] = None) -> List[PresenceRow]:
        """How one peer is, or all: `idle`, `busy`, `away`, `dnd`, `offline`, or `unknown`."""
        return cast(List[PresenceRow], (await self.command("presence", {"peer": peer}))["presence"])

    async def set_presence(self, status: Optional[str] = None) -> str:
        """Says how this agent is, until this connection ends; without a status its word is taken back.

        Gives how the agent is then, by the word of all its clients or by its work.
        """
        return str((await self.command("set_presence", {"status": status}))["status"])

    async def watch_presence(self, on: bool = True) -> None:
        """Asks for an event when a peer comes, goes or changes. It ends with the connection."""
        await self.command("subscribe_presence", {"on": on})

    async def who(self, domain: Optional[str] = None, tool: Optional[str] = None) -> List[PresenceRow]:
        """Peers that serve a domain and have a tool, as far as they have said so."""
        return cast(List[PresenceRow], (await self.command("who", {"domain": domain, "tool": tool}))["agents"])

    async def find(
        self,
        id: Optional[str] = None,
        *,
        domain: Optional[str] = None,
        tool: Optional[str] = None,
        hops: Optional[int] = None,
    ) -> List[FoundRow]:
        """Looks among peers, and their peers, for an agent or for what it can do."""
        fields = {"id": id, "domain": domain, "tool": tool, "hops": hops}
        return cast(List[FoundRow], (await self.command("find", fields))["agents"])


class SyncPresence:
    """What an agent says and asks of presence."""

    def command(self, cmd: str, fields: Optional[Mapping[str, Any]] = None) -> Json:
        raise NotImplementedError

    def presence(self, peer: Optional[str] = None) -> List[PresenceRow]:
        """How one peer is, or all: `idle`, `busy`, `away`, `dnd`, `offline`, or `unknown`."""
        return cast(List[PresenceRow], self.command("presence", {"peer": peer})["presence"])

    def set_presence(self, status: Optional[str] = None) -> str:
        """Says how this agent is, until this connection ends; without a status its word is taken back.

        Gives how the agent is then, by the word of all its clients or by its work.
        """
        return str(self.command("set_presence", {"status": status})["status"])

    def watch_presence(self, on: bool = True) -> None:
        """Asks for an event when a peer comes, goes or changes. It ends with the connection."""
        self.command("subscribe_presence", {"on": on})

    def who(self, domain: Optional[str] = None, tool: Optional[str] = None) -> List[PresenceRow]:
        """Peers that serve a domain and have a tool, as far as they have said so."""
        return cast(List[PresenceRow], self.command("who", {"domain": domain, "tool": tool})["agents"])

    def find(
        self,
        id: Optional[str] = None,
        *,
        domain: Optional[str] = None,
        tool: Optional[str] = None,
        hops: Optional[int] = None,
    ) -> List[FoundRow]:
        """Looks among peers, and their peers, for an agent or for what it can do."""
        fields = {"id": id, "domain": domain, "tool": tool, "hops": hops}
        return cast(List[FoundRow], self.command("find", fields)["agents"])
