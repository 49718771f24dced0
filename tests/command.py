"""Running the command as a user does: in a process of its own, with a tiny model and a text of one's own."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tiny import save_tiny_model

SRC = str(Path(__file__).parents[1] / "src")

Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]


class Workplace:
    """A folder with a model, a text and an output folder; `run` starts the command there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.outputs = folder / "outputs"
        save_tiny_model(folder / "model")
        words = random.Random(0)
        documents = [
            " ".join("".join(words.choices("abcdefghij", k=5)) for _ in range(60)) + f" document {i}" for i in range(40)
        ]
        self.text = folder / "text.txt"
        self.text.write_text("\n\n".join(documents))

    @property
    def base(self) -> list[str]:
        """The overrides that choose the tiny model and the text."""
        return [
            "model=local",
            f"model.path={self.folder / 'model'}",
            "calib=local",
            f"calib.source.path={self.text}",
            "scale=smoke",
            "calib.n=4",
            "calib.length=32",
            "scale.window=64",
            "scale.windows=4",
            "threads=1",
        ]

    def environment(self, outputs: Path | None = None, **extra: str) -> dict[str, str]:
        """The process environment of the command."""
        own = {"QUANTBENCH_OUTPUTS": str(outputs or self.outputs), "QUANTBENCH_CACHE": str(self.folder / "cache")}
        path = os.pathsep.join([SRC, extra.pop("PYTHONPATH", "")])
        return {**os.environ, **own, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **extra}

    def command(self, *arguments: str, base: bool = True) -> list[str]:
        """The command line."""
        flags = [a for a in arguments if a.startswith("-")]
        rest = [a for a in arguments if not a.startswith("-")]
        return [sys.executable, "-m", "quantbench", *flags, *(self.base if base else []), *rest]

    def start(self, *arguments: str, errors: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
        """Start the command, to be interrupted; errors: subprocess.PIPE to read what it says."""
        return subprocess.Popen(
            self.command(*arguments),
            env=self.environment(),
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            text=True,
            preexec_fn=_heed_ctrl_c,
        )

    def run(self, *arguments: str, base: bool = True, outputs: Path | None = None, **extra: str) -> Done:
        """Run the command to its end."""
        return subprocess.run(
            self.command(*arguments, base=base),
            env=self.environment(outputs, **extra),
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )


def _heed_ctrl_c() -> None:
    """A process that a shell started in the background ignores SIGINT, and so do its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
