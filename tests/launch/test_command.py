"""The command end to end with a tiny model: done once, resumed, extended from outside, failing cell by cell."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path

import pandas as pd
import pytest

from command import Done, Workdir
from quantbench.launch.naming import sweep_name
from quantbench.report.verify import verify_sweep
from quantbench.store.store import Store


def ok(done: Done) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def finished(outputs: Path) -> dict[str, tuple[int, bytes]]:
    """Everything that marks a part as done: when it was written, and what it holds."""
    files = [*outputs.glob("runs/*/record.json"), *outputs.glob("runs/*/scores/*")]
    return {str(f.relative_to(outputs)): (f.stat().st_mtime_ns, f.read_bytes()) for f in files if f.suffix != ".tmp"}


def results(outputs: Path) -> pd.DataFrame:
    (path,) = outputs.glob("sweeps/*/results.csv")
    return pd.read_csv(path)


def test_a_grid_is_run_once_and_repeating_it_does_nothing(workdir: Workdir) -> None:
    printed = ok(workdir.run("-m", "quantizer=rtn,gptq", "quantizer.weight.group_size=16"))
    assert "kl (nats/token; lower is better): local" in printed
    before = finished(workdir.outputs)
    told = {path: path.read_text() for path in workdir.outputs.glob("sweeps/*/state/cells/*.json")}
    again = ok(workdir.run("-m", "quantizer.weight.group_size=16", "quantizer=rtn,gptq", "save=none"))
    assert finished(workdir.outputs) == before
    assert printed == again
    assert told
    assert {path: path.read_text() for path in workdir.outputs.glob("sweeps/*/state/cells/*.json")} == told
    frame = results(workdir.outputs)
    assert set(frame.quantizer) == {"none", "rtn", "gptq"}
    assert set(frame.status) == {"done"}
    assert len(list(workdir.outputs.glob("runs/*"))) == 3
    assert (frame[(frame.quantizer == "none") & (frame.metric == "kl")].value == 0).all()
    assert set(frame.metric) >= {"kl_p999", "kl_max", "kl_unsure", "reverse_kl", "rms_dp"}
    store = Store(workdir.outputs)
    manifest = store.load_manifest(store.sweep_names()[0])
    assert manifest is not None
    assert verify_sweep(store, manifest) == 3


def test_a_later_evaluation_in_a_new_process_equals_one_process(workdir: Workdir, tmp_path: Path) -> None:
    other = workdir.folder / "other.txt"
    other.write_text("\n\n".join(f"sentence number {i} of another text, " * 8 for i in range(30)))
    second = ["eval=local", f"eval.tasks.local.path={other}"]
    recipe = ["quantizer=gptq", "quantizer.weight.group_size=16"]
    ok(workdir.run(*recipe))
    record = next(p for p in workdir.outputs.glob("runs/*/record.json") if json.loads(p.read_text())["layers"])
    before = (record.stat().st_mtime_ns, record.read_bytes())
    ok(workdir.run(*recipe, *second))
    assert (record.stat().st_mtime_ns, record.read_bytes()) == before
    fresh = tmp_path / "fresh"
    ok(workdir.run(*recipe, *second, outputs=fresh))
    run_id = record.parent.name
    for path in fresh.glob(f"runs/{run_id}/scores/*.parquet"):
        same = workdir.outputs / path.relative_to(fresh)
        pd.testing.assert_frame_equal(pd.read_parquet(path), pd.read_parquet(same), check_exact=True)
    one, two = (Store(root).load_run(run_id) for root in (workdir.outputs, fresh))
    assert one is not None
    assert two is not None
    assert one.fingerprints == two.fingerprints


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["quantizer=gtpq"], "quantizer=gtpq: no such choice. Did you mean 'gptq'?"),
        (["quantizer.weight.bit=3"], "quantizer.weight.bit: no such option. Did you mean 'bits'?"),
        (["+quantizer.weight.bit=3"], "quantizer.weight.bit: no such option. Did you mean 'bits'?"),
        (["+typo=1"], "typo: no such option."),
        (["typo=1"], "typo: no such option."),
        (["+sweep=nope"], "sweep=nope: no such choice. There are: "),
        (["quantizer.weight.bits=abc"], "quantizer.weight.bits='abc': input should be a valid integer"),
        (["-m", "quantizer=rtn", "quantizer.weight.bits=4,9"], "quantizer.weight.bits=9: input should be less than"),
        (["calib.n=100000"], "100000 sequences of 32 tokens were asked for"),
        (["quantizer=rtn", "quantizer.policy.keep=[dwon]"], "'dwon' matches no layer"),
        (["calib.path=/no/such/file.txt"], "/no/such/file.txt"),
        (["scale.window=192"], "task local: windows of 192 tokens, but the model takes at most 128"),
        (["calib.length=192"], "calib.length=192: the model takes at most 128 tokens"),
        (["model.path=/no/such/folder"], "model.path=/no/such/folder: no such folder. Give a folder that"),
    ],
)
def test_bad_input_is_one_clear_message_before_anything_runs(
    workdir: Workdir, arguments: list[str], message: str
) -> None:
    done = workdir.answer(*arguments)
    assert done.returncode != 0
    assert message in done.stderr
    assert not list(workdir.outputs.glob("runs/*"))
    assert "Traceback" not in done.stderr


def test_a_missing_required_option_is_named(workdir: Workdir) -> None:
    done = workdir.answer("model=local", base=False)
    assert done.returncode == 2
    assert "model.path: this option is required" in done.stderr


def test_dry_run_runs_nothing(workdir: Workdir) -> None:
    printed = ok(workdir.answer("-m", "quantizer=rtn,gptq", "quantizer.weight.group_size=16", "dry_run=true"))
    assert "2 cells, 2 runs, 2 not done." in printed
    assert "Expected: about" in printed
    assert not workdir.outputs.joinpath("runs").exists()


CUSTOM = '''
from typing import ClassVar
import os
from quantbench.core.component import Part, component
from quantbench.formats.base import Format
from quantbench.formats.quantize import quantize
from quantbench.rounding.base import Rounded

@component
class Mine(Part):
    """Nearest rounding that can be told to fail."""

    fail: str = ""

    def round(self, weight, stats, format):
        if self.fail == "exit":
            raise SystemExit(3)
        if self.fail == "error" and not os.environ.get("MENDED"):
            raise RuntimeError("boom")
        return Rounded(quantize(weight, format))
'''

RECIPE = """
_target_: quantbench.pipeline.recipe.Recipe
weight: {_target_: quantbench.formats.int.IntFormat, bits: 4, group_size: 16, symmetric: false}
rounding: {_target_: mine.Mine, fail: ""}
policy: {_target_: quantbench.pipeline.recipe.Policy}
"""


def outside(workdir: Workdir) -> list[str]:
    """Options from outside the project: a quantizer, a calibration set and an evaluation."""
    (workdir.folder / "mine.py").write_text(CUSTOM)
    conf = workdir.folder / "conf"
    for group in ("quantizer", "calib", "eval"):
        (conf / group).mkdir(parents=True)
    (conf / "quantizer" / "mine.yaml").write_text(RECIPE)
    (conf / "calib" / "ours.yaml").write_text(
        f"path: {workdir.text}\nfamily: local\ndomain: notes\nlanguage: en\nlicence: ours\nsampler: whole_documents\n"
    )
    (conf / "eval" / "ours.yaml").write_text("sets: [ours]\n")
    return [f"--config-dir={conf}"]


def test_options_from_outside_the_project(workdir: Workdir) -> None:
    flags = outside(workdir)
    model = [a for a in workdir.base if not a.startswith("calib")]
    chosen = ["quantizer=mine", "calib=ours", "eval=ours", "calib.n=4", "calib.length=32"]
    ok(workdir.run(*flags, *model, *chosen, base=False, PYTHONPATH=str(workdir.folder)))
    frame = results(workdir.outputs)
    assert set(frame.quantizer) == {"none", "mine"}
    assert set(frame.task) == {"ours"}


def test_a_failing_cell_costs_that_cell_only_and_is_tried_again(workdir: Workdir) -> None:
    grid = ["-m", *outside(workdir), "quantizer=mine", "quantizer.rounding.fail=exit,error,''"]
    done = workdir.run(*grid, PYTHONPATH=str(workdir.folder))
    assert done.returncode == 1
    assert "2 of 3 cells failed" in done.stderr
    assert "FAILED" in done.stdout
    frame = results(workdir.outputs)
    mine = frame[frame.quantizer == "mine"]
    assert sorted(mine.groupby("variant", dropna=False).status.first()) == ["done", "failed", "failed"]
    records = [json.loads(p.read_text()) for p in workdir.outputs.glob("runs/*/record.json")]
    errors = {r["error"]["type"]: r["error"] for r in records if r["status"] == "failed"}
    assert set(errors) == {"SystemExit", "RuntimeError"}
    assert "boom" in errors["RuntimeError"]["traceback"]
    before = {k: v for k, v in finished(workdir.outputs).items() if b'"failed"' not in v[1]}
    again = workdir.run(*grid, PYTHONPATH=str(workdir.folder), MENDED="1")
    assert again.returncode == 1
    assert "1 of 3 cells failed" in again.stderr
    after = finished(workdir.outputs)
    assert {k: after[k] for k in before} == before


def test_a_run_whose_inputs_changed_is_refused(workdir: Workdir) -> None:
    ok(workdir.answer("quantizer=rtn", "quantizer.weight.group_size=16"))
    path = next(p for p in workdir.outputs.glob("runs/*/record.json") if json.loads(p.read_text())["layers"])
    record = json.loads(path.read_text())
    record["fingerprints"]["tokenizer"] = "0" * 64
    path.write_text(json.dumps(record))
    done = workdir.answer("quantizer=rtn", "quantizer.weight.group_size=16")
    assert done.returncode == 1
    assert "was made with another tokenizer" in done.stderr
    record["schema_version"] = 99
    path.write_text(json.dumps(record))
    done = workdir.answer("quantizer=rtn", "quantizer.weight.group_size=16")
    assert done.returncode != 0
    assert "Upgrade quantbench" in done.stderr


@pytest.mark.slow
def test_killed_at_random_moments_and_repeated_it_ends_like_an_undisturbed_sweep(
    workdir: Workdir, tmp_path: Path
) -> None:
    grid = ["-m", "quantizer=rtn,gptq,awq", "quantizer.weight.group_size=16", "quantizer.weight.bits=4,3"]
    undisturbed = tmp_path / "undisturbed"
    started = time.monotonic()
    ok(workdir.run(*grid, outputs=undisturbed))
    duration = time.monotonic() - started
    moments = random.Random(7)
    seen: dict[str, tuple[int, bytes]] = {}
    killed = 0
    for _ in range(20):
        process = workdir.start(*grid)
        time.sleep(moments.uniform(0.1, 0.5) * duration)
        process.send_signal(signal.SIGKILL)
        killed += process.finish().returncode == -signal.SIGKILL
        now = finished(workdir.outputs)
        assert {k: now[k] for k in seen if k.endswith(".json")} == {
            k: v for k, v in seen.items() if k.endswith(".json")
        }
        seen = now
    assert killed >= 5, "the kills came after the sweep had ended"
    ok(workdir.run(*grid))
    (disturbed,) = workdir.outputs.glob("sweeps/*/results.csv")
    (reference,) = undisturbed.glob("sweeps/*/results.csv")
    assert disturbed.read_bytes() == reference.read_bytes()


def test_two_texts_under_one_task_name_are_refused_before_anything_runs(workdir: Workdir) -> None:
    tests = []
    for name in ("one", "two"):
        tests.append(workdir.folder / f"{name}.txt")
        tests[-1].write_text("\n\n".join(f"{name} {i} and {i * i} of it " * 20 for i in range(10)))
    done = workdir.answer("-m", "quantizer=gptq", f"calib.test_path={tests[0]},{tests[1]}")
    assert done.returncode == 2
    assert "nothing was run: task local: scores of protocol" in done.stderr
    assert "tests on different texts need different task names" in done.stderr
    assert not list(workdir.outputs.glob("runs/*"))


def test_two_files_make_a_table_of_both_tested_on_both(workdir: Workdir) -> None:
    other = workdir.folder / "my notes.txt"
    other.write_text("\n\n".join(f"sentence number {i} of another text, {i * i} of it " * 8 for i in range(60)))
    files = [argument for argument in workdir.base if not argument.startswith("calib.path")]
    grid = ["-m", *files, "quantizer=rtn,gptq", "quantizer.weight.group_size=16"]
    ok(workdir.answer(*grid, f"calib.path={workdir.text},'{other}'", base=False))
    frame = results(workdir.outputs)
    assert set(frame.task) == {"text", "my-notes"}
    assert set(frame.status) == {"done"}
    gptq = frame[(frame.quantizer == "gptq") & (frame.metric == "kl")].set_index(["calib", "task"])
    assert {pair: bool(own) for pair, own in gptq.in_distribution.items()} == {
        ("my-notes", "my-notes"): True,
        ("my-notes", "text"): False,
        ("text", "my-notes"): False,
        ("text", "text"): True,
    }
    assert gptq.transfer_gap.notna().sum() == 2
    assert len(frame[frame.quantizer == "rtn"].run_id.unique()) == 1
    assert len(list(workdir.outputs.glob("runs/*"))) == 4


def test_an_edited_algorithm_is_a_new_run(workdir: Workdir) -> None:
    command = [*outside(workdir), "quantizer=mine"]
    ok(workdir.run(*command, PYTHONPATH=str(workdir.folder)))
    first = set(workdir.outputs.glob("runs/*"))
    (workdir.folder / "mine.py").write_text(CUSTOM.replace("quantize(weight, format)", "quantize(weight / 2, format)"))
    ok(workdir.run(*command, PYTHONPATH=str(workdir.folder)))
    assert len(first) == 2
    assert len(set(workdir.outputs.glob("runs/*")) - first) == 1


def test_sweep_names_are_stable() -> None:
    assert sweep_name(["+sweep=demo"], {}) == "demo"
    assert sweep_name(["+sweep=eight_bits"], {}) == "eight_bits"
    assert sweep_name(["+sweep=demo", "threads=4", "dry_run=true"], {}) == "demo"
    one = sweep_name(["quantizer=gptq,awq", "calib=c4"], {})
    assert one == sweep_name(["calib=c4", "quantizer=gptq,awq", "device=cpu"], {})
    assert one != sweep_name(["calib=c4", "quantizer=gptq,awq", "calib.n=4"], {})
    path = "calib.path=/a/long/way/to/reviews.txt,mine/tickets.jsonl"
    assert sweep_name([path, "quantizer=gptq"], {}).startswith("path=reviews-tickets-quantizer=gptq-")
    assert sweep_name(["quantizer.rounding.damping=0.1"], {}).startswith("damping=0.1-")
    assert len(sweep_name([f"quantizer.policy.keep=[{'x' * 500}]"], {})) < 64
