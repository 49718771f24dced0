"""What a stretch of a script costs. Imported by scripts that run in other environments: the standard library only."""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path
from types import TracebackType

WORD = "COST "


class Cost:
    """Prints CPU and wall seconds of the context, and the process's memory: at its peak, and when this was made."""

    def __init__(self) -> None:
        self._loaded = _resident()

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
        }
        if kind is None:
            print(f"\n{WORD}{json.dumps(found)}", flush=True)


def _resident() -> int:
    """Bytes of the process that lie in memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()
