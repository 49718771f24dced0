"""What is stored about a run and about a score: plain, versioned, and strict when read back."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import field
from typing import Any, ClassVar, Literal, NoReturn, Self

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

import quantbench
from quantbench.core.component import STRICT
from quantbench.core.errors import StoreError
from quantbench.metrics.metric import Metric

SCHEMA_VERSION = 2
"""Version of the stored form of records, scores and manifests; raised whenever a field is added, removed or changed.

1 to 2: `relation` of a score and of a manifest's cells. What was written with 1 is read; there it is not known.
"""

VOLATILE = {"environment", "created", "seconds", "schema_version", "relation"}
"""Fields that may differ between two computations of the same thing: a relation follows from descriptions."""


class NewerSchemaError(StoreError):
    """A file that a later quantbench wrote: nothing is wrong with it, and nothing of it is to be deleted."""


class Stored:
    """Base of the records: to JSON and back. All fields are checked for name and type, on construction too."""

    what: ClassVar[str] = "record"

    def to_json(self) -> str:
        """The record as JSON text. Raises StoreError naming the field if a number is NaN or infinite."""
        data = _plain(self)
        for place, number in _numbers(data, ""):
            if not math.isfinite(number):
                raise StoreError(f"a {self.what} cannot hold {place} = {number}: only finite numbers are results")
        return json.dumps(data, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str = "this text") -> Self:
        """Read a record; `source` says in messages where the text came from.

        Raises StoreError if it is truncated or no JSON, was written with a newer schema, or has unknown, missing or
        wrongly typed fields.
        """
        try:
            data = json.loads(text, parse_constant=_refuse_constant)
        except ValueError as error:
            raise StoreError(f"{source} is damaged or truncated: {error}") from error
        version = data.get("schema_version", SCHEMA_VERSION) if isinstance(data, dict) else None
        if isinstance(version, int) and version > SCHEMA_VERSION:
            environment = data.get("environment")
            writer = environment.get("quantbench", "?") if isinstance(environment, dict) else "?"
            raise NewerSchemaError(
                f"{source} has result schema {version}, written by quantbench {writer}; this is quantbench "
                f"{quantbench.__version__}, which reads up to schema {SCHEMA_VERSION}: upgrade quantbench"
            )
        try:
            return TypeAdapter(cls).validate_json(text)
        except ValidationError as error:
            faults = [f"{'.'.join(map(str, e['loc'])) or cls.what}: {e['msg']}" for e in error.errors()]
            raise StoreError(f"{source} is not a {cls.what} of schema {SCHEMA_VERSION}: {'; '.join(faults)}") from error


def differences(old: Stored, new: Stored) -> list[str]:
    """The fields in which two records of one thing differ, leaving aside time, duration and environment."""
    before, after = _stable(_plain(old)), _stable(_plain(new))
    return [key for key in before if before[key] != after[key]]


def _plain(record: Stored) -> dict[str, Any]:
    data: dict[str, Any] = TypeAdapter(type(record)).dump_python(record, mode="json")
    return data


def _stable(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _stable(value) for key, value in data.items() if key not in VOLATILE}
    return [_stable(value) for value in data] if isinstance(data, list) else data


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _numbers(data: Any, place: str) -> Iterator[tuple[str, float]]:
    if isinstance(data, dict):
        for key, value in data.items():
            yield from _numbers(value, f"{place}.{key}" if place else str(key))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from _numbers(value, f"{place}[{index}]")
    elif isinstance(data, float):
        yield place, data


@dataclass(config=STRICT, frozen=True, kw_only=True)
class LayerRecord:
    """One quantized weight: loss = tr(dW H dW^T) / out where a Hessian was collected; effective bits; seconds."""

    name: str
    loss: float | None
    bits_per_weight: float
    seconds: float
    fallbacks: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(config=STRICT, frozen=True, kw_only=True)
class RunRecord(Stored):
    """One quantized model, or the attempt at one.

    run_id          hash of the identity in `config`
    parent          run this one was derived from (None: from the model itself)
    choices         the option chosen in each group: {"model": ..., "calib": ..., "quantizer": ..., "scale": ...}
    config          the resolved identity as plain values
    fingerprints    what was actually read and made: {"model", "tokenizer", "calib_tokens", "weights": sha256, ...}
    calibration     provenance of the calibration set, None for a data-free recipe; `collate` reads its keys n_tokens,
                    seed and draw
    layers          one record per quantized weight, in the order they were quantized
    effective_bits  bits per weight over the quantized layers, weighted by size, everything stored counted
    kv_bits         bits per quantized element of the key-value cache, scales and offsets counted
    bits_model      the same over all parameters of the model
    fallbacks       how often something had to give way, summed over layers
    environment     versions, hardware, threads; its key "quantbench" is the version that wrote the record
    error           of a failed run: {"type", "message", "traceback", "log_tail"}
    created         ISO 8601 time
    """

    what: ClassVar[str] = "run record"

    schema_version: int = SCHEMA_VERSION
    run_id: str
    status: Literal["quantized", "failed"]
    choices: dict[str, str]
    config: dict[str, Any]
    fingerprints: dict[str, str]
    environment: dict[str, Any]
    created: str
    calibration: dict[str, Any] | None = None
    layers: list[LayerRecord] = field(default_factory=list)
    effective_bits: float | None = None
    kv_bits: float | None = None
    bits_model: float | None = None
    fallbacks: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    error: dict[str, str] | None = None
    parent: str | None = None


@dataclass(config=STRICT, frozen=True, kw_only=True)
class Distribution:
    """The test distribution of a task: a dataset with a family (lm, sa, nli, ...), a domain and a language."""

    name: str
    family: str
    domain: str
    language: str


@dataclass(config=STRICT, frozen=True, kw_only=True)
class Score(Stored):
    """A run's result on one task under one protocol.

    protocol         hex hash of protocol_values, all that fixes a score; scores of two protocols are never mixed
    in_distribution  whether the run was calibrated on this distribution, None for a data-free run, and for a mixture
                     of which it is a part
    relation         how far it lies from the distribution calibrated on (quantbench.core.origin), None if not known
    n_tokens         predicted tokens over all items; n_bytes: UTF-8 bytes of the text they stand for
    overlap          result of the check of calibration text against test text; its key "share" (share of test items
                     that have a 13-gram in common with the calibration text) is required
    reference        run_id of the full-precision run that divergences are measured from
    """

    what: ClassVar[str] = "score"

    schema_version: int = SCHEMA_VERSION
    run_id: str
    task: str
    protocol: str
    protocol_values: dict[str, Any]
    distribution: Distribution
    in_distribution: bool | None
    metrics: list[Metric]
    n_items: int
    n_tokens: int
    n_bytes: int
    environment: dict[str, Any]
    overlap: dict[str, Any] | None = None
    reference: str | None = None
    relation: str | None = None

    def __post_init__(self) -> None:
        if self.overlap is not None and not isinstance(self.overlap.get("share"), int | float):
            raise ValueError(f'overlap needs the key "share", a number; it has {sorted(self.overlap)}')
