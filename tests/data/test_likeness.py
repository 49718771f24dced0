"""Items that are the same but for signs, case, white space, or a few words."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantbench.datasets import likeness
from quantbench.datasets.likeness import GRAM, among, apart, squeezed

FILM = "it 's a charming and often affecting journey , and it does n't cheat its audience ."
ANNA = "a passage on the history of the town of Ulm and on its minster, finished in the year 1890"


def random_text(seed: int, words: int = 40) -> str:
    generator = random.Random(seed)
    return " ".join("".join(generator.choices("abcdefghij", k=generator.randint(3, 8))) for _ in range(words))


def test_letters_and_digits_are_compared() -> None:
    assert squeezed("It's  \uff21 \u2013 do N'T!") == "itsadont"
    assert squeezed("Stra\u00dfe 12") == "strasse12"
    assert squeezed(":-) !") == ":-)!"
    assert squeezed("\u6f22 \u5b57\u3002") == "\u6f22\u5b57"
    written = "It's a charming and often affecting journey, and it doesn't cheat its audience."
    assert among([FILM, "good", "bad", ":-)"], [written, "Good!", ":-("]) == [True, True, False, False]


@pytest.mark.parametrize(
    ("item", "near"),
    [
        (ANNA + " again", True),
        ("Ulm: " + ANNA, True),
        (ANNA.replace("1890", "1891"), True),
        (ANNA.replace("town", "old free city"), False),  # in the middle, and the item is short
        (f"{ANNA}\nwhen was it finished?", False),
        (f"when was it finished?\n{ANNA}\n\n", False),
        (f"{ANNA} !\nWho built it?", True),
        ("Who built it?", False),
        ("a passage on the history of the town of Bern, its bears, its bridges and its many fountains", False),
        ("the town of Ulm and on its minster", True),
        ("Ulm", False),
    ],
)
def test_items_that_are_nearly_the_same_are_found(item: str, near: bool) -> None:
    others = [random_text(seed) for seed in range(20)]
    known = [*others, ANNA, "another passage\nwho built it", *others]
    assert among([item, random_text(99)], known) == [near, False]


@given(st.lists(st.text("ab 1", max_size=40), max_size=6), st.lists(st.text("ab 1", max_size=40), max_size=6))
def test_coverage_is_that_of_a_plain_count(items: list[str], known: list[str]) -> None:
    def grams(text: str) -> list[str]:
        return [squeezed(text)[i : i + GRAM] for i in range(len(squeezed(text)) - GRAM + 1)]

    seen = {gram for one in known for gram in grams(one)}
    exact = {squeezed(one) for one in known}
    expected = []
    for item in items:
        own = grams(item)
        hits = sum(gram in seen for gram in own)
        expected.append(squeezed(item) in exact or (bool(own) and hits >= likeness.ALIKE * len(own)))
    assert among(items, known) == expected


def test_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    known = [random_text(seed) for seed in range(12)]
    items = [known[3] + " more", random_text(50), known[11][20:]]
    whole = among(items, known)
    monkeypatch.setattr(likeness, "_BATCH", 100)
    assert among(items, known) == whole == [True, False, True]
    assert apart(known, items) == [index not in {3, 11} for index in range(12)]


def test_rows_that_stay_do_not_hold_an_item_even_in_pieces() -> None:
    item = random_text(1)
    half = len(item) // 2
    rows = [random_text(2), item[: half + 40], item[half - 40 :], random_text(3), item.upper()]
    stays = apart(rows, [item, random_text(4)])
    assert stays == [True, False, False, True, False]
    kept = [row for row, own in zip(rows, stays, strict=True) if own]
    assert among([item], kept) == [False]
