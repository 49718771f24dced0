"""The options at the root of the configuration that are no groups of parts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from quantbench.core.component import component
from quantbench.core.paths import LocalPath, OutputFolder

OPERATIONAL = (
    "device",
    "threads",
    "save",
    "dry_run",
    "output_dir",
    "cluster",
    "detach",
    "retry_failed",
    "report",
    "checkpoint_blocks",
    "memory_gib",
    "spill_folder",
    "hydra.",
)
"""Overrides that do not tell studies apart: a sweep keeps its name whatever they are."""


@component
class Scale:
    """How much text a study uses. Its values count where they are used; itself it is only a caption.

    lm_eval_limit  documents of each task of lm-eval (of each subject of a group); None: all
    """

    calib_sequences: Annotated[int, Field(ge=1)]
    calib_length: Annotated[int, Field(ge=8)]
    window: Annotated[int, Field(ge=8)]
    windows: Annotated[int, Field(ge=1)] | None
    items: Annotated[int, Field(ge=1)] | None = None
    lm_eval_limit: Annotated[int, Field(ge=1)] | None = None


@component
class Settings:
    """The scalar options at the root; none but seed and replicate belong to a run's identity.

    replicate        which order the calibration sequences come in (quantbench.calibration.replicates); 0: as drawn
    share_data_free  whether the cells of a recipe that reads no calibration data are one run. false: each is run with
                     its own calibration set, which then belongs to its identity; full precision as a cell, too
    memory_gib       how much memory there is (None: what the machine, job or cgroup has): of models too large for it,
                     weights lie in a file while they are worked on, as do calibration activations that are
    spill_folder     where such files are made (None: the cache folder)
    """

    seed: Annotated[int, Field(ge=0)]
    replicate: Annotated[int, Field(ge=0)]
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")]
    threads: Annotated[int, Field(ge=1)]
    save: Literal["weights", "none"]
    output_dir: OutputFolder
    dry_run: bool
    checkpoint_blocks: Annotated[int, Field(ge=0)]
    detach: bool
    retry_failed: bool
    report: bool
    share_data_free: bool = True
    memory_gib: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    spill_folder: LocalPath | None = None


def tells_apart(override: str) -> bool:
    """Whether an override can tell two studies apart; device, threads and the like cannot."""
    return not override.lstrip("+~").startswith(OPERATIONAL)
