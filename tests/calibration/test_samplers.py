from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from quantbench.calibration.samplers import DocumentWindows, JoinedWindows, Sample, Sampler, WholeDocuments
from quantbench.core.errors import ModelError
from quantbench.datasets.documents import Documents
from tiny import tiny_tokenizer

TOKENIZER = tiny_tokenizer()  # one token per byte, and a BOS that must never appear
BOS = 0
SAMPLERS: list[Sampler] = [JoinedWindows(), DocumentWindows(), WholeDocuments()]


def documents(*texts: str, joiner: str = "\n") -> Documents:
    return Documents("t", "train", texts, "r1", joiner)


def numbered(count: int, size: int) -> Documents:
    """Documents of `size` characters, of which every character is the document's own."""
    return documents(*(chr(ord("A") + i) * size for i in range(count)))


def take(sampler: Sampler, text: Documents, n: int, length: int, seed: int = 0, draw: int = 0) -> Sample:
    return sampler.sample(text, TOKENIZER, n, length, seed, draw)


def decoded(tokens: Tensor) -> list[str]:
    return [str(TOKENIZER.decode(row)) for row in tokens]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_shape_type_repeatability_and_no_bos(sampler: Sampler) -> None:
    assert isinstance(sampler, Sampler)
    text = numbered(20, 30)
    sample = take(sampler, text, 4, 8)
    assert sample.tokens.shape == (4, 8)
    assert sample.tokens.dtype is torch.int64
    assert not (sample.tokens == BOS).any()
    assert torch.equal(take(sampler, text, 4, 8).tokens, sample.tokens)
    assert not torch.equal(take(sampler, text, 4, 8, seed=1).tokens, sample.tokens)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sequence_is_in_one_of_the_documents_it_names(sampler: Sampler) -> None:
    text = numbered(20, 30)
    for draw in range(3):
        sample = take(sampler, text, 5, 12, draw=draw)
        letters = set("".join(decoded(sample.tokens))) - {"\n"}
        assert letters == {document[0] for document in sample.documents}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_draws_are_consecutive_parts_of_one_order(sampler: Sampler) -> None:
    text = numbered(20, 30)
    all_at_once = take(sampler, text, 12, 8).tokens
    parts = [take(sampler, text, 4, 8, draw=draw).tokens for draw in range(3)]
    assert torch.equal(torch.cat(parts), all_at_once)


@given(st.integers(0, 400), st.integers(2, 9), st.integers(0, 5))
def test_joined_windows_are_disjoint_windows_of_the_text_and_none_is_lost(size: int, length: int, seed: int) -> None:
    text = documents("".join(chr(0x100 + i) for i in range(size)))  # two bytes a character, all different
    windows = [tuple(row) for row in take(JoinedWindows(), text, 1000, length, seed).tokens.tolist()]
    stream = tuple(TOKENIZER(text.text, add_special_tokens=False)["input_ids"])
    assert len(windows) == len(stream) // length
    places = sorted(next(i for i in range(len(stream)) if stream[i : i + length] == w) for w in windows)
    assert all(later - earlier == length for earlier, later in pairwise(places))


def test_joined_windows_shuffle_and_shift() -> None:
    text = documents("".join(chr(ord("a") + i % 26) for i in range(207)))
    firsts = {decoded(take(JoinedWindows(), text, 1, 10, seed).tokens)[0] for seed in range(40)}
    assert len(firsts) > 15
    assert len({first[0] for first in firsts}) > 5


def test_joined_windows_cross_documents_and_name_both() -> None:
    text = documents("aaaa", "bbbb", "cccc", joiner="--")
    sample = take(JoinedWindows(), text, 1, 15)
    assert len(sample.documents) == 3
    (window,) = decoded(take(JoinedWindows(), text, 1, 16).tokens)
    assert window == "aaaa--bbbb--cccc"


def test_document_windows_crop_one_document_each() -> None:
    text = documents("short", "abcdefghij", "exactly8", "ABCDEFGHIJKL")
    sample = take(DocumentWindows(), text, 9, 8)
    assert set(sample.documents) == {"abcdefghij", "exactly8", "ABCDEFGHIJKL"}
    assert sample.available.startswith("3 of 4 documents with at least 8 tokens")
    assert all(row in document for row, document in zip(decoded(sample.tokens), sample.documents, strict=True))
    crops = {row for seed in range(60) for row in decoded(take(DocumentWindows(), text, 9, 8, seed).tokens)}
    assert len(crops) == 3 + 1 + 5  # every place a crop can begin


class Counting:
    """A tokenizer that counts its calls."""

    is_fast = True

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, text: str, **options: Any) -> Any:
        self.calls += 1
        return TOKENIZER(text, **options)


@pytest.mark.parametrize("sampler", [DocumentWindows(), WholeDocuments()])
def test_no_more_documents_are_tokenized_than_needed(sampler: Sampler) -> None:
    counting: Any = Counting()
    sampler.sample(numbered(50, 30), counting, 3, 16, 0, 1)
    assert counting.calls <= 6


def test_whole_documents_keep_documents_together() -> None:
    text = numbered(6, 7)
    sample = take(WholeDocuments(), text, 6, 8)
    rows = decoded(sample.tokens)
    assert sorted(rows) == sorted(document + "\n" for document in text.documents)
    assert rows != [document + "\n" for document in text.documents]
    assert sample.available == "48 tokens, 6 sequences"


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("text", [documents("x"), documents()])
def test_a_text_that_is_too_short_gives_nothing(sampler: Sampler, text: Documents) -> None:
    sample = take(sampler, text, 2, 8)
    assert sample.tokens.shape == (0, 8)
    assert sample.documents == ()


def test_a_tokenizer_without_offsets_is_refused_for_joined_windows() -> None:
    slow: Any = Counting()
    slow.is_fast = False
    with pytest.raises(ModelError, match="Counting does not say which characters a token stands for"):
        JoinedWindows().sample(numbered(2, 9), slow, 1, 8, 0, 0)
