from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantbench.datasets.ngrams import ngram_ids


@given(st.lists(st.integers(0, 2), max_size=40), st.integers(1, 9))
def test_ids_are_equal_exactly_where_the_ngrams_are(items: list[int], n: int) -> None:
    ids = ngram_ids(np.array(items, dtype=np.int64), n)
    grams = [tuple(items[i : i + n]) for i in range(len(items) - n + 1)]
    assert len(ids) == max(0, len(grams))
    for i, j in product(range(len(ids)), repeat=2):
        assert (ids[i] == ids[j]) == (grams[i] == grams[j])


@pytest.mark.parametrize("n", [13, 64])
def test_a_planted_run_is_found_and_a_run_one_shorter_is_not(n: int) -> None:
    items = np.arange(5000, dtype=np.int64) * 49_999  # all different, large values
    items[3000 : 3000 + n] = items[100 : 100 + n]
    ids = ngram_ids(items, n)
    assert ids[3000] == ids[100]
    assert len(np.unique(ids)) == len(ids) - 1
    items[3000] = -1
    assert len(np.unique(ngram_ids(items, n))) == len(ids)
