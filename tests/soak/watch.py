"""What a daemon holds, looked at from outside, over its lives."""

import os
import statistics
import time
from pathlib import Path

FIELDS = ("rss_kb", "heap_kb", "descriptors", "store_files", "threads", "disk_kb")
# A life that was shorter says nothing of growth.
JUDGED_SECONDS = 300
DISK_KB_MAX = 64 * 1024


def measure(pid: int, root: Path) -> dict:
    """As the system has it."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines if ":" in line)
    disk = 0
    for folder, _, names in os.walk(root):
        for name in names:
            try:
                disk += os.lstat(os.path.join(folder, name)).st_blocks * 512
            except FileNotFoundError:
                # It went meanwhile.
                pass
    store = 0
    folder = f"/proc/{pid}/fd"
    descriptors = os.listdir(folder)
    for one in descriptors:
        try:
            store += os.readlink(os.path.join(folder, one)).startswith(str(root / "store"))
        except FileNotFoundError:
            pass
    return {
        "rss_kb": int(status["VmRSS"].split()[0]),
        "heap_kb": int(status["RssAnon"].split()[0]),
        "descriptors": len(descriptors) - store,
        "store_files": store,
        "threads": int(status["Threads"]),
        "disk_kb": disk // 1024,
    }


class Life:
    """One process."""

    def __init__(self, pid: int) -> None:
        self.pid, self.begun = pid, time.monotonic()
        self.samples: list[tuple[float, dict]] = []

    def seconds(self) -> float:
        return self.samples[-1][0] if self.samples else 0.0

    def thirds(self, field: str) -> tuple[float, float]:
        """The medians of the middle third and of the last."""
        whole = self.seconds()
        middle = [of[field] for at, of in self.samples if whole / 3 <= at < 2 * whole / 3]
        last = [of[field] for at, of in self.samples if at >= 2 * whole / 3]
        return (statistics.median(middle or [0]), statistics.median(last or [0]))

    def an_hour(self, field: str) -> float:
        """How fast it grows in the last two thirds: the median of all slopes between two samples."""
        whole = self.seconds()
        late = [(at, of[field]) for at, of in self.samples if at >= whole / 3]
        pairs = [(a, b) for i, a in enumerate(late) for b in late[i + 1 :] if b[0] > a[0]]
        slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairs]
        return 3600 * statistics.median(slopes or [0])


class Watch:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.lives: list[Life] = []

    def born(self, pid: int) -> None:
        self.lives.append(Life(pid))

    def look(self, keep: bool = True) -> dict:
        life = self.lives[-1]
        now = measure(life.pid, self.root)
        if keep:
            life.samples.append((time.monotonic() - life.begun, now))
        return now

    def row(self, field: str, base: dict) -> str:
        life = self.lives[-1]
        middle, last = life.thirds(field)
        most = max((of[field] for life in self.lives for _, of in life.samples), default=0)
        hour = f"{life.an_hour(field):+9.0f}" if life.seconds() >= JUDGED_SECONDS else f"{'':>9}"
        return f"{base[field]:9} {middle:9.0f} {last:9.0f} {most:9} {hour}"

    def judge(self, book, name: str) -> None:
        life = self.lives[-1]
        most = max(of["disk_kb"] for one in self.lives for _, of in one.samples)
        if most > DISK_KB_MAX:
            book.wrong(f"{name}: {most} kB on disk")
        if life.seconds() < JUDGED_SECONDS:
            return
        for field, part, slack in [("rss_kb", 0.05, 512), ("heap_kb", 0.05, 512), ("disk_kb", 0.0, 8192)]:
            middle, last = life.thirds(field)
            if last > middle * (1 + part) + slack:
                book.wrong(f"{name}: {field} has grown from {middle:.0f} to {last:.0f}")
