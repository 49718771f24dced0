from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantbench.core.errors import DataError
from quantbench.datasets.passages import RUN
from quantbench.datasets.rows import Rows
from quantbench.datasets.split import cut_rows, cut_texts
from quantbench.datasets.table import ListTable

WORDS = st.text("abcdefgh", min_size=3, max_size=6)


def article(number: int, n_words: int = 60) -> str:
    """A text that shares no run of words with another one."""
    return " ".join(f"w{number}x{i}" for i in range(n_words))


@given(st.lists(WORDS, min_size=2, max_size=40, unique=True), st.randoms(use_true_random=False))
def test_the_cut_depends_on_the_documents_and_not_on_their_order(documents: list[str], shuffler: random.Random) -> None:
    sides = cut_texts(documents, "x")
    assert sorted(sides["train"] + sides["test"]) == sorted(documents)
    assert len(sides["test"]) == max(1, len(documents) // 5)
    assert sides["train"] == [d for d in documents if d in set(sides["train"])]
    shuffled = list(documents)
    shuffler.shuffle(shuffled)
    again = cut_texts([*shuffled, *documents], "x")
    assert {side: set(texts) for side, texts in again.items()} == {side: set(texts) for side, texts in sides.items()}
    assert len(again["train"]) == len(sides["train"])


def test_documents_with_a_long_passage_in_common_stay_on_one_side() -> None:
    passage = " ".join(f"shared{i}" for i in range(RUN))
    for chosen in range(30):
        documents = [article(100 * chosen + i) for i in range(10)]
        documents[1] += " " + passage
        documents[7] = passage + " " + documents[7]
        sides = cut_texts(documents, "x")
        assert (documents[1] in sides["test"]) == (documents[7] in sides["test"])


def test_a_passage_one_word_shorter_does_not_link() -> None:
    passage = " ".join(f"shared{i}" for i in range(RUN - 1))
    documents = [f"{article(i)} {passage} {article(10 + i)}" for i in range(2)]
    assert {side: len(texts) for side, texts in cut_texts(documents, "x").items()} == {"train": 1, "test": 1}


def test_a_large_linked_group_is_never_the_test_side() -> None:
    passage = " ".join(f"shared{i}" for i in range(RUN))
    for chosen in range(20):
        alone = article(1000 + chosen)
        sides = cut_texts([f"{article(i)} {passage}" for i in range(9)] + [alone], "x")
        assert sides["test"] == [alone]


def test_rows_with_a_passage_in_common_stay_on_one_side_and_a_word_of_all_rows_links_none() -> None:
    rows: list[dict[str, object]] = [
        {
            "premise": f"a man number {i // 3} walks his old dog along the river",
            "hypothesis": f"it is {i}",
            "note": "taken from a corpus that all rows of this set are taken from",
        }
        for i in range(60)
    ]
    whole = Rows("nli", "all", ListTable(rows), [str(i) for i in range(60)], "1", whole=True)
    sides = {side: {int(i) // 3 for i in cut_rows(whole, side, None).ids} for side in ("train", "test")}
    assert not sides["train"] & sides["test"]
    assert (len(sides["train"]), len(sides["test"])) == (16, 4)


@pytest.mark.parametrize("documents", [[], ["a"], ["a", "a"], [article(1), article(1) + " end"]])
def test_what_cannot_be_cut_is_refused(documents: list[str]) -> None:
    with pytest.raises(DataError, match=r"mine: .* cannot be cut into a train and a test side"):
        cut_texts(documents, "mine")
