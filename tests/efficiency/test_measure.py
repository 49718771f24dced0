"""What an exported model costs where it runs: measured in a process of its own, kept with its run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from command import Workdir
from inside import Ended, in_process
from quantbench.cli.measuring import lines
from quantbench.core.errors import ConfigError, StoreError
from quantbench.efficiency import engines
from quantbench.efficiency.engines import Meter
from quantbench.efficiency.measure import Efficiency, Rate, check_engine
from quantbench.efficiency.workload import Workload
from tiny import POSITIONS, save_tiny_model


def ask(workdir: Workdir, *line: str) -> Ended:
    """A sub-command's answer."""
    return in_process(line, workdir.folder)


SHORT = ["--context", "24", "--decode", "3", "--repeat", "2"]


def test_an_export_is_measured_and_the_costs_of_its_run_have_it(workdir: Workdir) -> None:
    assert workdir.answer("-m", "quantizer=rtn", "quantizer.weight.group_size=16").returncode == 0
    runs = [json.loads(path.read_text()) for path in workdir.outputs.glob("runs/*/record.json")]
    (run,) = (one["run_id"] for one in runs if one["choices"]["quantizer"] == "rtn")
    assert ask(workdir, "export", run, "served", "--to", "dense", "--without-proof").status == 0
    for _ in range(2):
        done = ask(workdir, "measure", "served", *SHORT)
        assert done.status == 0, done.said
    assert "transformers on cpu, 1 thread; batch 1, context 24, 3 tokens generated" in done.printed
    assert f"Added to the costs of run {run}" in done.printed
    (sweep,) = (path.name for path in (workdir.outputs / "sweeps").iterdir())
    assert ask(workdir, "collate", sweep).status == 0
    costs = pd.read_csv(workdir.outputs / "sweeps" / sweep / "costs.csv")
    own = costs[costs.what.isin(["prefill", "decode"])]
    assert list(own.what) == ["prefill", "decode"] * 2  # measured twice, kept twice
    assert set(own.run_id) == {run}
    assert set(own.n[own.what == "prefill"]) == {2}
    assert set(own.n[own.what == "decode"]) == {2 * 3}
    weights = Path(workdir.folder / "served/model.safetensors").stat().st_size
    assert set(own.disk_bytes) == {weights}
    assert abs(own.weights_bytes.iloc[0] - weights) < 0.1 * weights  # the rest is the header
    # two blocks, keys and values of two heads of 8 for each of the 27 positions, in float32
    assert set(own.cache_bytes) == {2 * 2 * 2 * 8 * (24 + 3) * 4}
    assert (own.p50_seconds <= own.p90_seconds).all()
    assert ((own.tokens_per_second * own.p50_seconds).round(6) == own.what.map({"prefill": 24, "decode": 1})).all()


def test_a_rate_has_the_median_and_the_slowest_tenth() -> None:
    rate = Rate.of([0.1 * step for step in range(1, 12)], tokens=12)
    assert rate.n == 11
    assert rate.p50_seconds == pytest.approx(0.6)
    assert rate.p90_seconds == pytest.approx(1.0)
    assert rate.tokens_per_second == pytest.approx(20)
    assert Rate.of([2.0], tokens=4) == Rate(2.0, 2.0, 1, 2.0)


def test_energy_is_that_used_since_the_start_though_the_counter_began_anew(tmp_path: Path) -> None:
    zone = tmp_path / "intel-rapl:0"
    for part in (zone, tmp_path / "intel-rapl:0:0"):
        part.mkdir()
        (part / "energy_uj").write_text("5000000\n")
        (part / "max_energy_range_uj").write_text("10000000\n")
    (tmp_path / "intel-rapl:1").mkdir()  # one that may not be read
    (meter,) = engines._energy_meters("cpu", tmp_path)
    assert isinstance(meter, Meter)
    meter.start()
    (zone / "energy_uj").write_text("7500000\n")
    assert (meter.name, meter.joules()) == ("intel-rapl:0", 2.5)
    (zone / "energy_uj").write_text("1000000\n")
    assert meter.joules() == 6.0


def test_what_is_told_names_the_counters_that_were_read() -> None:
    rate = Rate(1.0, 1.0, 1, 1.0)
    told = Efficiency(
        *("transformers", "cuda:0", 1, Workload(), 1, 1, 1, 1, 1, 1, 1.0, rate, rate, 12.5),
        energy_of=("intel-rapl:0", "gpu"),
        environment={"id": "x"},
    )
    assert "12.5 J per repetition, of intel-rapl:0, gpu" in lines(told)[-1]
    assert told.costs()[0]["energy_of"] == "intel-rapl:0 gpu"
    none = dataclasses.replace(told, joules_per_repetition=None, energy_of=())
    assert "no counter of energy can be read here" in lines(none)[-1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"batch": 0}, "--batch 0: give 1 or more"),
        ({"warm_up": -1}, "--warm-up -1: give 0 or more"),
        ({"context": 120, "decode": 9}, "--context 120 and --decode 9: the model takes 128 positions"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Workload(**change).check(POSITIONS)
    assert str(refused.value) == said


def test_what_an_engine_cannot_read_is_refused_before_it_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StoreError, match=r"no exported model: neither config\.json nor a GGUF file"):
        check_engine("transformers", tmp_path, 1, None)
    save_tiny_model(tmp_path)
    assert check_engine("transformers", tmp_path, 1, None) is None
    with pytest.raises(ConfigError, match="has no GGUF file; export one with --to gguf"):
        check_engine("llama.cpp", tmp_path, 1, None)
    (tmp_path / "model.gguf").touch()
    with pytest.raises(ConfigError, match=r"--batch 2: with llama\.cpp one sequence is measured"):
        check_engine("llama.cpp", tmp_path, 2, None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match="pip install xllamacpp"):
        check_engine("llama.cpp", tmp_path, 1, None)


def test_an_engine_that_fails_is_one_message(workdir: Workdir) -> None:
    folder = workdir.folder / "broken"
    save_tiny_model(folder)
    (folder / "model.safetensors").write_bytes(b"cut short")
    done = ask(workdir, "measure", "broken", *SHORT).check()
    assert done.status == 2
    assert "transformers cannot run" in done.said
    unknown = ask(workdir, "measure", "broken", "--engine", "vllm").check()
    assert unknown.status == 2
    assert "no such engine. Engines: transformers, llama.cpp" in unknown.said
