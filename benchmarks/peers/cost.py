"""What a stretch of a script costs. Imported by scripts that run in other environments: the standard library only."""

from __future__ import annotations

import json
import resource
import threading
import time
from pathlib import Path
from types import TracebackType

WORD = "COST "
INTERVAL = 0.02


class Cost:
    """Prints CPU and wall seconds of the context, and the process's memory: at its peak, and when this was made.

    private: what is the process's alone. Pages of files that are mapped are not, and the system takes them back when it
    likes. Its peak is of looks every 20 ms.
    """

    def __init__(self) -> None:
        self._loaded, self._private = resident(), private()
        self._peak = Peak()

    def __enter__(self) -> Cost:
        self._cpu, self._wall = time.process_time(), time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        found = {
            "cpu_seconds": time.process_time() - self._cpu,
            "wall_seconds": time.perf_counter() - self._wall,
            "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "imported_bytes": self._loaded,
            "peak_private_bytes": self._peak.stop(),
            "imported_private_bytes": self._private,
        }
        if kind is None:
            print(f"\n{WORD}{json.dumps(found)}", flush=True)


class Peak:
    """Looks at the private memory of the process until it is stopped."""

    def __init__(self) -> None:
        self._most, self._stopped = private(), threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._stopped.wait(INTERVAL):
            self._most = max(self._most, private())

    def stop(self) -> int:
        """The most that was seen, in bytes."""
        self._stopped.set()
        self._thread.join()
        return max(self._most, private())


def resident() -> int:
    """Bytes of the process that lie in memory."""
    return _status("VmRSS")


def private() -> int:
    """Those of them that are no pages of a file."""
    return _status("RssAnon")


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {name}")
