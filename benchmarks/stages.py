"""Where the processor seconds of a run go: by stage, of recipes on the packaged model.

    python benchmarks/stages.py                     # gptq, awq, smoothquant, hqq, rtn: 8 x 512 tokens, ten minutes
    python benchmarks/stages.py gptq --sequences 32

Each recipe runs in a process of its own, through the command, with one thread. The functions of STAGES are timed while
they run; a second counts for the innermost one. What is left is in "everything else": imports, the choice of
options, hashing, storing, tables.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import multiprocessing
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from tabulate import tabulate

STAGES: dict[str, tuple[str, ...]] = {
    "loading the model": ("quantbench.cells.session:Session.handle",),
    "tokens": ("quantbench.cells.session:Session.inputs",),
    "forwards": ("quantbench.pipeline.capture:capture", "quantbench.pipeline.capture:run_block"),
    "statistics": ("quantbench.pipeline.collect:StatsAccumulator.add",),
    "scales and clips": (
        "quantbench.pipeline.transform:BlockTransforms.apply",
        "quantbench.transforms.awq:AwqClip.bound",
    ),
    "factorization": ("quantbench.rounding.hessian:inverse_cholesky", "quantbench.rounding.hessian:unit_cholesky"),
    "ranges": ("quantbench.formats.int:IntFormat.params",),
    "rounding": ("quantbench.pipeline.rounder:Rounder.round",),
    "losses of layers": ("quantbench.core.input_stats:output_errors",),
    "checking what is stored": ("quantbench.pipeline.stored:check_stored",),
    "evaluation, blocks": ("quantbench.tasks.logits:SplitModel.hidden",),
    "evaluation, heads and metrics": ("quantbench.tasks.evaluate:evaluate",),
}
"""Functions by stage: MODULE:NAME or MODULE:CLASS.METHOD."""

REST = "everything else"
RECIPES = ("gptq", "awq", "smoothquant", "hqq", "rtn")


class Clock:
    """Processor seconds by stage, each for the innermost one."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._running, self._since = [REST], time.process_time()

    def count(self) -> None:
        """Count the seconds since the last change of stage."""
        now = time.process_time()
        self.seconds[self._running[-1]] += now - self._since
        self._since = now

    def timed(self, stage: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed."""

        @functools.wraps(work)
        def run(*args: Any, **kwargs: Any) -> Any:
            self.count()
            self._running.append(stage)
            try:
                return work(*args, **kwargs)
            finally:
                self.count()
                self._running.pop()

        return run

    def patch(self, stage: str, place: str) -> None:
        """Time a function wherever it has been imported, or a method."""
        module_name, _, name = place.partition(":")
        owner, _, attribute = name.rpartition(".")
        module = importlib.import_module(module_name)
        if owner:
            holder = getattr(module, owner)
            setattr(holder, attribute, self.timed(stage, getattr(holder, attribute)))
            return
        original = getattr(module, attribute)
        timed = self.timed(stage, original)
        for other in list(sys.modules.values()):
            if getattr(other, "__name__", "").startswith("quantbench") and vars(other).get(attribute) is original:
                setattr(other, attribute, timed)


def measure(recipe: str, sequences: int, answer: Any) -> None:
    """Run one cell in this process and send its seconds."""
    clock = Clock()
    from quantbench.cells import run, scoring  # noqa: F401 - what they import is patched
    from quantbench.cli.main import main

    for stage, places in STAGES.items():
        for place in places:
            clock.patch(stage, place)
    with tempfile.TemporaryDirectory() as folder:
        sys.argv = ["quantbench", f"quantizer={recipe}", "calib=wiki_sample", f"calib.n={sequences}", "threads=1"]
        sys.argv += ["calib.length=512", "eval=two_samples", "save=none", f"output_dir={folder}"]
        try:
            main()
        except SystemExit as end:
            if end.code:
                raise
    clock.count()
    answer.send(json.dumps(clock.seconds))


def main() -> int:
    """Measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=list(RECIPES))
    parser.add_argument("--sequences", type=int, default=8, help="of 512 tokens")
    given = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    for recipe in given.recipes:
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(target=measure, args=(recipe, given.sequences, theirs))
        process.start()
        process.join()
        if process.exitcode:
            sys.exit(f"{recipe}: status {process.exitcode}")
        found[recipe] = json.loads(ours.recv())
    rows = [[stage, *(f"{one.get(stage, 0):.1f}" for one in found.values())] for stage in (*STAGES, REST)]
    rows.append(["together", *(f"{sum(one.values()):.1f}" for one in found.values())])
    print(tabulate(rows, ["CPU s", *found], tablefmt="github", disable_numparse=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
