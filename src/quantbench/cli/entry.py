"""How every command ends: one clear message for what went wrong, a status, no traceback; and what it may print on."""

from __future__ import annotations

import io
import os
import select
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from quantbench.core.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, QuantbenchError

EXIT_NOT_READ = 128 + signal.SIGPIPE

TRACEBACK = "QUANTBENCH_TRACEBACK"
"""Environment variable: set to 1, an error that is not ours is shown with its traceback."""

SHOWN = 500
"""Characters of an error that is not ours."""

_PACKAGE = Path(__file__).parents[1]


def prepare_terminal() -> None:
    """What the terminal cannot show is replaced, a closed one is written to nowhere; no bars of libraries in a pipe."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - until the process ends
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace" if name == "stdout" else "backslashreplace")
    if not sys.stderr.isatty():
        # Read when the libraries are imported. A bar that is redrawn is unreadable in a file.
        for variable in ("TQDM_DISABLE", "HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS"):
            os.environ.setdefault(variable, "1")


@contextmanager
def reporting_errors() -> Iterator[None]:
    """Ends the process: with the status that is asked for, or with a message for whatever is raised inside."""
    status: int | str | None = 0
    try:
        yield
    except SystemExit as end:
        status = end.code
    except QuantbenchError as error:
        status = told(str(error), EXIT_USAGE)
    except KeyboardInterrupt:
        kept = "Finished parts are kept; the same command continues where it stopped."
        status = told(f"interrupted. {kept}", EXIT_INTERRUPTED)
    except BrokenPipeError as error:
        status = told(foreign(error), EXIT_FAILED) if _is_read() else EXIT_NOT_READ
    except Exception as error:
        status = told(foreign(error), EXIT_FAILED)
    sys.exit(_flushed(status))


def foreign(error: Exception) -> str:
    """What to say of an error that is none of ours: what it is, and where it came about."""
    if os.environ.get(TRACEBACK) == "1":
        return "".join(traceback.format_exception(error)).rstrip()
    name = type(error).__name__
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror or name}. {_where(error)}"
    if isinstance(error, MemoryError):
        return f"out of memory. Everything finished before is kept. {_where(error)}"
    if isinstance(error, RecursionError):
        return f"something is nested too deeply to be read. {_where(error)}"
    said = " ".join(str(error).split())
    return f"{name}: {said[:SHOWN]}. {_where(error)}" if said else f"{name}. {_where(error)}"


def _where(error: Exception) -> str:
    """The last place in this package that it went through, and how to see all of them."""
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if _PACKAGE in Path(frame.filename).parents]
    place = f"in {Path(own[-1].filename).relative_to(_PACKAGE)}, line {own[-1].lineno}; " if own else ""
    return f"({place}{TRACEBACK}=1 shows all of it, for a report)"


def told(message: str, status: int) -> int:
    """Say on stderr what went wrong; returns the status to end with."""
    with suppress(OSError):  # nobody is there to read it
        sys.stderr.write(f"quantbench: {message}\n")
        sys.stderr.flush()
    return status


def _flushed(status: int | str | None) -> int | str | None:
    """Write out what is left of the output; where that fails, a status that says so unless there is one already."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # `| head`, for instance
        status = status or EXIT_NOT_READ
    except OSError as error:
        status = told(f"the output cannot be written: {error.strerror}", EXIT_FAILED)
    else:
        if status != EXIT_NOT_READ:
            return status
    # What is left in the buffer is written to nowhere when the interpreter ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status


def _is_read() -> bool:
    """Whether somebody still reads what is printed: a pipe without a reader reports an error at once."""
    try:
        number = sys.stdout.fileno()
    except io.UnsupportedOperation:
        return True
    poll = select.poll()
    poll.register(number, 0)
    return not poll.poll(0)
