"""Wrong command lines, flags, Ctrl-C, and a full disk."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from command import Workdir
from inside import in_process

GRID = ("-m", "quantizer=rtn,gptq", "quantizer.weight.group_size=16")


def finished(outputs: Path) -> dict[str, tuple[int, bytes]]:
    """Time of change and content of every record and score."""
    files = [*outputs.glob("runs/*/record.json"), *outputs.glob("runs/*/scores/*.json")]
    return {str(f.relative_to(outputs)): (f.stat().st_mtime_ns, f.read_bytes()) for f in files}


def test_after_ctrl_c_the_same_command_continues(workdir: Workdir) -> None:
    some = [argument for argument in GRID if not argument.startswith("quantizer=")]
    many = (*some, "quantizer=gptq,awq,rtn", "quantizer.weight.bits=2,4")
    process = workdir.start(*many)
    until = time.monotonic() + 120
    while len(finished(workdir.outputs)) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    done = process.finish(120)
    assert done.returncode == 130, done.stderr
    assert "the same command continues where it stopped" in done.stderr
    assert "Traceback" not in done.stderr
    before = finished(workdir.outputs)
    again = workdir.run(*many)
    assert again.returncode == 0, again.stderr
    after = finished(workdir.outputs)
    assert len(after) == 2 * (3 * 2 + 1) > len(before)
    assert {key: after[key] for key in before} == before
    (layers,) = workdir.outputs.glob("sweeps/*/layers.csv")
    frame = pd.read_csv(layers)
    assert set(frame["recipe"].str.partition(" ")[0]) == {"gptq", "awq", "rtn"}
    assert frame["relative_loss"].between(0, 1).all()
    assert frame.groupby("recipe")["measured_on"].nunique().eq(1).all()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip(f"a tmpfs cannot be mounted: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_on_a_full_disk_it_says_so_and_continues_when_there_is_space(workdir: Workdir, small_disk: Path) -> None:
    filler = small_disk / "filler"
    filler.write_bytes(b"\0" * (5 * 2**20 - 64 * 2**10))  # room for folders and a few small files only
    outputs = small_disk / "outputs"
    full = workdir.run(*GRID, outputs=outputs)
    assert full.returncode != 0
    assert "No space left on device" in full.stderr
    assert "free some space" in full.stderr
    assert "Traceback" not in full.stderr
    filler.unlink()
    again = workdir.run(*GRID, outputs=outputs)
    assert again.returncode == 0, again.stderr
    assert not list(outputs.rglob(".*.tmp"))


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["frobnicate"], ["no command 'frobnicate'", "list, prepare, show, collate"]),
        (["list", "modle"], ["list modle: no such group", "model, calib"]),
        (["show", "0123"], ["show 0123: no such run"]),
        (["collate", "nope"], ["collate nope: no such sweep"]),
        (["prepare", "typo=1"], ["typo: no such option"]),
        (["prepare", "+sweep=nope"], ["sweep=nope: no such choice", "demo"]),
        (["model=local"], ["quantbench: model.path: this option is required"]),
        (["calib=local"], ["quantbench: calib.path: this option is required; give calib.path=..."]),
        (["eval=local"], ["quantbench: eval.tasks.local.path: this option is required"]),
        (["quantizer=gtpq"], ["quantizer=gtpq: no such choice. Did you mean 'gptq'? There are: ", "awq"]),
        (["eval=lm_eval", "eval.names=piqa"], ["eval.names=piqa", "give eval.names=[piqa]"]),
        (["calib=mix", "calib.parts.vader_flim=1"], ["calib.parts.vader_flim: ", "vader_film"]),
        (["--config-dir=mine", "list", "calib"], ["a command comes first: quantbench list calib --config-dir=mine"]),
        (["eval.typo=1"], ["eval.typo: no such option", "tasks"]),
        (["+eval.typo=1"], ["eval.typo: no such option", "tasks"]),
        (["device=gpu"], ["quantbench: device='gpu'"]),
        (["threads=0"], ["quantbench: threads=0: input should be greater than or equal to 1"]),
        (["quantizer.policy.keep=['(']"], ["'(' is not a regular expression"]),
        (["quantizer.rounding._target_=no.such.Thing"], ["quantizer.rounding._target_: 'no.such.Thing'"]),
        (["model.dtype=float8"], ["model.dtype='float8'", "float32"]),
    ],
)
def test_a_wrong_command_line_is_one_message(tmp_path: Path, arguments: list[str], parts: list[str]) -> None:
    ended = in_process(arguments, tmp_path)
    assert ended.status == 2
    assert ended.said.startswith("quantbench: ")
    assert "Traceback" not in ended.said
    for part in parts:
        assert part in ended.said
    assert not tmp_path.joinpath("outputs", "runs").exists()


def test_the_composed_values_can_be_shown(tmp_path: Path) -> None:
    ended = in_process(["--cfg=job", "--resolve"], tmp_path)
    assert ended.status == 0, ended.said
    assert "_target_: quantbench.rounding.gptq.Gptq" in ended.printed


def test_the_multirun_flag_may_stand_anywhere(workdir: Workdir) -> None:
    mixed = in_process([*workdir.base, "dry_run=true", "-m", "quantizer=rtn,gptq"], workdir.folder)
    assert mixed.status == 0, mixed.said
    assert "2 cells, 2 runs" in mixed.printed


def test_flags_may_stand_between_overrides(tmp_path: Path) -> None:
    between = ["quantizer=rtn", "--config-dir", str(tmp_path), "seed=5", "--cfg", "job"]
    ended = in_process(between, tmp_path)
    assert ended.status == 0, ended.said
    assert "seed: 5" in ended.printed


REVIEWS = """# calib=reviews: our product reviews
path: TEXT
family: lm
domain: reviews
language: en
licence: ours
"""


def test_an_option_of_ones_own_is_listed_and_can_be_part_of_a_mixture(workdir: Workdir) -> None:
    file = workdir.folder / "conf" / "calib" / "reviews.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(REVIEWS.replace("TEXT", str(workdir.text)))
    flag = f"--config-dir={file.parents[1]}"
    listed = in_process(["list", "calib", flag], workdir.folder).printed
    (row,) = [line.split() for line in listed.splitlines() if line.startswith("reviews ")]
    assert row[:5] == ["reviews", "lm", "(lm)", "reviews", "en"]
    model = workdir.base[:2]
    scale = ["scale=smoke", "calib.n=4", "calib.length=32", "scale.window=64", "scale.windows=4", "threads=1"]
    mixture = ["calib=mix", "calib.parts.reviews=1.0", "eval.sets=[reviews]"]
    done = workdir.answer(
        flag, *model, *scale, *mixture, "quantizer=gptq", "quantizer.weight.group_size=16", base=False
    )
    assert done.returncode == 0, done.stderr
    assert "reviews" in done.stdout


def test_status_without_a_name_lists_the_sweeps(workdir: Workdir) -> None:
    assert in_process(["status"], workdir.folder).printed.startswith("no sweeps in ")
    done = workdir.answer("quantizer=rtn", "quantizer.weight.group_size=16")
    assert done.returncode == 0, done.stderr
    (sweep,) = (workdir.outputs / "sweeps").iterdir()
    assert in_process(["status"], workdir.folder).printed.splitlines()[-1].split() == [sweep.name, "1"]


def test_another_file_of_the_same_name_is_not_in_distribution(workdir: Workdir) -> None:
    other = workdir.folder / "other.txt"
    other.write_text("\n\n".join(f"{i} is the number of this sentence, {i * i} its square. " * 6 for i in range(40)))
    recipe = ["quantizer=gptq", "quantizer.weight.group_size=16", "eval=local"]
    same = workdir.answer(*recipe, f"eval.tasks.local.path={workdir.text}")
    assert "= calibrated on the test distribution" in same.stdout, same.stderr
    done = workdir.answer(*recipe, f"eval.tasks.local.path={other}")
    assert done.returncode == 0, done.stderr
    assert "= calibrated on the test distribution" not in done.stdout
