"""Commands over results of an older schema: refused, and nothing is touched."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from command import Workdir
from quantbench.cli import commands, sweeps
from quantbench.cli.comparing import compare
from quantbench.store.json_record import SchemaError

OLD = Path(__file__).parent / "schema_2"


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def old(workdir: Workdir) -> Workdir:
    shutil.copytree(OLD, workdir.outputs)
    return workdir


def test_a_new_run_does_not_touch_an_older_store(old: Workdir) -> None:
    done = old.run("quantizer=rtn")
    assert done.returncode != 0
    assert "manifest.json has result schema 2; quantbench" in done.stderr
    assert "output_dir=ANOTHER_FOLDER" in done.stderr
    assert "Traceback" not in done.stderr
    found = contents(old.outputs)
    assert contents(OLD).items() <= found.items()
    assert {name.partition("/")[0] for name in found} <= {"runs", "sweeps"}


@pytest.mark.parametrize(
    ("command", "name"),
    [(commands.show, "r"), (commands.collate, "demo"), (compare, "demo"), (sweeps.status, "demo")],
)
def test_nor_does_looking_at_it(old: Workdir, command: Callable[[list[str]], int], name: str) -> None:
    with pytest.raises(SchemaError, match=r"manifest\.json has result schema 2"):
        command([name, f"--output-dir={old.outputs}"])
    assert contents(old.outputs) == contents(OLD)
