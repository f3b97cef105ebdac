"""What was promised, and what came."""

from collections import Counter, defaultdict


class Book:
    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        self.number = 0
        # Notifications by number: to whom, once their sender was told that they are held or delivered.
        self.promised: dict[int, str] = {}
        # By whom they came to, and number: under which rows of the inbox.
        self.came: dict[str, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
        # How far each has acked for certain.
        self.acked: dict[str, int] = defaultdict(int)
        # Delegations by id: whose they are, once they were taken or held; and results by id, as above.
        self.open: dict[str, str] = {}
        self.over: dict[str, str] = {}
        self.results: dict[str, set[int]] = defaultdict(set)

    def next(self) -> int:
        self.number += 1
        return self.number

    def count(self, what: str) -> None:
        self.counts[what] += 1

    def wrong(self, what: str) -> None:
        # One fault may show a thousand times.
        if len(self.faults) < 50:
            self.faults.append(what)

    def row(self, name: str, row: dict) -> None:
        """A row of this one's inbox, as it was read."""
        seq, envelope = row["seq"], row["envelope"]
        if seq <= self.acked[name]:
            self.wrong(f"{name}: row {seq} was acked, and comes again")
        if envelope["kind"] == "notify":
            number = envelope["payload"]["data"]["number"]
            rows = self.came[name][number]
            what = f"{name}: notification {number}"
            self.counts["notifications came"] += seq not in rows
        elif envelope["kind"] == "result":
            rows, what = self.results[envelope["ref"]], f"{name}: the result of {envelope['ref']}"
            self.counts["results came"] += seq not in rows
        else:
            return
        rows.add(seq)
        if len(rows) > 1:
            self.wrong(f"{what} is there {len(rows)} times: rows {sorted(rows)}")

    def missing(self) -> str:
        """What was promised and has not come; empty when all is there."""
        lost = [number for number, to in self.promised.items() if not self.came[to][number]]
        said = [f"{len(lost)} notifications are lost, such as {lost[:5]}"] if lost else []
        if self.open:
            said.append(f"{len(self.open)} delegations have not ended, such as {list(self.open)[:3]}")
        ended = ("completed", "failed", "partial")
        without = [one for one, state in self.over.items() if state in ended and not self.results[one]]
        if without:
            said.append(f"{len(without)} results are lost, such as {without[:3]}")
        return "; ".join(said)

    def report(self) -> None:
        self.counts["notifications promised"] = len(self.promised)
        for what, count in sorted(self.counts.items()):
            print(f"{what}: {count}")
        states = Counter(self.over.values())
        print("delegations:", ", ".join(f"{state} {count}" for state, count in sorted(states.items())))
