"""Mixtures have exact shares of their parts' own draws; negative controls say nothing but what they are said to."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quantbench.calibration.base import AnyCalibration
from quantbench.calibration.calibration import Calibration
from quantbench.calibration.controls import RandomTokens, Shuffled, ordinary_ids
from quantbench.calibration.mixture import MixedSet, Mixture
from quantbench.calibration.samplers import DocumentWindows, JoinedWindows, WholeDocuments
from quantbench.config.composer import compose_cells
from quantbench.core.apportion import evenly, largest_remainder
from quantbench.core.errors import ConfigError
from quantbench.core.origin import Origin
from quantbench.datasets.files import FileSource
from quantbench.datasets.text import TextSet
from tiny import BOS, tiny_tokenizer

LENGTH = 16


@given(st.integers(0, 300), st.lists(st.floats(0.01, 1), min_size=1, max_size=8))
def test_shares_add_up_and_are_within_one_of_the_exact_part(total: int, weights: list[float]) -> None:
    shares = largest_remainder(total, weights)
    assert sum(shares) == total
    for share, weight in zip(shares, weights, strict=True):
        assert abs(share - total * weight / sum(weights)) < 1 + 1e-6


def test_largest_remainders_are_served_first() -> None:
    assert largest_remainder(16, [0.5, 0.3, 0.2]) == [8, 5, 3]
    assert largest_remainder(10, [0.1, 0.2, 0.7]) == [1, 2, 7]
    assert largest_remainder(2, [1, 1, 1]) == [1, 1, 0]


@given(st.integers(0, 200), st.lists(st.integers(0, 40), min_size=1, max_size=9))
def test_even_shares_differ_by_one_unless_a_place_is_full(total: int, capacities: list[int]) -> None:
    shares = evenly(total, capacities)
    assert sum(shares) == min(total, sum(capacities))
    assert all(share <= capacity for share, capacity in zip(shares, capacities, strict=True))
    free = [share for share, capacity in zip(shares, capacities, strict=True) if share < capacity]
    assert not free or max(shares) - min(free) <= 1


def test_128_questions_over_20_subjects() -> None:
    assert Counter(evenly(128, [100] * 20)) == {6: 12, 7: 8}


def text(folder: Path, name: str, letters: str) -> TextSet:
    path = folder / f"{name}.txt"
    words = [f"{letters[i % len(letters)] * (3 + i % 4)}{i}." for i in range(800)]
    path.write_text("\n\n".join(" ".join(words[i : i + 20]) for i in range(0, 800, 20)))
    return of_file(name, path)


def of_file(name: str, path: Path) -> TextSet:
    return TextSet(source=FileSource(path=path, test_path=path), origin=Origin(name=name, family="lm"))


def single(source: TextSet, sampler: Any, n: int = 1) -> Calibration:
    return Calibration(source=source, sampler=sampler, n=n, length=LENGTH, seed=3)


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, Calibration]:
    return {
        "vowels": single(text(tmp_path, "vowels", "aeiou"), JoinedWindows()),
        "others": single(text(tmp_path, "others", "xyz"), DocumentWindows()),
    }


def mixture(parts: dict[str, Calibration], n: int = 16, draw: int = 0, **weights: float) -> Mixture:
    mixed = {name: MixedSet(weight=weight, set=parts[name]) for name, weight in weights.items()}
    return Mixture(mixed=mixed, n=n, length=LENGTH, seed=3, draw=draw)


def test_a_mixture_holds_what_its_parts_draw_in_exact_numbers(parts: dict[str, Calibration]) -> None:
    tokenizer = tiny_tokenizer()
    mix = mixture(parts, vowels=0.7, others=0.3)
    assert isinstance(mix, AnyCalibration)
    found = mix.draw_set(tokenizer)
    assert found.tokens.shape == (16, LENGTH)
    alone = {
        "vowels": single(parts["vowels"].source, JoinedWindows(), 11).draw_set(tokenizer),  # type: ignore[arg-type]
        "others": single(parts["others"].source, DocumentWindows(), 5).draw_set(tokenizer),  # type: ignore[arg-type]
    }
    expected = sorted(row.tolist() for one in alone.values() for row in one.tokens)
    assert sorted(found.tokens.tolist()) == expected
    first = [tokenizer.decode(row) for row in found.tokens[:6]]
    assert 3 <= sum(any(vowel in one for vowel in "aeiou") for one in first) <= 5  # interleaved: about 0.7 of six
    said = found.provenance()
    assert [(part["name"], part["n"]) for part in said["parts"]] == [("vowels", 11), ("others", 5)]
    assert {part["fingerprint"] for part in said["parts"]} == {one.fingerprint for one in alone.values()}
    assert said["name"] == "0.7 vowels + 0.3 others"
    assert set(found.documents) == {d for one in alone.values() for d in one.documents}
    assert torch.equal(mix.draw_set(tokenizer).tokens, found.tokens)


def test_draws_of_a_mixture_share_no_sequence(parts: dict[str, Calibration]) -> None:
    tokenizer = tiny_tokenizer()
    draws = [mixture(parts, draw=draw, vowels=0.5, others=0.5).draw_set(tokenizer).tokens.tolist() for draw in (0, 1)]
    assert not {tuple(row) for row in draws[0]} & {tuple(row) for row in draws[1]}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({}, "no part has a weight"),
        ({"vowels": 0.5, "others": 0.4}, "vowels=0.5, others=0.4 add up to 0.9, not to 1"),
        ({"vowels": 1.0, "others": 0.0}, "calib.parts.others=0: a weight is above 0"),
        ({"vowels": 1.5, "others": -0.5}, "calib.parts.others=-0.5: a weight is above 0"),
        ({"vowels": 0.99, "others": 0.01}, "calib.parts.others=0.01 of calib.n=16 sequences is not one; raise"),
    ],
)
def test_weights_that_cannot_be_mixed(parts: dict[str, Calibration], weights: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        mixture(parts, 16, 0, **weights)


def test_the_option_takes_every_data_set_as_a_part() -> None:
    parts = ("calib.parts.wiki=0.5", "calib.parts.c4=0.25", "calib.parts.sst2=0.25")
    (cell,) = compose_cells(["calib=mix", *parts, "calib.n=8", "calib.draw=2"])
    mix = cell.calib
    assert isinstance(mix, Mixture)
    assert mix.shares == {"c4": 2, "sst2": 2, "wiki": 4}
    samplers = {name: type(part.set.sampler) for name, part in mix.mixed.items()}  # type: ignore[attr-defined]
    assert samplers == {"c4": DocumentWindows, "sst2": WholeDocuments, "wiki": JoinedWindows}
    assert {(part.set.n, part.set.draw) for part in mix.mixed.values()} == {(8, 2)}  # type: ignore[attr-defined]
    assert [origin.name for origin in mix.origins] == ["c4", "sst2", "wiki"]
    # It is tested on what its parts are tested on.
    assert set(cell.tasks) == {"wiki", "c4", "ptb", "sst2", "amazon", "dynasent", "semeval", "sst5"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("calib.parts.foo=1", r"^calib\.parts\.foo: calib=foo: no such choice"),
        ("calib.parts.mix=1", r"^calib\.parts\.mix: calib=mix is no data set, but made of others: name those$"),
        ("calib.parts.wiki=much", r"^calib\.parts\.wiki='much': a weight is a number; null leaves a part out$"),
    ],
)
def test_what_is_no_part_is_said(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose_cells(["calib=mix", override])


def test_a_part_may_be_left_out_again() -> None:
    (cell,) = compose_cells(["calib=mix", "calib.parts.wiki=1", "calib.parts.c4=null"])
    assert [origin.name for origin in cell.calib.origins] == ["wiki"]  # type: ignore[union-attr]


def test_random_tokens_are_uniform_over_ordinary_ones() -> None:
    tokenizer = tiny_tokenizer()
    first, second = (RandomTokens(n=64, length=256, seed=1, draw=draw).draw_set(tokenizer) for draw in (0, 1))
    counts = torch.bincount(first.tokens.flatten(), minlength=len(tokenizer))
    assert counts[tokenizer.convert_tokens_to_ids(BOS)] == 0
    assert len(ordinary_ids(tokenizer)) == 256
    assert 30 < counts[counts > 0].min() <= counts.max() < 105  # 64 expected, standard deviation 8
    assert int((counts > 0).sum()) == 256
    assert not torch.equal(first.tokens, second.tokens)
    both = RandomTokens(n=128, length=256, seed=1).draw_set(tokenizer)
    assert torch.equal(torch.cat([first.tokens, second.tokens]), both.tokens)


def test_shuffled_tokens_keep_only_their_frequencies(tmp_path: Path) -> None:
    tokenizer, source = tiny_tokenizer(), text(tmp_path, "vowels", "aeiou")
    options: dict[str, Any] = {"source": source, "sampler": JoinedWindows(), "n": 8, "length": LENGTH, "seed": 3}
    plain, found = Calibration(**options).draw_set(tokenizer), Shuffled(**options).draw_set(tokenizer)
    assert found.name == "shuffled tokens of vowels"
    assert torch.equal(found.tokens.flatten().sort().values, plain.tokens.flatten().sort().values)
    assert not torch.equal(found.tokens, plain.tokens)
    assert found.documents == plain.documents


def test_shuffled_sentences_keep_what_stands_inside_one(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    path = tmp_path / "a.txt"
    sentences = [f"sentence {i} is this one." for i in range(40)]
    path.write_text("\n\n".join(" ".join(sentences[i : i + 4]) for i in range(0, 40, 4)))
    source = of_file("mine", path)
    options: dict[str, Any] = {"source": source, "sampler": JoinedWindows(), "n": 2, "length": 64, "seed": 3}
    documents = Shuffled(**options, unit="sentences").documents(tokenizer).documents
    assert [document.count(".") for document in documents] == [4] * 10
    said = [part.strip() + "." for document in documents for part in document.split(".") if part.strip()]
    assert sorted(said) == sorted(sentences)
    assert said != sentences
