"""Looking at results loads no deep-learning library."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

HEAVY = ("torch", "transformers", "lm_eval", "datasets")


def python(code: str, *arguments: str) -> list[str]:
    """The lines a new interpreter prints, the last of which says what it has loaded."""
    told = textwrap.dedent(code) + f"\nprint('loaded:', [m for m in {HEAVY} if m in sys.modules])\n"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", told, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_every_module_of_metrics_store_and_report_is_light() -> None:
    code = """
        import importlib, pkgutil, sys
        for package in ("metrics", "store", "report"):
            folder = importlib.import_module(f"quantbench.{package}").__path__
            for module in pkgutil.iter_modules(folder, f"quantbench.{package}."):
                importlib.import_module(module.name)
        assert {"quantbench.report.render", "quantbench.store.store"} <= sys.modules.keys()
    """
    assert python(code)[-1] == "loaded: []"


def test_commands_that_read_results_are_light(build_sweep: Callable[..., object], tmp_path: Path) -> None:
    build_sweep(tmp_path)
    code = """
        import sys
        from quantbench.cli.main import main
        output = sys.argv[1]
        for command in ("show wiki-gptq", "collate demo", "compare demo --against rtn", "status"):
            sys.argv[:] = ["quantbench", *command.split(), output]
            try:
                main()
            except SystemExit as end:
                assert end.code == 0, (command, end.code)
    """
    *printed, loaded = python(code, f"--output-dir={tmp_path}")
    assert loaded == "loaded: []"
    for told in ("calibrated on: wiki, lm, wiki, en", "demo: against rtn", "sweep      done    failed  pending"):
        assert told in printed
