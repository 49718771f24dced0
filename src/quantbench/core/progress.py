"""Progress with a remaining-time estimate: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

from tqdm import tqdm

log = logging.getLogger("quantbench")

ProgressCallback = Callable[[int, int], None]
"""Told how far something is: steps done, steps in all."""

LINE_EVERY_SECONDS = 20.0


@contextmanager
def progress(what: str, unit: str) -> Iterator[ProgressCallback]:
    """A callable `(done, total)` that shows how far `what` is and how long it will still take."""
    if sys.stderr.isatty():
        with tqdm(desc=what, unit=unit, leave=False, dynamic_ncols=True, delay=1.0) as bar:

            def show(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            yield show
    else:
        yield _Lines(what, unit)


class _Lines:
    def __init__(self, what: str, unit: str) -> None:
        self._what, self._unit = what, unit
        self._started = self._shown = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if done in (0, total) or now - self._shown < LINE_EVERY_SECONDS:
            return
        self._shown = now
        left = (now - self._started) / done * (total - done)
        log.info("  %s: %d of %d %ss, about %s left", self._what, done, total, self._unit, duration(left))


@cache
def say_once(message: str) -> None:
    """Say something that holds for the whole process, the first time it is come upon."""
    log.info("%s", message)


def counted(number: int, thing: str) -> str:
    """A number of things in words: "1 cell", "12 cells"."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
