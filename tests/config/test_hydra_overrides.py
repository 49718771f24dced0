"""Overrides on their way to Hydra and back: what an option file leaves out, and what only some cells of a grid have."""

from __future__ import annotations

import pytest

from command import Workdir
from quantbench.config.composer import compose_cells
from quantbench.config.overrides import as_typed, expand, to_hydra
from quantbench.core.errors import ConfigError
from quantbench.launch.naming import sweep_name


@pytest.mark.parametrize(
    ("typed", "given"),
    [
        ("quantizer.kv_cache.bits=3", "quantizer.kv_cache.bits=choice(3)"),
        ("+quantizer.policy.rules.o={match: o_proj}", "+quantizer.policy.rules.o=choice({match: o_proj})"),
        ("rounding@quantizer.rounding.inner=gptq", "rounding@quantizer.rounding.inner=choice(gptq)"),
        ("quantizer.policy.keep=['a(b','c,d']", "quantizer.policy.keep=choice(['a(b','c,d'])"),
        ("calib.path='two words.txt'", "++calib.path=choice('two words.txt')"),
        ("calib.parts.wiki=0.5", "++calib.parts.wiki=choice(0.5)"),
        ("eval.tasks.wiki.window=64", "++eval.tasks.wiki.window=choice(64)"),
        ("calib.n=4", "calib.n=choice(4)"),
    ],
)
def test_one_value_below_a_group_becomes_a_choice_of_one_and_back(typed: str, given: str) -> None:
    line = ["-m", "quantizer=kv4,kivi4", typed]
    assert to_hydra(line) == [*line[:2], given]
    assert to_hydra(["-m", "+sweep=quantizers_kv", typed])[2] == given
    assert as_typed([line[1], given]) == line[1:]
    assert sweep_name(as_typed(to_hydra(line)[1:]), {}) == sweep_name(line[1:], {})
    single = to_hydra(line[1:])  # no multirun
    assert single == [line[1], f"++{typed}" if given.startswith("++") else typed]
    assert as_typed(single) == line[1:]


@pytest.mark.parametrize(
    "other",
    [
        "quantizer=gptq",
        "quantizer.weight.bits=4,3",
        "quantizer.weight.bits=choice(4,3)",
        "seed=range(3)",
        "~quantizer.clip",
        "hydra.sweep.dir=x",
        "threads=2",
        "quantizer.weight.bits=",
        "quantizer.policy.keep=[a",
    ],
)
def test_everything_else_is_left_as_it_is(other: str) -> None:
    assert to_hydra(["-m", other]) == ["-m", other]
    assert as_typed([other]) == [other]


def test_a_key_that_an_option_leaves_out_may_be_swept() -> None:
    typed = ["calib.revision=abc,def", "eval.tasks.wiki.window=64,128"]
    given = to_hydra(["-m", *typed])[1:]
    assert given == [f"++{one}" for one in typed]
    assert as_typed(given) == typed
    revisions, windows = ("abc", "def"), ("64", "128")
    assert [as_typed(one) for one in expand(given)] == [
        [f"calib.revision={revision}", f"eval.tasks.wiki.window={window}"]
        for revision in revisions
        for window in windows
    ]


def test_the_axes_of_a_sweep_come_before_those_of_its_command_line() -> None:
    found = expand(to_hydra(["-m", "calib.n=1,2"])[1:], {"quantizer": "rtn,gptq", "calib.max_rows": "5"})
    assert [as_typed(one) for one in found] == [
        [f"quantizer={quantizer}", "calib.max_rows=5", f"calib.n={n}"] for quantizer in ("rtn", "gptq") for n in (1, 2)
    ]


def test_what_an_option_leaves_out_is_set_and_what_is_misspelt_is_refused() -> None:
    (cell,) = compose_cells(["calib=sst2", "quantizer=gptq", "calib.revision=abc", "calib.columns.text=phrase"])
    assert cell.calib_part is not None
    data = cell.calib_part.plain["source"]["data"]
    assert (data["source"]["revision"], data["columns"]["text"]) == ("abc", "phrase")
    assert cell.overrides == ("calib=sst2", "quantizer=gptq", "calib.revision=abc", "calib.columns.text=phrase")
    with pytest.raises(ConfigError, match=r"calib\.revison: no such option\. Did you mean 'revision'"):
        compose_cells(["calib=sst2", "calib.revison=abc"])
    with pytest.raises(ConfigError, match=r"calib\.revision: no such option"):  # a key of the hub's data sets
        compose_cells(["calib=local", "calib.path=my.txt", "calib.revision=abc"])


def test_an_option_only_the_swept_recipes_have_can_be_set_for_all(workdir: Workdir) -> None:
    done = workdir.answer("-m", "quantizer=kv4,kivi4", "quantizer.kv_cache.bits=3", "dry_run=true")
    assert done.returncode == 0, done.stderr
    assert "2 cells, 2 runs" in done.stdout
    assert done.stdout.count("kv_cache.bits=3") == 2


def test_an_option_one_of_the_cells_has_not_is_refused_by_name(workdir: Workdir) -> None:
    done = workdir.answer("-m", "quantizer=kv4,rtn", "quantizer.kv_cache.bits=3")
    assert done.returncode == 2
    assert done.stderr.startswith("quantbench: quantizer.kv_cache.bits: no such option.")
    assert not workdir.outputs.joinpath("runs").exists()


@pytest.mark.parametrize(
    "typed", ["cluster.extra={constraint: a100}", "cluster.extra.constraint=a100", "+cluster.extra.constraint=a100"]
)
def test_options_of_sbatch_are_given_as_the_option_file_says(typed: str) -> None:
    (cell,) = compose_cells(["cluster=slurm", typed])
    assert cell.plain["cluster"]["extra"] == {"constraint": "a100"}


def test_overrides_are_kept_as_they_were_typed(workdir: Workdir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEXT", str(workdir.text))
    typed = "calib.path=${oc.env:TEXT}"
    line = [one for one in workdir.base if not one.startswith("calib.path")]
    done = workdir.answer(*line, typed, "quantizer=rtn", "dry_run=true", base=False)
    assert done.returncode == 0, done.stderr
    assert "${oc.env:TEXT}" in done.stdout
