"""What is stored about a run and about a score."""

from __future__ import annotations

from dataclasses import field
from typing import Any, ClassVar, Literal

from pydantic.dataclasses import dataclass

from quantbench.core.component import STRICT
from quantbench.core.origin import Origin
from quantbench.metrics.metric import Metric
from quantbench.store.json_record import SCHEMA_VERSION, JsonRecord


@dataclass(config=STRICT, frozen=True, kw_only=True)
class LayerRecord:
    """One quantized weight.

    loss           tr(dW H dW^T) / out, where a Hessian was collected
    relative_loss  the squared change of its outputs as a share of the outputs (quantbench.core.input_stats)
    bits_per_weight  effective bits
    """

    name: str
    loss: float | None
    bits_per_weight: float
    seconds: float
    relative_loss: float | None = None
    fallbacks: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(config=STRICT, frozen=True, kw_only=True)
class RunRecord(JsonRecord):
    """One quantized model, or the attempt at one.

    run_id          hash of the identity in `config`
    parent          run this one was derived from (None: from the model itself)
    choices         the option chosen in each group: {"model": ..., "calib": ..., "quantizer": ..., "scale": ...}
    config          the resolved identity as plain values
    fingerprints    what was actually read and made: {"model", "tokenizer", "calib_tokens", "weights": sha256, ...}
    calibration     provenance of the calibration set, None for a data-free recipe; `collate` reads its keys n_tokens,
                    seed and draw
    origins         the data sets calibrated on: several for a mixture, none for a data-free recipe
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
    origins: list[Origin] = field(default_factory=list)
    layers: list[LayerRecord] = field(default_factory=list)
    effective_bits: float | None = None
    kv_bits: float | None = None
    bits_model: float | None = None
    fallbacks: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    error: dict[str, str] | None = None
    parent: str | None = None


@dataclass(config=STRICT, frozen=True, kw_only=True)
class Score(JsonRecord):
    """A run's result on one task under one protocol.

    protocol         hex hash of protocol_values, all that fixes a score; scores of two protocols are never mixed
    origin           the data set tested on, as it was described when the score was made
    n_clusters       how many clusters the items lie in; clusters: sha256 over the sorted (item, cluster) pairs
                     (quantbench.metrics.clusters): two scores may be paired only if it is equal
    n_tokens         predicted tokens over all items; n_bytes: UTF-8 bytes of the text they stand for
    cut_prompts      items whose prompt was cut to fit the model; cut_answers: whose generated answer was cut. None
                     where there are no prompts, or no such answers
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
    origin: Origin
    metrics: list[Metric]
    n_items: int
    n_clusters: int
    clusters: str
    n_tokens: int
    n_bytes: int
    environment: dict[str, Any]
    cut_prompts: int | None = None
    cut_answers: int | None = None
    overlap: dict[str, Any] | None = None
    reference: str | None = None

    def __post_init__(self) -> None:
        if self.overlap is not None and not isinstance(self.overlap.get("share"), int | float):
            raise ValueError(f'overlap needs the key "share", a number; it has {sorted(self.overlap)}')


@dataclass(config=STRICT, frozen=True, kw_only=True)
class Observed(JsonRecord):
    """What the layers of a data-free run lose on a calibration text that was at hand; no part of the run's identity.

    text           the calibration set's name; fingerprint: of its tokens; n_tokens: how many of them were run
    relative_loss  by layer, as in LayerRecord
    """

    what: ClassVar[str] = "record of layers"

    schema_version: int = SCHEMA_VERSION
    run_id: str
    text: str
    fingerprint: str
    n_tokens: int
    relative_loss: dict[str, float]


@dataclass(config=STRICT, frozen=True, kw_only=True)
class Failure(JsonRecord):
    """Why a run has no score on a task under a protocol; gone when it has one.

    error    type and message; attempt: the command or submission that failed, which does not try again
    created  ISO 8601 time
    """

    what: ClassVar[str] = "failure"

    schema_version: int = SCHEMA_VERSION
    error: str
    attempt: str
    created: str
