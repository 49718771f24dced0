"""How every command ends: one clear message for what a user can mend, a non-zero status, no traceback."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from quantbench.core.errors import EXIT_INTERRUPTED, EXIT_USAGE, QuantbenchError


@contextmanager
def reporting_errors() -> Iterator[None]:
    """Turn QuantbenchError and Ctrl-C into a message and an exit status."""
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
