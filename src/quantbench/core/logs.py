"""Messages on the terminal."""

from __future__ import annotations

import logging
import sys


def set_up_logging() -> None:
    """Messages of quantbench on stderr, plain; those of libraries only from warnings up."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr, force=True)
    logging.getLogger("quantbench").setLevel(logging.INFO)
