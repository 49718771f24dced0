"""How much of a test text a calibration set has already seen.

Measured on token ids: the share of test windows that have a run of 13 tokens in common with the calibration set, and
a run of 64. A cell is refused when a whole document is shared, or more than 1 % of the windows share a run of 64. Where
both are made from rows (a question, a sentence with its label), one item in common is enough, however short it is, and
one that is nearly in common, too (quantbench.datasets.likeness).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from quantbench.core.errors import DataError
from quantbench.datasets.likeness import among
from quantbench.datasets.ngrams import ngram_ids

if TYPE_CHECKING:
    from torch import Tensor

SHORT_RUN, LONG_RUN = 13, 64
ALLOWED_SHARE = 0.01
SHORTEST_DOCUMENT = 256
"""Characters; shorter documents (a heading, a sentence) recur without being the same text."""


class CalibrationText(Protocol):
    """What a model was calibrated on: token ids int64 [N, L], the documents they are of, what each row is about."""

    @property
    def tokens(self) -> Tensor:
        """int64 [N, L]."""
        ...

    @property
    def documents(self) -> Sequence[str]:
        """The documents drawn from."""
        ...

    @property
    def contents(self) -> Sequence[str]:
        """Of documents made from rows: what each is about, without template and answer."""
        ...


@dataclass(frozen=True)
class Overlap:
    """Shares of test windows with a common run of tokens, and the number of whole documents that are in both texts.

    shared_items  test items that the calibration set holds, too, by their letters and digits, or nearly so
    """

    share_13gram: float
    share_64gram: float
    shared_documents: int
    shared_items: int = 0

    def check(self, calib_name: str, task_name: str) -> None:
        """Raise DataError if the test text cannot measure generalization from this calibration set."""
        if self.shared_items:
            raise DataError(
                f"calib={calib_name} and task {task_name} overlap: {self.shared_items} items are in both, word for "
                "word or nearly so, and the model would be tested on what it was calibrated on. Another draw "
                "(calib.draw, seed) may be free of them; where one set is cut in two, calib.group=COLUMN keeps rows of "
                "one passage, premise or template on one side; otherwise calibrate on another split (calib.split) or "
                "set, or leave this task out."
            )
        if not self.shared_documents and self.share_64gram <= ALLOWED_SHARE:
            return
        raise DataError(
            f"calib={calib_name} and task {task_name} overlap: {self.shared_documents} whole documents are in both "
            f"(allowed: none), and {self.share_64gram:.1%} of the test windows share a run of {LONG_RUN} tokens with "
            f"the calibration set (allowed: {ALLOWED_SHARE:.0%}). Calibrate on another split (calib.split) or text, "
            "or leave this task out."
        )

    def to_dict(self) -> dict[str, float]:
        """Plain values for the score."""
        return {
            "share": self.share_13gram,
            "share_64gram": self.share_64gram,
            "shared_documents": self.shared_documents,
            "shared_items": self.shared_items,
        }


def overlap(
    calib: CalibrationText, rows: Sequence[Tensor], test_documents: Sequence[str], test_contents: Sequence[str] = ()
) -> Overlap:
    """Compare calibration tokens [N, L] with the test set's rows of tokens, int64 [L_i], and its documents.

    test_contents: of a test set made from rows, what each item is about.
    Exact; runs stay inside a row. Documents are compared after every stretch of white space is made one space.
    """
    ours, theirs = list(calib.tokens), list(rows)
    shared = _long(calib.documents) & _long(test_documents)
    items = sum(among(list(dict.fromkeys(test_contents)), calib.contents))
    return Overlap(_share(ours, theirs, SHORT_RUN), _share(ours, theirs, LONG_RUN), len(shared), items)


def _long(documents: Iterable[str]) -> set[str]:
    """The normalized documents that are long enough to be compared."""
    return {text for text in (" ".join(d.split()) for d in documents) if len(text) >= SHORTEST_DOCUMENT}


def _share(ours: Sequence[Tensor], theirs: Sequence[Tensor], run: int) -> float:
    """The share of rows of `theirs` with a run of that many ids that occurs in a row of `ours`."""
    rows = [*ours, *theirs]
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    if lengths.sum() < run or not len(theirs):
        return 0.0
    ids = ngram_ids(np.concatenate([row.numpy() for row in rows]), run)
    ends = np.repeat(np.cumsum(lengths), lengths)[: len(ids)]
    # A run that begins less than `run` before the end of its row goes on in the next one: it is dropped.
    inside = np.arange(len(ids)) + run <= ends
    row_of = np.repeat(np.arange(len(rows)), lengths)[: len(ids)]
    known = np.unique(ids[inside & (row_of < len(ours))])
    hits = inside & (row_of >= len(ours)) & np.isin(ids, known)
    return len(np.unique(row_of[hits])) / len(theirs)
