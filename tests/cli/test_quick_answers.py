"""What is asked often is answered without loading what runs cells, and a reader may stop reading."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

import quantbench
from command import Workdir
from inside import in_process
from quantbench.config.folders import config_dir
from quantbench.config.groups import GROUPS

ALL = """
import sys
from quantbench.cli.main import main
for line in sys.argv[1:]:
    sys.argv[1:] = line.split()
    try:
        main()
    except SystemExit as end:
        print(line, "ended with", end.code)
    found = {"torch", "transformers", "numba"} & set(sys.modules)
    assert not found, (line, found)
"""


def test_nothing_heavy_is_imported_for_an_answer(workdir: Workdir) -> None:
    """`status`, `logs` and `cancel` of a stored sweep; what is only printed."""
    ran = workdir.answer("quantizer=rtn", "quantizer.weight.group_size=16")
    assert ran.returncode == 0, ran.stderr
    (sweep,) = (path.name for path in (workdir.outputs / "sweeps").iterdir())
    (run, _) = (path.name for path in (workdir.outputs / "runs").iterdir())
    answered = ["--help", "--version", "list model", "status", f"status {sweep} --all", f"cancel {sweep}"]
    answered += [f"show {run}", f"collate {sweep}"]
    refused = ["logs nothing", "show nothing", "collate nothing", "nothing"]
    done = subprocess.run(
        [sys.executable, "-c", ALL, *answered, *refused],
        env=workdir.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    ends = [line.partition(" ended with ") for line in done.stdout.splitlines() if " ended with " in line]
    assert {line: status for line, _, status in ends} == dict.fromkeys(answered, "0") | dict.fromkeys(refused, "2")


def test_help_fits_two_screens_and_counts_the_options_of_every_group(workdir: Workdir, tmp_path: Path) -> None:
    (tmp_path / "conf" / "calib").mkdir(parents=True)
    (tmp_path / "conf" / "calib" / "tickets.yaml").touch()
    printed = in_process(["--help"], workdir.folder).printed
    with_own = in_process(["--help", f"--config-dir={tmp_path / 'conf'}"], workdir.folder).printed
    assert len(printed.splitlines()) <= 50
    assert max(map(len, printed.splitlines())) <= 120
    for group in (one.name for one in GROUPS if one.listed and not one.parts and one.name != "lm_eval"):
        n = len(list((config_dir() / group).glob("*.yaml")))
        assert n > 0
        assert f"{group} {n}" in printed
        assert f"{group} {n + (group == 'calib')}" in with_own
    for word in ("list", "prepare", "show", "collate", "status", "+sweep=demo", "--cfg job"):
        assert word in printed


def test_the_version_is_ours(workdir: Workdir) -> None:
    assert in_process(["--version"], workdir.folder).printed == f"quantbench {quantbench.__version__}\n"


@pytest.mark.parametrize("line", ["list calib", "show --help", "--help", "--cfg job"])
def test_a_reader_that_stops_reading_gets_no_traceback(workdir: Workdir, line: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "quantbench", *line.split()],
        env=workdir.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as command:
        assert command.stdout is not None
        assert command.stderr is not None
        command.stdout.close()
        assert command.stderr.read() == ""
    # argparse ends its own help with 0.
    assert command.returncode == 128 + signal.SIGPIPE or (line == "show --help" and not command.returncode)
