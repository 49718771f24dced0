from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from quantbench.calibration.base import CalibSet
from quantbench.core.errors import DataError
from quantbench.datasets.overlap import LONG_RUN, SHORT_RUN, SHORTEST_DOCUMENT, Overlap, overlap

LONG = "a long document " * 20


def calib(tokens: Tensor, *documents: str) -> CalibSet:
    return CalibSet(tokens, "c", "train", "r", "f", documents, seed=0, draw=0)


def distinct(rows: int, length: int, start: int = 0) -> Tensor:
    """Rows of ids that all differ."""
    return torch.arange(start, start + rows * length).reshape(rows, length)


def test_unrelated_texts_share_nothing() -> None:
    found = overlap(calib(distinct(4, 128)), list(distinct(6, 100, start=10_000)), [])
    assert found == Overlap(0.0, 0.0, 0)


@pytest.mark.parametrize(
    ("run", "expected"),
    [(SHORT_RUN - 1, (0, 0)), (SHORT_RUN, (1, 0)), (LONG_RUN - 1, (1, 0)), (LONG_RUN, (1, 1)), (100, (1, 1))],
)
def test_a_run_counts_from_its_full_length(run: int, expected: tuple[int, int]) -> None:
    ours, theirs = distinct(3, 128), distinct(8, 100, start=10_000)
    theirs[5, 100 - run :] = ours[2, :run]
    found = overlap(calib(ours), list(theirs), [])
    assert (found.share_13gram, found.share_64gram) == (expected[0] / 8, expected[1] / 8)


def test_runs_do_not_cross_sequences() -> None:
    stream = torch.arange(1000)
    ours = stream[:130].reshape(10, 13)
    shifted = stream[6 : 6 + 117].reshape(9, 13)
    assert overlap(calib(ours), list(shifted), []).share_13gram == 0.0
    assert overlap(calib(ours), list(ours[2:4]), []).share_13gram == 1.0


@given(st.integers(0, 2**31), st.integers(13, 20), st.integers(13, 20))
def test_shares_are_those_of_a_plain_count(seed: int, ours_length: int, theirs_length: int) -> None:
    generator = np.random.default_rng(seed)
    # Few ids and copied stretches, so that common runs and near misses both occur.
    ours = generator.integers(0, 2, (6, ours_length))
    theirs = generator.integers(0, 2, (6, theirs_length))
    theirs[::2, :SHORT_RUN] = ours[::2, -SHORT_RUN:]

    def runs(row: list[int]) -> set[tuple[int, ...]]:
        return {tuple(row[i : i + SHORT_RUN]) for i in range(len(row) - SHORT_RUN + 1)}

    known = set().union(*map(runs, ours.tolist()))
    plain = sum(bool(runs(row) & known) for row in theirs.tolist()) / 6
    found = overlap(calib(torch.from_numpy(ours)), list(torch.from_numpy(theirs)), [])
    assert found.share_13gram == pytest.approx(plain)


@pytest.mark.parametrize(
    ("ours", "theirs"), [((0, 128), (2, 128)), ((3, 4), (2, 128)), ((3, 128), (2, 5)), ((3, 128), (0, 128))]
)
def test_sequences_shorter_than_a_run_share_none(ours: tuple[int, int], theirs: tuple[int, int]) -> None:
    assert overlap(calib(distinct(*ours)), list(distinct(*theirs)), []).to_dict() == {
        "share": 0.0,
        "share_64gram": 0.0,
        "shared_documents": 0,
        "shared_items": 0,
    }


def test_whole_documents_are_found_whatever_their_white_space() -> None:
    ours = calib(distinct(1, 16), LONG, "a heading", LONG + "more")
    theirs = [LONG.replace(" ", "\n "), LONG, "a heading", LONG + "else"]
    assert overlap(ours, list(distinct(1, 16, start=99)), theirs).shared_documents == 1


def test_a_hundredth_of_the_windows_may_share_a_run() -> None:
    Overlap(0.9, 0.01, 0).check("wiki", "news")


@pytest.mark.parametrize("found", [Overlap(0.0, 0.0, 1), Overlap(0.5, 0.011, 0)])
def test_the_check_refuses_what_cannot_be_a_test(found: Overlap) -> None:
    with pytest.raises(DataError) as refused:
        found.check("wiki", "news")
    assert str(refused.value) == (
        f"calib=wiki and task news overlap: {found.shared_documents} whole documents are in both (allowed: none), and "
        f"{found.share_64gram:.1%} of the test windows share a run of 64 tokens with the calibration set (allowed: "
        "1%). Calibrate on another split (calib.split) or text, or leave this task out."
    )


def test_one_item_in_common_is_refused_with_what_may_help() -> None:
    with pytest.raises(DataError) as refused:
        Overlap(0.0, 0.0, 0, 1).check("sst2", "mr")
    assert str(refused.value) == (
        "calib=sst2 and task mr overlap: 1 items are in both, word for word or nearly so, and the model would be "
        "tested on what it was calibrated on. Another draw (calib.draw, seed) may be free of them; where one set is "
        "cut in two, calib.group=COLUMN keeps rows of one passage, premise or template on one side; otherwise "
        "calibrate on another split (calib.split) or set, or leave this task out."
    )


def test_items_in_both_are_counted_once_however_often_they_are_tested() -> None:
    ours = CalibSet(distinct(1, 16), "c", "train", "r", "f", (), seed=0, draw=0, contents=("A fine film.", "dull"))
    theirs = ["a fine film", "a fine film", "what a mess", "dull"]
    assert overlap(ours, list(distinct(1, 16, start=99)), [], theirs).shared_items == 2


def test_documents_count_from_256_characters_without_superfluous_white_space() -> None:
    rows = distinct(1, 16), list(distinct(1, 16, start=99))
    shortest = "two words  " + "x" * (SHORTEST_DOCUMENT - len("two words "))
    assert overlap(calib(rows[0], shortest), rows[1], [shortest]).shared_documents == 1
    assert overlap(calib(rows[0], shortest[:-1]), rows[1], [shortest[:-1]]).shared_documents == 0


def test_a_quarter_million_tokens_take_no_minute() -> None:
    generator = np.random.default_rng(0)
    ours = torch.from_numpy(generator.integers(0, 50_000, (128, 2048)))
    theirs = torch.from_numpy(generator.integers(0, 50_000, (141, 2048)))
    theirs[7, 1000:1064] = ours[99, 5:69]
    found = overlap(calib(ours), list(theirs), [])
    assert (found.share_13gram, found.share_64gram) == (1 / 141, 1 / 141)
