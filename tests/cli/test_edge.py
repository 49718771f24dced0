"""Nothing foreign crosses the command's edge: whatever is raised, wherever, is one message and a status."""

from __future__ import annotations

import errno
import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydantic
import pytest
import yaml
from hydra._internal.hydra import Hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf.errors import ConfigAttributeError, InterpolationKeyError

from command import Workdir
from inside import in_process
from quantbench.cells import reachable
from quantbench.cli import cells
from quantbench.cli import main as front
from quantbench.config import composer
from quantbench.config.composer import compose_cells
from quantbench.core.errors import ConfigError, DataError, ModelError, QuantbenchError, StoreError
from quantbench.launch import grid, runner
from quantbench.report import report
from quantbench.store.json_record import SchemaError


class OfNobodyError(Exception):
    """What a library may raise tomorrow."""


def damaged_json() -> Exception:
    try:
        json.loads("{")
    except ValueError as error:
        return error
    raise AssertionError


def misfit() -> Exception:
    try:
        pydantic.TypeAdapter(int).validate_python("x")
    except pydantic.ValidationError as error:
        return error
    raise AssertionError


RAISED: list[Exception] = [
    *(kind("the cause") for kind in (QuantbenchError, ConfigError, DataError, ModelError, StoreError, SchemaError)),
    OSError(errno.EROFS, "Read-only file system", "/some/file"),
    FileNotFoundError(errno.ENOENT, "No such file or directory", "/some/file"),
    BrokenPipeError(errno.EPIPE, "Broken pipe"),  # of something else than our output
    UnicodeDecodeError("utf-8", b"\xe9", 0, 1, "invalid start byte"),
    UnicodeEncodeError("ascii", "é", 0, 1, "ordinal not in range(128)"),
    damaged_json(),
    misfit(),
    yaml.YAMLError("the cause"),
    HydraException("the cause"),
    ConfigAttributeError("the cause"),
    InterpolationKeyError("the cause"),
    KeyError("the cause"),
    IndexError("the cause"),
    TypeError("the cause"),
    AttributeError("the cause"),
    AssertionError(),
    OverflowError("the cause"),
    ZeroDivisionError("the cause"),
    ImportError("the cause"),
    RuntimeError("the cause"),
    NotImplementedError("the cause"),
    RecursionError("maximum recursion depth exceeded"),
    MemoryError(),
    StopIteration(),
    EOFError(),
    TimeoutError("the cause"),
    OfNobodyError("the cause"),
]

STAGES: dict[str, tuple[Any, str]] = {
    "compose": (Hydra, "compose_config"),
    "validate": (composer, "checked"),
    "reach": (reachable, "_checks"),
    "open": (grid, "Session"),
    "run": (runner, "run_cell"),
    "collate": (report, "collate"),
    "print": (report, "console"),
}
"""Of a command that runs cells; what is replaced raises."""


