"""What is done, or only asked for, is answered without the code that computes."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

from command import Workdir
from inside import in_process

COMPUTES = (
    "transformers.modeling_utils",
    "torch.distributed.tensor",
    "numba",
    "altair",
    "vl_convert",
    "quantbench.pipeline.walker",
    "quantbench.cells.quantizing",
    "quantbench.cells.scoring",
    "quantbench.models.skeleton",
)

ONE = f"""
import sys
from quantbench.cli.main import main
try:
    main()
finally:
    print("LOADED", sorted(set({COMPUTES}) & set(sys.modules)))
"""


def loaded(workdir: Workdir, *arguments: str) -> tuple[str, str]:
    """What of it a command loads in a process of its own, and what it says."""
    done = subprocess.run(
        [sys.executable, "-c", ONE, *workdir.arguments(*arguments), "report=true"],
        cwd=workdir.folder,
        env=workdir.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed, _, found = done.stdout.rpartition("LOADED ")
    return found.strip(), printed + done.stderr


def test_a_finished_grid_and_a_dry_run_load_nothing_that_computes(workdir: Workdir) -> None:
    grid = ("-m", "quantizer=rtn,gptq", "quantizer.weight.group_size=16")
    found, _ = loaded(workdir, *grid)
    assert "quantbench.pipeline.walker" in found
    pages = [*(workdir.outputs / "sweeps").glob("*/report.html")]
    before = [path.read_bytes() for path in pages]
    found, said = loaded(workdir, *grid)
    assert said.count("done before") == 2
    assert found == "[]"
    assert [path.read_bytes() for path in pages] == before != []
    found, said = loaded(workdir, *grid, "quantizer.weight.bits=3", "dry_run=true")
    assert said.count("to run") == 2
    assert found == "[]"


def test_the_search_for_garbage_goes_on_after_a_command(tmp_path: Path) -> None:
    for arguments in (["--version"], ["list", "model"], ["no=such"], ["status"]):
        in_process(arguments, tmp_path)
        assert gc.isenabled(), arguments
