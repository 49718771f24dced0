"""Running the command as a user does, with a tiny model and a text of one's own.

`run` and `start` give each command a process of its own, forked from one that has imported torch and the rest: imports
are most of what a small sweep takes. `answer` needs none; `subprocess_of` starts the interpreter anew, for what only
that shows.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from inside import in_process
from tiny import save_tiny_model

SRC = str(Path(__file__).parents[1] / "src")
IMPORTED = [
    *("hydra", "submitit", "transformers.models.llama.modeling_llama", "transformers.tokenization_utils_tokenizers"),
    *("quantbench.cli.main", "quantbench.cli.sweeps", "quantbench.launch.grid", "quantbench.launch.launchers"),
    *("quantbench.cells.quantizing", "quantbench.cells.observing", "quantbench.cells.scoring"),
    *("quantbench.models.skeleton", "quantbench.models.pretrained", "quantbench.tasks.text_windows"),
    *(
        "quantbench.rounding.gptq",
        "quantbench.kernels.columns",
        "quantbench.kernels.ranges",
        "quantbench.transforms.awq",
        "quantbench.datasets.text",
    ),
]
"""What the process that commands are forked from imports before; without one of them they only take longer."""

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(IMPORTED)

READ_BY_IMPORTS = ("HF_", "PYTHONPROFILE")
"""Beginnings of environment variables that a process which is forked later does not heed."""

Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]


class Command:
    """A running command; its output goes to files."""

    _numbers = itertools.count()

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], folder: Path, output: Path) -> None:
        output.mkdir(exist_ok=True)
        number = next(self._numbers)
        self._files = (output / f"{number}.out", output / f"{number}.err")
        self._arguments = list(arguments)
        given = (self._arguments, dict(environment), str(folder), *map(str, self._files))
        self._process = FORKS.Process(target=_command, args=given)
        self._process.start()

    def send_signal(self, number: int) -> None:
        """As `kill` does; nothing, as with `subprocess.Popen`, once the command has ended."""
        assert self._process.pid is not None
        if self._process.is_alive():
            with contextlib.suppress(ProcessLookupError):  # it ended since
                os.kill(self._process.pid, number)

    def finish(self, seconds: float | None = None) -> Done:
        """Wait for its end; fails the test if it does not come in time."""
        self._process.join(seconds)
        status = self._process.exitcode
        assert status is not None, f"it still runs after {seconds} s: {self.errors}"
        return subprocess.CompletedProcess(self._arguments, status, _said(self._files[0]), self.errors)

    @property
    def errors(self) -> str:
        """What it has said so far on stderr."""
        return _said(self._files[1])


def _said(file: Path) -> str:
    """What a process has written into a file, which one that was killed early has not opened."""
    return file.read_text() if file.exists() else ""


def _command(arguments: list[str], environment: dict[str, str], folder: str, output: str, errors: str) -> None:
    """What the forked process does: become `python -m quantbench` with these arguments."""
    for path, number in ((os.devnull, 0), (output, 1), (errors, 2)):
        flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT
        os.dup2(os.open(path, flags), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    added = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = [folder, *added, *(path for path in sys.path if path not in {"", *added})]
    sys.argv[:] = ["quantbench", *arguments]
    _heed_ctrl_c()
    from quantbench.cli.main import main

    main()


class Workdir:
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
            f"calib.path={self.text}",
            "scale=smoke",
            "calib.n=4",
            "calib.length=32",
            "scale.window=64",
            "scale.windows=4",
            "threads=1",
            "report=false",
        ]

    def environment(self, outputs: Path | None = None, **extra: str) -> dict[str, str]:
        """The process environment of the command."""
        own = {"QUANTBENCH_OUTPUTS": str(outputs or self.outputs), "QUANTBENCH_CACHE": str(self.folder / "cache")}
        path = os.pathsep.join([SRC, extra.pop("PYTHONPATH", "")])
        return {**os.environ, **own, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **extra}

    def arguments(self, *arguments: str, base: bool = True) -> list[str]:
        """Flags, then overrides, those of `base` first."""
        flags = [a for a in arguments if a.startswith("-")]
        rest = [a for a in arguments if not a.startswith("-")]
        return [*flags, *(self.base if base else []), *rest]

    def start(self, *arguments: str, **extra: str) -> Command:
        """Start a sweep, to be interrupted."""
        return Command(self.arguments(*arguments), self.environment(None, **extra), self.folder, self.folder / "said")

    def run(self, *arguments: str, base: bool = True, outputs: Path | None = None, **extra: str) -> Done:
        """Run a cell or a sweep to its end."""
        return self.quantbench(*self.arguments(*arguments, base=base), outputs=outputs, **extra)

    def quantbench(self, *arguments: str, outputs: Path | None = None, **extra: str) -> Done:
        """Run a command line as it stands."""
        if any(name.startswith(READ_BY_IMPORTS) for name in extra):
            return self.subprocess_of(*arguments, outputs=outputs, **extra)
        return Command(arguments, self.environment(outputs, **extra), self.folder, self.folder / "said").finish()

    def answer(self, *arguments: str, base: bool = True) -> Done:
        """Like `run`, in the process of the tests: for what needs no process, with the folder's own outputs."""
        ended = in_process(self.arguments(*arguments, base=base), self.folder)
        return subprocess.CompletedProcess(list(arguments), ended.status, ended.printed, ended.said)

    def subprocess_of(self, *arguments: str, outputs: Path | None = None, **extra: str) -> Done:
        """Run a command line in an interpreter of its own."""
        return subprocess.run(
            [sys.executable, "-m", "quantbench", *arguments],
            env=self.environment(outputs, **extra),
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )


def _heed_ctrl_c() -> None:
    """A process that a shell started in the background ignores SIGINT, and so do its children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
