"""What a model is tested on: a task, and the test set it makes for one tokenizer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import pandas as pd

from quantbench.core.errors import ConfigError
from quantbench.core.origin import Origin
from quantbench.core.progress import ProgressCallback
from quantbench.metrics.statistics import Estimate

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from quantbench.models.handle import ModelHandle
    from quantbench.tasks.reference import Reference


@dataclass(frozen=True)
class Outcome:
    """What scoring gave.

    items        columns item, document and cluster (str, item unique), then numbers; one row per item. What items of
                 one cluster have in common (a passage, a document) makes their outcomes alike, so errors are over
                 clusters
    attachments  file name suffix -> text that is stored as it is beside the score
    metrics      names of the metrics that the items give, where they are fewer than the test set's; None: all of them
    estimates    metrics that the items do not give, by name, with the influence of each item in their order
    positions    of running text, the outcome at each scored position (quantbench.tasks.positions)
    """

    items: pd.DataFrame
    attachments: dict[str, str] = field(default_factory=dict)
    metrics: tuple[str, ...] | None = None
    estimates: Mapping[str, Estimate] = field(default_factory=dict)
    positions: pd.DataFrame | None = None


@runtime_checkable
class TestSet(Protocol):
    """The items of a task as one model's tokenizer sees them; made before any expensive work.

    Every member is required: one that is optional would be lost with a misspelt name.
    """

    @property
    def protocol_values(self) -> dict[str, Any]:
        """Everything that fixes a score, plain values: scores of different values are never compared."""
        ...

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that an outcome gives (quantbench.metrics.metrics)."""
        ...

    @property
    def uses_reference(self) -> bool:
        """Whether items are also compared with what the full-precision model makes of them."""
        ...

    @property
    def documents(self) -> Sequence[str]:
        """The texts of the test set, which a calibration set must not hold."""
        ...

    @property
    def contents(self) -> Sequence[str]:
        """Of items made from rows: what each is about (Example.content), which no calibration item may be; else ()."""
        ...

    @property
    def token_rows(self) -> Sequence[Tensor]:
        """int64 [L_i] per item: the tokens that a calibration set must not share long runs of."""
        ...

    @property
    def n_positions(self) -> int:
        """How many tokens go through the model, about: for the expected time."""
        ...

    def check_length(self, limit: int | None, task: str) -> None:
        """Raise ConfigError if items are longer than the `limit` positions a model takes and cannot be cut."""
        ...

    def score(
        self,
        handle: ModelHandle,
        task: str,
        reference: Reference | None,
        device: torch.device,
        progress: ProgressCallback,
    ) -> Outcome:
        """Score the model as it stands in `handle`. Raises ModelError if a result is not finite."""
        ...


@runtime_checkable
class Task(Protocol):
    """What one entry of `eval.tasks` is. Implementations are components."""

    @property
    def origin(self) -> Origin:
        """The test distribution: its relation to what is calibrated on follows from this."""
        ...

    def prepare(self) -> str:
        """Fetch what `load` needs; returns one line saying what lies where."""
        ...

    def load(self, tokenizer: PreTrainedTokenizerBase, tokenizer_fingerprint: str) -> TestSet:
        """Read the data and make the items. Raises DataError for data that cannot be had or are not as described."""
        ...


def load_test_set(task: Task, tokenizer: PreTrainedTokenizerBase, tokenizer_fingerprint: str) -> TestSet:
    """The test set of a task, which may be a class from outside this package.

    Raises as Task.load, and ConfigError if what it gives lacks a member of TestSet.
    """
    found = task.load(tokenizer, tokenizer_fingerprint)
    known = set(dir(found))  # not hasattr, which would read them: some take long to work out
    if missing := [name for name in vars(TestSet) if not name.startswith("_") and name not in known]:
        raise ConfigError(
            f"{type(task).__qualname__}.load gives a {type(found).__qualname__} without {', '.join(missing)}: a test "
            "set has every member of quantbench.tasks.task.TestSet"
        )
    return found


def protocol_id(test: TestSet) -> str:
    """sha256 of the protocol's canonical JSON: scores under different ids are never compared."""
    return hashlib.sha256(json.dumps(test.protocol_values, sort_keys=True).encode()).hexdigest()
