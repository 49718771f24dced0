"""How every command ends: one clear message for what a user can mend, a non-zero status, no traceback."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from quantbench.core.errors import EXIT_INTERRUPTED, EXIT_USAGE, QuantbenchError

EXIT_NOT_READ = 128 + signal.SIGPIPE


@contextmanager
def reporting_errors() -> Iterator[None]:
    """Turn QuantbenchError, Ctrl-C and a reader that has seen enough into a message and an exit status."""
    try:
        yield
    except QuantbenchError as error:
        sys.stderr.write(f"quantbench: {error}\n")
        sys.exit(EXIT_USAGE)
    except KeyboardInterrupt:
        sys.stderr.write(
            "quantbench: interrupted. Finished parts are kept; the same command continues where it stopped.\n"
        )
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        if _is_read():
            raise
        # `| head`, for instance. What is left of the output is written to nowhere when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_NOT_READ)


def _is_read() -> bool:
    """Whether somebody still reads what is printed: a pipe without a reader reports an error at once."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return not poll.poll(0)
