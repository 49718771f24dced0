"""Options that the swept recipes have and the default recipe has not."""

from __future__ import annotations

import pytest
from quantbench.launch.axes import as_choices, as_typed

from command import Workdir
from quantbench.launch.naming import sweep_name


@pytest.mark.parametrize(
    ("typed", "given"),
    [
        ("quantizer.kv_cache.bits=3", "quantizer.kv_cache.bits=choice(3)"),
        ("+quantizer.policy.rules.o={match: o_proj}", "+quantizer.policy.rules.o=choice({match: o_proj})"),
        ("rounding@quantizer.rounding.inner=gptq", "rounding@quantizer.rounding.inner=choice(gptq)"),
        ("quantizer.policy.keep=['a(b','c,d']", "quantizer.policy.keep=choice(['a(b','c,d'])"),
        ("calib.source.path='two words.txt'", "calib.source.path=choice('two words.txt')"),
    ],
)
def test_one_value_below_a_group_becomes_a_choice_of_one_and_back(typed: str, given: str) -> None:
    line = ["-m", "quantizer=kv4,kivi4", typed]
    assert as_choices(line) == [*line[:2], given]
    assert as_choices(["-m", "+sweep=quantizers_kv", typed])[2] == given
    assert as_choices(line[1:]) == line[1:]  # no multirun
    assert as_typed([line[1], given]) == line[1:]
    assert sweep_name(as_typed(as_choices(line)[1:]), {}) == sweep_name(line[1:], {})


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
    assert as_choices(["-m", other]) == ["-m", other]
    assert as_typed([other]) == [other]


def test_an_option_only_the_swept_recipes_have_can_be_set_for_all(workdir: Workdir) -> None:
    done = workdir.run("-m", "quantizer=kv4,kivi4", "quantizer.kv_cache.bits=3", "dry_run=true")
    assert done.returncode == 0, done.stderr
    assert "2 cells, 2 runs" in done.stdout
    assert done.stdout.count("kv_cache.bits=3") == 2


def test_an_option_one_of_the_cells_has_not_is_refused_by_name(workdir: Workdir) -> None:
    done = workdir.run("-m", "quantizer=kv4,rtn", "quantizer.kv_cache.bits=3")
    assert done.returncode == 2
    assert done.stderr.startswith("quantbench: quantizer.kv_cache.bits: no such option.")
    assert not workdir.outputs.joinpath("runs").exists()
