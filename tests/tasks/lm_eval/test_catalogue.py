"""What is known of lm-eval's tasks, and the test distributions that follow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from quantbench.core.errors import ConfigError
from quantbench.core.origin import Origin, relation
from quantbench.tasks.lm_eval.catalogue import catalogue_origin
from quantbench.tasks.lm_eval.task import LmEvalTask

FILE = Path(__file__).parents[3] / "conf" / "lm_eval" / "catalogue.yaml"
ENTRIES: dict[str, dict[str, Any]] = yaml.safe_load(FILE.read_text())


def test_every_entry_is_described_and_in_its_place() -> None:
    lines = [line for line in FILE.read_text().splitlines() if not line.startswith("#")]
    assert [line.partition(":")[0] for line in lines] == list(ENTRIES) == sorted(ENTRIES)
    origins = {name: catalogue_origin(name, entry) for name, entry in ENTRIES.items()}
    assert "unknown" not in {origin.family for origin in origins.values()}
    assert origins["piqa"].size == "validation, 1838"
    assert origins["piqa"].note.startswith("baber/piqa: ")


def test_an_entry_with_a_typo_is_refused() -> None:
    entry = ENTRIES["piqa"]
    with pytest.raises(ConfigError, match=r"catalogue, piqa: unknown key 'langauge'; an entry has description, family"):
        catalogue_origin("piqa", entry | {"langauge": "en"})
    with pytest.raises(ConfigError, match="catalogue, piqa: tested is missing"):
        catalogue_origin("piqa", {key: value for key, value in entry.items() if key != "tested"})
    with pytest.raises(ValidationError, match="family"):
        catalogue_origin("piqa", entry | {"family": "comonsense"})


def test_a_task_that_nobody_described_is_of_unknown_family() -> None:
    expected = Origin(name="mine", family="unknown", path=None)
    assert catalogue_origin("mine", None) == LmEvalTask(task="mine").origin == expected
    with pytest.raises(ValidationError, match="about"):
        LmEvalTask(task="mine", about={"family": "lm"})  # type: ignore[call-arg]


def test_the_name_alone_says_whether_it_is_the_calibration_text() -> None:
    calibrated = Origin(name="wiki", family="lm", language="en", path="Salesforce/wikitext")
    assert relation([calibrated], catalogue_origin("wikitext", ENTRIES["wikitext"])) == "in-distribution"
    told = LmEvalTask(task="mine", origin=Origin(name="wiki", family="lm", language="en"))
    assert relation([calibrated], told.origin) == "in-distribution"