@pytest.fixture
def command(workdir: Workdir, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Runs a command line in this process; its status and what it printed."""
    monkeypatch.chdir(workdir.folder)
    monkeypatch.setenv("QUANTBENCH_OUTPUTS", str(workdir.outputs))
    monkeypatch.setenv("QUANTBENCH_CACHE", str(workdir.folder / "cache"))

    def run(*arguments: str) -> tuple[Any, str, str]:
        monkeypatch.setattr(sys, "argv", ["quantbench", *arguments])
        with pytest.raises(SystemExit) as end:
            front.main()
        return (end.value.code, *capfd.readouterr())

    return run


@pytest.mark.parametrize("stage", STAGES)
def test_every_exception_at_every_stage_is_a_message_and_a_status(
    stage: str, workdir: Workdir, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = workdir.arguments("quantizer=rtn", "quantizer.weight.group_size=16")
    place, name = STAGES[stage]
    if stage not in {"compose", "validate"}:  # the same cells each time, which Hydra takes half a second to compose
        made = compose_cells(line)
        monkeypatch.setattr(cells, "run", lambda _, __, run_cells: run_cells(made, line, {}))
    for error in RAISED if stage in {"reach", "open"} else RAISED[::5]:

        def fail(*_: object, raised: Exception = error, **__: object) -> None:
            raise raised

        with monkeypatch.context() as replaced:
            replaced.setattr(place, name, fail)
            status, _, said = command(*line)
        assert status in {1, 2}, (stage, error)
        assert status == 2 or not isinstance(error, QuantbenchError) or stage == "run", (stage, error)
        assert "Traceback" not in said, (stage, error, said)
        last = said.splitlines()[-1]
        if stage == "run":
            assert "cells failed" in last
            assert type(error).__name__ in said
        else:
            assert last.startswith("quantbench: "), (stage, error, said)
            told = ("the cause", "/some/file", "nested", "memory", type(error).__name__, "damaged", "byte")
            assert any(word in said for word in told), (stage, error, said)


@pytest.mark.parametrize("stage", ["compose", "open", "run", "print"])
def test_ctrl_c_at_every_stage_says_that_finished_parts_are_kept(
    stage: str, workdir: Workdir, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(*STAGES[stage], fail)
    status, _, said = command(*workdir.arguments("-m", "quantizer=rtn", "quantizer.weight.group_size=16"))
    assert status == 130
    assert "Finished parts are kept" in said
    assert "Traceback" not in said


def test_a_traceback_is_shown_where_it_is_asked_for(
    command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OfNobodyError("the cause")

    monkeypatch.setattr(*STAGES["compose"], fail)
    _, _, said = command("seed=0")
    assert "QUANTBENCH_TRACEBACK=1" in said
    monkeypatch.setenv("QUANTBENCH_TRACEBACK", "1")
    _, _, said = command("seed=0")
    assert "Traceback" in said
    assert "OfNobodyError: the cause" in said


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (b"a: [1\nb: }", "line 2, column 2"),
        (b"a:\n\tb: 1\n", "line 2, column 1: found character"),
        (b"a: caf\xe9\n", "byte 7 is no UTF-8"),
        (b"a: 1\na: 2\n", "found duplicate key a"),
        (b"[" * 600, "nested"),
        (b"defaults: 3\n", "mine"),
    ],
)
@pytest.mark.parametrize("group", ["quantizer", "calib"])
def test_a_damaged_option_file_is_named_with_the_place(
    content: bytes, where: str, group: str, command: Callable[..., Any], tmp_path: Path
) -> None:
    file = tmp_path / "conf" / group / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    for arguments in ([f"{group}=mine"], ["-m", f"{group}=mine", "seed=0,1"]):
        status, _, said = command(f"--config-dir={tmp_path / 'conf'}", *arguments)
        assert status in {1, 2}
        assert said.startswith("quantbench: ")
        assert "Traceback" not in said
        assert "mine" in said
        assert where in said, said


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["output_dir=${HOME}/x"], ["output_dir: ", "'HOME' not found", "${oc.env:NAME}"]),
        (["seed=${nope}"], ["seed: ", "'nope' not found"]),
        (["~quantizer"], ["quantizer: a cell needs one; give quantizer=NAME"]),
        (["-m", "~quantizer", "seed=0,1"], ["quantizer: a cell needs one; give quantizer=NAME"]),
        (["quantizer=null"], ["quantizer=null: expected the name of an option; quantbench list quantizer"]),
        (["~seed"], ["seed"]),
        (["=5"], ["=5: expected key=value"]),
        (["a b=5"], ["'a b' is no key"]),
        (["quantizer.policy.keep=("], ["quantizer.policy.keep=(: ", "\"quantizer.policy.keep='('\""]),
        (["calib=local", "calib.path=it's.txt"], ["calib.path=it's.txt: ", "'calib.path=\"it'\"'\"'s.txt\"'"]),
        (["calib=local", "calib.path=café.txt"], ["\"calib.path='café.txt'\""]),
        (["calib=local", "calib.path=a=b.txt"], ["\"calib.path='a=b.txt'\""]),
        (["calib=local", "calib.path=~x/a"], ["\"calib.path='~x/a'\""]),
        (["-m", "calib=local", "calib.path=a.txt,é.txt"], ["\"calib.path=a.txt,'é.txt'\""]),
        (["quantizer.policy.keep=[a"], ["quantizer.policy.keep=[a: cannot be read", "brackets and quotes"]),
        (["calib.labels=" + "{a:" * 2000], ["calib.labels={a:"]),
        (["calib=local", "calib.path=a.txt,b.txt"], ["calib.path=a.txt,b.txt: one value or several? -m"]),
        (["quantizer=rtn,gptq"], ["quantizer=rtn,gptq: one value or several? -m"]),
        (["cluster=slurm", "cluster.extra={job-name: x}"], ["extra.job-name: quantbench sets it itself"]),
        (["cluster=slurm", "+cluster.extra.time=5"], ["extra.time: give cluster.minutes instead"]),
        (["hydra.job.env_set.A.B=1"], ["hydra.job.env_set.A"]),
        (["cluster=slurm", "cluster.cpus=1"], ["cluster.cpus=1: fewer than threads=2; give cluster.cpus=2"]),
        (["--vers"], ["--vers: no such flag", "--version"]),
        (["--experimental-rerun=x"], ["--experimental-rerun=x: no such flag"]),
        (["--config-dir"], ["--config-dir: a value is missing"]),
        (["prepare", "--nope"], ["--nope: no such flag"]),
        (["hydra.run.dir=x"], ["hydra.run.dir=x", "output_dir=FOLDER"]),
        (["-m", "output_dir=a,b"], ["output_dir=a,b: a sweep has one output_dir"]),
        (["-m", "detach=true,false"], ["detach=True,False: a sweep has one detach"]),
        (["output_dir='~nobody-of-this-name/x'"], ["output_dir='~nobody-of-this-name/x': ", "no such home folder"]),
    ],
)
def test_a_command_line_that_cannot_be_composed_is_explained(
    arguments: list[str], parts: list[str], command: Callable[..., Any]
) -> None:
    status, printed, said = command(*arguments)
    assert (status, printed) == (2, ""), said
    assert said.startswith("quantbench: ")
    for part in parts:
        assert part in said, said


def test_what_is_suggested_for_a_value_is_read_as_that_value(command: Callable[..., Any], tmp_path: Path) -> None:
    read = OverridesParser.create()
    for name in ("it's.txt", "café.txt", "a=b.txt", "(1).txt", 'a"b.txt', "日本 \\", "é, è.txt"):
        _, _, said = command("calib=local", f"calib.path={tmp_path}/{name}")
        (suggested,) = shlex.split(said.strip().rpartition("the shell's: ")[2])
        assert read.parse_override(suggested).value() == f"{tmp_path}/{name}"
    _, _, said = command("calib=local", suggested)
    assert f"{tmp_path}/{name}: no such file" in said


def test_a_value_given_twice_is_one_cell(workdir: Workdir, command: Callable[..., Any]) -> None:
    line = workdir.arguments("-m", "quantizer.weight.group_size=16", "dry_run=true")
    for twice in (["quantizer=rtn", "seed=0,0"], ["quantizer=rtn,rtn"], ["quantizer=rtn,'rtn'"]):
        status, printed, said = command(*line, *twice)
        assert status == 0, said
        assert "\n1 cell, 1 run" in printed


def test_a_dry_run_writes_nothing_but_what_the_cache_keeps(workdir: Workdir, command: Callable[..., Any]) -> None:
    before = set(workdir.folder.rglob("*"))
    for flags in ([], ["-m"]):
        status, _, said = command(*workdir.arguments(*flags, "quantizer=rtn", "dry_run=true", "output_dir='~/x'"))
        assert status == 0, said
    cache = workdir.folder / "cache"
    kept = [path for path in cache.rglob("*") if path.is_file()]
    assert {path.parent.name for path in kept} == {"findings"}
    assert set(workdir.folder.rglob("*")) - {cache, *cache.rglob("*")} == before


@pytest.mark.parametrize("kind", ["file", "below a file", "link to nothing", "read-only"])
def test_an_output_folder_that_cannot_be_one_is_refused_before_anything_is_read(
    kind: str, workdir: Workdir, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = workdir.folder / "place"
    if kind == "link to nothing":
        place.symlink_to(workdir.folder / "nowhere")
    elif kind != "read-only":
        place.touch()
    else:
        place.mkdir()
        monkeypatch.setattr("os.access", lambda path, _: Path(path) != place)
    folder = place / "x" if kind == "below a file" else place
    status, _, said = command("model=local", "model.path=/nowhere", f"output_dir={folder}")
    assert status == 2
    assert said.startswith(f"quantbench: output_dir={folder}: {place} ")
    assert not workdir.folder.joinpath("nowhere").exists()


def test_a_home_folder_in_the_environment_is_expanded(
    workdir: Workdir, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(workdir.folder / "home"))
    monkeypatch.setenv("QUANTBENCH_OUTPUTS", "~/results")
    status, printed, said = command(*workdir.arguments("quantizer=rtn", "quantizer.weight.group_size=16"))
    assert status == 0, said
    assert (workdir.folder / "home" / "results" / "runs").is_dir()
    assert not (workdir.folder / "~").exists()
    (sweep,) = (path.name for path in (workdir.folder / "home" / "results" / "sweeps").iterdir())
    for question in (["status"], ["status", sweep], ["collate", sweep]):
        status, printed, said = command(*question)
        assert status == 0, said
        assert sweep in printed


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_nothing_printable_ends_a_finished_run(workdir: Workdir, encoding: str) -> None:
    other = workdir.folder / "日本.txt"
    other.write_text(workdir.text.read_text(encoding="utf-8"), encoding="utf-8")
    line = workdir.arguments("quantizer=rtn", "quantizer.weight.group_size=16")
    line = [f"calib.path='{other}'" if one.startswith("calib.path") else one for one in line]
    ended = in_process(line, workdir.folder, encoding)
    assert ended.status == 0, ended.said
    assert "?" in ended.printed or encoding == "latin-1"  # for ± of the tables
    assert list(workdir.outputs.glob("sweeps/*/tables/tables.md"))
