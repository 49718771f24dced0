"""Whatever is typed, written into an option file, or has become of a file: a status and a message, and nothing lost."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import event, given
from hypothesis import strategies as st

from command import Workdir
from fuzzing import CASES, FOREIGN, cases, commands, damaged, in_process, plain
from inside import Ended
from quantbench.cli import cells as cells_module
from quantbench.config.composer import cells_of, offline_composer
from quantbench.config.folders import Folders
from tiny import save_tiny_model


def checked(ended: Ended) -> Ended:
    """The command ended as it may; how often errors that are not ours are told is among hypothesis's statistics."""
    ended.check()
    if FOREIGN in ended.said:
        event(ended.said.partition("quantbench: ")[2].partition(":")[0])
    return ended


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture
def only_composed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells are made and nothing is fetched or run."""
    monkeypatch.setattr(cells_module, "_run_grid", lambda *_: None)


@cases(few=8, share=0.12)
@given(arguments=commands)
@pytest.mark.usefixtures("only_composed")
def test_command_lines(arguments: list[str], folder: Path) -> None:
    checked(in_process(arguments, folder))


@cases(few=6, share=0.08)
@given(group=st.sampled_from(["quantizer", "calib", "eval", "scale", "cluster", "model", "family"]), data=st.data())
@pytest.mark.usefixtures("only_composed")
def test_option_files(group: str, data: Any, folder: Path) -> None:
    options = folder / "conf"
    shutil.rmtree(options, ignore_errors=True)
    (options / group).mkdir(parents=True)
    ours = {"calib": "wiki", "eval": "two_samples", "scale": "smoke", "cluster": "local", "family": "lm"}
    start = Path(cells_module.__file__).parents[3] / "conf" / group / f"{ours.get(group, 'rtn')}.yaml"
    content = start.read_bytes() if start.exists() else b"_target_: a.B\n"
    made = st.one_of(damaged(content), plain.map(lambda value: yaml.safe_dump(value, allow_unicode=True).encode()))
    (options / group / "mine.yaml").write_bytes(data.draw(made))
    chosen = ["calib=wiki", f"calib.family={'mine'}"] if group == "family" else [f"{group}=mine"]
    checked(in_process([f"--config-dir={options}", *chosen], folder))
    checked(in_process(["list", group, f"--config-dir={options}"], folder))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with a small finished sweep in outputs/, and the sweep's name."""
    workdir = Workdir(tmp_path_factory.mktemp("finished"))
    line = workdir.arguments("-m", "quantizer=rtn,gptq", "quantizer.weight.group_size=16")
    assert in_process(line, workdir.folder).check().status == 0
    (sweep,) = (path.name for path in (workdir.outputs / "sweeps").iterdir())
    return workdir.folder, sweep


def results(folder: Path) -> dict[str, bytes]:
    """Everything that was computed."""
    found = [*folder.glob("outputs/runs/*/*.json"), *folder.glob("outputs/runs/*/scores/*")]
    return {str(path): path.read_bytes() for path in found if path.is_file()}


@cases(few=12, share=0.5)
@given(data=st.data())
def test_stored_files(data: Any, finished: tuple[Path, str]) -> None:
    folder, sweep = finished
    outputs = folder / "outputs"
    files = sorted(
        itertools.chain(
            outputs.glob("runs/*/*.json*"), outputs.glob("runs/*/scores/*"), outputs.glob("sweeps/*/*.json")
        )
    )
    files += sorted(outputs.glob("sweeps/*/state/cells/*.json"))
    file = data.draw(st.sampled_from(files))
    run = next(outputs.glob("runs/*")).name if file.parts[-3] != "runs" else file.parent.name
    questions = [["collate", "--all"], ["status"], ["status", sweep], ["show", run], ["compare", sweep], ["logs", run]]
    asked = data.draw(st.lists(st.sampled_from(questions), min_size=1, max_size=2))
    whole = file.read_bytes()
    try:
        file.write_bytes(data.draw(damaged(whole)))
        before = results(folder)
        for question in asked:
            checked(in_process(question, folder))
        assert results(folder) == before
    finally:
        file.write_bytes(whole)


@pytest.fixture(scope="module")
def run_line(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Workdir, list[str]], Ended]:
    """Runs cells through the command; what Hydra takes half a second for is composed by one composer for all."""

    def run(workdir: Workdir, line: list[str]) -> Ended:
        def composed(arguments: list[str], folders: Folders, run_cells: Callable[..., None]) -> None:
            with offline_composer(folders) as (composer, loader):
                made = cells_of(composer, loader, arguments, folders)
            run_cells(made, arguments, {})

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(cells_module, "run", composed)
            return in_process(line, workdir.folder)

    return run


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Workdir:
    return Workdir(tmp_path_factory.mktemp("small"))


TEXTS = {
    "txt": "\n\n".join(f"sentence number {i} of a text, {i * i} of it " * 3 for i in range(40)).encode(),
    "jsonl": b"".join(b'{"text": "row %d of it, %d words or so in every one"}\n' % (i, i * i) for i in range(200)),
    "json": b'[{"text": "' + b'"}, {"text": "'.join(b"row %d of several" % i for i in range(200)) + b'"}]',
    "csv": b"text,label\n" + b"".join(b'"row %d, and more",%d\n' % (i, i % 2) for i in range(200)),
    "tsv": b"text\tlabel\n" + b"".join(b"row %d and more\t%d\n" % (i, i % 2) for i in range(200)),
}


@cases(few=6, share=0.15)
@given(kind=st.sampled_from(sorted(TEXTS)), data=st.data())
def test_texts(kind: str, data: Any, small: Workdir, run_line: Callable[[Workdir, list[str]], Ended]) -> None:
    file = small.folder / f"mine.{kind}"
    file.write_bytes(data.draw(st.one_of(st.just(TEXTS[kind]), damaged(TEXTS[kind]))))
    line = [one for one in small.base if not one.startswith("calib.path")]
    checked(run_line(small, [*line, f"calib.path={file}", "quantizer=rtn", "dry_run=true"]))


@cases(few=6, share=0.15)
@given(data=st.data())
def test_model_folders(data: Any, small: Workdir, run_line: Callable[[Workdir, list[str]], Ended]) -> None:
    model = small.folder / "damaged"
    if not model.exists():
        save_tiny_model(model)
    file = data.draw(st.sampled_from(sorted(path for path in model.iterdir() if path.is_file())))
    whole = file.read_bytes()
    line = [one for one in small.base if not one.startswith("model.path")]
    line += [f"model.path={model}", "quantizer=rtn", "quantizer.weight.group_size=16"]
    try:
        file.write_bytes(data.draw(damaged(whole)))
        checked(run_line(small, line))
    finally:
        file.write_bytes(whole)


@pytest.mark.skipif(not CASES, reason="make fuzz runs it")
@cases(few=1, share=0.02)
@given(arguments=commands.filter(lambda line: not line or line[0] not in {"cancel", "retry"}))
def test_command_lines_in_processes_of_their_own(arguments: list[str], small: Workdir) -> None:
    done = small.quantbench(*arguments, "dry_run=true", HYDRA_FULL_ERROR="1", HF_HUB_OFFLINE="1")
    checked(Ended(done.returncode, done.stdout, done.stderr))
