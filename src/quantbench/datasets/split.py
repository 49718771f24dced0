"""Cutting a text that has no split of its own into calibration (train) and test documents, 4:1, without leaks.

Exact duplicates are dropped first. Documents that share a run of RUN words (a reprint, a copied function) are one
group and stay on one side: otherwise a quantizer would be calibrated on what it is tested on. In the order of the
sha256 of their documents, the groups go to the test side as long as it stays within a fifth of the documents (if none
is small enough, the smallest one goes). So the cut depends on the documents alone: not on their order, a random
generator, or any library's version; and it is unrelated to whatever sorted the source (a title, a date).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from itertools import chain

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from quantbench.core.errors import DataError
from quantbench.datasets.ngrams import ngram_ids

CUT_VERSION = 1
"""Raise it whenever a document may change sides: cached cuts of the old version are then not read any more."""

RUN = 32
"""Words or punctuation marks in a row: in prose about 36 tokens, in source code about 50."""

_WORD = re.compile(r"\w+|[^\w\s]")


def cut(documents: Sequence[str], name: str) -> dict[str, list[str]]:
    """Train and test documents, each in their old order.

    Raises DataError if there are not two documents that can lie on different sides.
    """
    distinct = list(dict.fromkeys(documents))
    test = on_test_side(distinct, f"text {name}")
    return {
        "train": [d for i, d in enumerate(distinct) if i not in test],
        "test": [d for i, d in enumerate(distinct) if i in test],
    }


def on_test_side(distinct: Sequence[str], label: str, keys: Sequence[str] | None = None) -> set[int]:
    """Which of some distinct documents lie on the test side; those of equal `keys` stay together, too."""
    groups = _linked(distinct, keys)
    hashes = [hashlib.sha256(d.encode("utf-8", "surrogatepass")).hexdigest() for d in distinct]
    members: dict[int, list[int]] = {}
    for number, group in enumerate(groups):
        members.setdefault(group, []).append(number)
    if len(members) < 2:
        raise DataError(
            f"{label}: {len(distinct)} distinct documents in {len(members)} group(s) that share long passages "
            "cannot be cut into a train and a test side; give more documents, or a test text of its own"
        )
    test: set[int] = set()
    in_order = sorted(members.values(), key=lambda group: min(hashes[i] for i in group))
    for numbers in in_order:
        if len(test) + len(numbers) <= len(distinct) // 5:
            test.update(numbers)
    smallest = min(in_order, key=len)
    return test or set(smallest)


def _linked(documents: Sequence[str], keys: Sequence[str] | None) -> list[int]:
    """The number of each document's group: the connected components of "shares a run of RUN words, or a key, with"."""
    vocabulary: dict[str, int] = {}
    words = [[vocabulary.setdefault(word, len(vocabulary)) for word in _WORD.findall(d)] for d in documents]
    owner = np.repeat(np.arange(len(documents)), [len(w) for w in words])
    runs = ngram_ids(np.fromiter(chain.from_iterable(words), dtype=np.int64), RUN)
    begins, ends = owner[: len(runs)], owner[RUN - 1 :]
    inside = begins == ends  # a run that crosses from one document to the next is in neither
    kept, kept_owner = runs[inside], begins[inside]
    _, first, number = np.unique(kept, return_index=True, return_inverse=True)
    pairs = [(kept_owner, kept_owner[first[number]])]
    if keys is not None:
        _, leader, same = np.unique(np.array(keys), return_index=True, return_inverse=True)
        pairs.append((np.arange(len(documents)), leader[same]))
    one, other = (np.concatenate(side) for side in zip(*pairs, strict=True))
    edges = coo_array((np.ones(len(one), dtype=np.int8), (one, other)), (len(documents),) * 2)
    return [int(label) for label in connected_components(edges, directed=False)[1]]
