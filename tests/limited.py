"""A command under a limit of memory: private memory and what the system caches for it together, by a cgroup."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT, SWAPS = Path("/sys/fs/cgroup"), Path("/proc/swaps")


@contextmanager
def memory_cgroup(limit: int) -> Iterator[Path]:
    """A cgroup of version 1 or 2 with `limit` bytes. Skips the test where none can be made, as without root."""
    old = (ROOT / "memory" / "memory.limit_in_bytes").exists()
    group = (ROOT / "memory" if old else ROOT) / f"test-{uuid.uuid4().hex[:8]}"
    try:
        group.mkdir()
        (group / ("memory.limit_in_bytes" if old else "memory.max")).write_text(str(limit), encoding="ascii")
        if len(SWAPS.read_text(encoding="ascii").splitlines()) > 1:  # else there is none, below a line of titles
            swap = ("memory.memsw.limit_in_bytes", str(limit)) if old else ("memory.swap.max", "0")
            (group / swap[0]).write_text(swap[1], encoding="ascii")
    except OSError as error:
        if group.exists():
            group.rmdir()
        pytest.skip(f"no cgroup with a limit of memory can be made here: {error}")
    try:
        yield group
    finally:
        group.rmdir()


def run_limited(command: Sequence[str], limit: int, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command with `limit` bytes of memory; above, the system kills it."""
    with memory_cgroup(limit) as group:

        def join() -> None:
            (group / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")

        return subprocess.run(
            command,
            cwd=cwd,
            preexec_fn=join,
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
            env={**os.environ, "QUANTBENCH_CACHE": str(cwd / "cache")},
        )
