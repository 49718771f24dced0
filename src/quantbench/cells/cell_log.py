"""The log of a run: what is said while a cell is worked on, in the run's folder, too."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

log = logging.getLogger("quantbench")


class _LogFile(logging.FileHandler):
    """A log whose lines may get lost on a full disk: they are said on the terminal all the same."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - its name in logging
        """Nothing: the failure that matters is reported where results are written."""

    def close(self) -> None:
        """Close it, whether or not its last lines find room."""
        with suppress(OSError):
            super().close()


@contextmanager
def cell_log(path: Path) -> Iterator[None]:
    """Append to the log at `path` meanwhile; an exception that goes through is written there."""
    handler = _LogFile(path, encoding="utf-8", errors="replace", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    except KeyboardInterrupt:
        handler.emit(log.makeRecord(log.name, logging.WARNING, __file__, 0, "interrupted by Ctrl-C", (), None))
        raise
    except BaseException as error:
        info = (type(error), error, error.__traceback__)
        handler.emit(log.makeRecord(log.name, logging.ERROR, __file__, 0, "stopped: %s", (error,), info))
        raise
    finally:
        root.removeHandler(handler)
        handler.close()
