"""Running the command in the process of the tests: what a call shows needs no process of its own."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: Any
    printed: str
    said: str

    def check(self) -> Ended:
        """It ended as a command may: done, or failed with a message; never with a traceback."""
        assert self.status in {0, 1, 2}, self
        assert "Traceback" not in self.printed + self.said, self
        assert self.status == 0 or self.said.strip(), self
        return self


def in_process(arguments: Sequence[str], folder: Path, encoding: str = "utf-8") -> Ended:
    """Run a command line in this process, in `folder`, on a terminal of that encoding."""
    from quantbench.cli.main import main

    out, err = io.TextIOWrapper(io.BytesIO(), encoding), io.TextIOWrapper(io.BytesIO(), encoding)
    environment = {"QUANTBENCH_OUTPUTS": str(folder / "outputs"), "QUANTBENCH_CACHE": str(folder / "cache")}
    status: Any = None
    with (
        mock.patch.object(sys, "argv", ["quantbench", *arguments]),
        mock.patch.dict(os.environ, environment),
        mock.patch.multiple(sys, stdout=out, stderr=err),
        contextlib.chdir(folder),
    ):
        try:
            main()
        except SystemExit as end:
            status = end.code
        printed, said = (_text(stream) for stream in (out, err))
    return Ended(status, printed, said)


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    buffer = stream.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue().decode(stream.encoding, "replace")
