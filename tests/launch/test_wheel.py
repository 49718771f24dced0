"""The built wheel, installed away from the checkout: it carries every option and sweep, and runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from command import Workdir

REPOSITORY = Path(__file__).parents[2]

COMPOSE_ALL = """
import sys
from hydra import compose, initialize_config_dir
from quantbench.config.folders import config_dir
folder = config_dir()
assert folder.is_relative_to(sys.argv[1]), folder
with initialize_config_dir(str(folder), version_base="1.3"):
    for group in ("model", "calib", "quantizer", "eval", "scale", "cluster", "sweep"):
        for file in sorted((folder / group).glob("*.yaml")):
            compose("config", [f"{'+' if group == 'sweep' else ''}{group}={file.stem}"])
            print(f"{group}/{file.name}")
"""


def python(*arguments: str, cwd: Path, path: Path | None = None) -> str:
    """Run the interpreter to a successful end, with `path` alone as PYTHONPATH."""
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment = kept if path is None else kept | {"PYTHONPATH": str(path)}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built and installed into a folder of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    python("-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(REPOSITORY), cwd=folder)
    (wheel,) = folder.glob("*.whl")
    python("-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder / "site"), str(wheel), cwd=folder)
    return folder / "site"


@pytest.mark.slow
def test_every_option_and_sweep_is_in_the_wheel(site: Path, tmp_path: Path) -> None:
    listed = python("-c", COMPOSE_ALL, str(site), cwd=tmp_path, path=site).split()
    groups = ("model", "calib", "quantizer", "eval", "scale", "cluster", "sweep")
    ours = [f for group in groups for f in sorted((REPOSITORY / "conf" / group).glob("*.yaml"))]
    assert listed == [f"{f.parent.name}/{f.name}" for f in ours]


@pytest.mark.slow
def test_a_cell_runs_from_the_wheel(site: Path, workdir: Workdir) -> None:
    arguments = workdir.arguments("quantizer=gptq", "quantizer.weight.group_size=16")
    printed = python("-m", "quantbench", *arguments, f"output_dir={workdir.outputs}", cwd=workdir.folder, path=site)
    assert "5.25 bits per weight." in printed
    assert len(list(workdir.outputs.glob("runs/*/record.json"))) == 2
