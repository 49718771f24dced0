"""What a task from outside this package must give."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import pytest

from quantbench.core.errors import ConfigError
from quantbench.core.origin import Origin
from quantbench.tasks import task as kinds
from quantbench.tasks.task import Task, load_test_set
from tiny import tiny_tokenizer


class Without:
    """All members but `contents`; the costly ones say when they are read."""

    uses_reference = False
    documents = ()

    def __init__(self) -> None:
        self.protocol_values: dict[str, Any] = {}
        self.metrics = ("accuracy",)

    @cached_property
    def token_rows(self) -> Any:
        raise AssertionError("read too early")

    @property
    def n_positions(self) -> Any:
        raise AssertionError("read too early")

    def check_length(self, limit: int | None, task: str) -> None: ...

    def score(self, *_: Any) -> Any: ...


class Whole(Without):
    contents = ("a question",)


class Misspelt(Without):
    contens = ("a question",)


class Gives:
    origin = Origin(name="mine", family="lm")

    def __init__(self, found: Any) -> None:
        self.found = found

    def prepare(self) -> str:
        return ""

    def load(self, tokenizer: Any, tokenizer_fingerprint: str) -> kinds.TestSet:
        assert tokenizer_fingerprint == "tok"
        found: kinds.TestSet = self.found
        return found


def test_a_test_set_with_every_member_is_taken_and_not_read() -> None:
    whole = Whole()
    task = Gives(whole)
    assert isinstance(task, Task)
    assert load_test_set(task, tiny_tokenizer(), "tok") is whole


def test_a_misspelt_member_is_named() -> None:
    with pytest.raises(ConfigError, match=r"Gives.load gives a Misspelt without contents: a test set has every member"):
        load_test_set(Gives(Misspelt()), tiny_tokenizer(), "tok")
    with pytest.raises(ConfigError, match="gives a NoneType without protocol_values, metrics, uses_reference"):
        load_test_set(Gives(None), tiny_tokenizer(), "tok")
