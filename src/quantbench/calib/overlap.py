"""How much of a test text a calibration set has already seen.

Measured on token ids: the share of test windows that have a run of 13 tokens in common with the calibration set, and
a run of 64. A cell is refused when a whole document is shared, or more than 1 % of the windows share a run of 64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from quantbench.calib.base import CalibSet
from quantbench.errors import DataError

Integers = NDArray[np.int64]

SHORT_RUN, LONG_RUN = 13, 64
ALLOWED_SHARE = 0.01
SHORTEST_DOCUMENT = 256
"""Characters; shorter documents (a heading, a sentence) recur without being the same text."""


@dataclass(frozen=True)
class Overlap:
    """Shares of test windows with a common run of tokens, and the number of whole documents that are in both texts."""

    share_13gram: float
    share_64gram: float
    shared_documents: int

    def check(self, calib_name: str, task_name: str) -> None:
        """Raise DataError if the test text cannot measure generalization from this calibration set."""
        if not self.shared_documents and self.share_64gram <= ALLOWED_SHARE:
            return
        raise DataError(
            f"calib={calib_name} and task {task_name} overlap: {self.shared_documents} whole documents are in both, "
            f"and {self.share_64gram:.1%} of the test windows share a run of {LONG_RUN} tokens with the calibration set "
            f"(allowed: none, and {ALLOWED_SHARE:.0%}). Calibrate on another split or text, or leave this task out."
        )

    def to_dict(self) -> dict[str, float]:
        """Plain values for the score."""
        return {
            "share": self.share_13gram,
            "share_64gram": self.share_64gram,
            "shared_documents": self.shared_documents,
        }


def overlap(calib: CalibSet, windows: Tensor, test_documents: Sequence[str]) -> Overlap:
    """Compare calibration tokens [N, L] with test windows int64 [W, L'] and their documents; runs stay inside a row."""
    ours, theirs = calib.tokens.numpy(), windows.numpy()
    known = {_normal(d) for d in calib.documents if len(d) >= SHORTEST_DOCUMENT}
    shared = {_normal(d) for d in test_documents if len(d) >= SHORTEST_DOCUMENT} & known
    return Overlap(_share(ours, theirs, SHORT_RUN), _share(ours, theirs, LONG_RUN), len(shared))


def _share(ours: Integers, theirs: Integers, run: int) -> float:
    """The share of rows of `theirs` with a run of that many ids that occurs in a row of `ours`. Exact."""
    if ours.shape[1] < run or theirs.shape[1] < run:
        return 0.0
    ours_hashes, theirs_hashes = _hashes(ours, run), _hashes(theirs, run)
    candidates = np.isin(theirs_hashes, ours_hashes)
    if not candidates.any():
        return 0.0
    # Equal hashes are candidates only: compare the ids themselves.
    hit = np.isin(ours_hashes, theirs_hashes[candidates])
    exact = {ours[row, start : start + run].tobytes() for row, start in zip(*np.nonzero(hit), strict=True)}
    rows = {
        int(row)
        for row, start in zip(*np.nonzero(candidates), strict=True)
        if theirs[row, start : start + run].tobytes() in exact
    }
    return len(rows) / len(theirs)


def _hashes(rows: Integers, run: int) -> NDArray[np.uint64]:
    """A polynomial hash modulo 2^64 of each run of ids, [rows, L - run + 1]."""
    with np.errstate(over="ignore"):
        width = rows.shape[1] - run + 1
        value = np.zeros((len(rows), width), dtype=np.uint64)
        for offset in range(run):
            value = (
                value * np.uint64(0x9E3779B97F4A7C15)
                + rows[:, offset : offset + width].astype(np.uint64)
                + np.uint64(1)
            )
    return value


def _normal(document: str) -> str:
    return " ".join(document.split())
