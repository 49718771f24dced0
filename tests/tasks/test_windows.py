from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from quantbench.core.errors import ConfigError, DataError
from quantbench.core.origin import Origin
from quantbench.datasets.documents import Documents
from quantbench.tasks.task import protocol_id
from quantbench.tasks.text_windows import Windows
from quantbench.tasks.windows import TextTask
from tiny import tiny_tokenizer

BOS = 0
FIXED = Origin(name="fixed", family="lm")


@dataclass(frozen=True)
class FixedText:
    """A source with the documents it is given."""

    documents: tuple[str, ...]
    joiner: str = "\n\n"
    origin: Origin = FIXED

    def load(self, split: str) -> Documents:
        return Documents(self.origin.name, split, self.documents, "r1", self.joiner)

    def prepare(self) -> str:
        return "nothing to do"


def cut(*documents: str, joiner: str = "\n\n", add_bos: bool = True, **options: Any) -> Windows:
    settings: dict[str, Any] = {"window": 4, "n_windows": None, "bos": "none"} | options
    task = TextTask(source=FixedText(documents, joiner), **settings)
    return task.load(tiny_tokenizer(add_bos), "tokenizer")


def texts(windows: Windows) -> list[str]:
    tokenizer = tiny_tokenizer()
    return [str(tokenizer.decode(row, skip_special_tokens=False)) for row in windows.tokens]


def test_all_windows_in_order_and_the_tail_dropped() -> None:
    windows = cut("abcdefghijk")
    assert texts(windows) == ["abcd", "efgh"]
    assert windows.offsets == (0, 4)
    assert windows.n_bytes == (3, 3)


def test_bos_first_stands_once_before_the_text() -> None:
    windows = cut("abcdefghijk", bos="first")
    assert texts(windows) == ["<s>abc", "defg", "hijk"]
    assert windows.n_bytes == (3, 3, 3)


def test_bos_first_adds_nothing_for_a_tokenizer_that_adds_nothing() -> None:
    assert texts(cut("abcdefgh", bos="first", add_bos=False)) == ["abcd", "efgh"]


def test_bos_each_stands_before_every_window_and_all_text_tokens_are_scored() -> None:
    windows = cut("abcdefghijk", bos="each")
    assert texts(windows) == ["<s>abc", "<s>def", "<s>ghi"]
    assert windows.n_bytes == (3, 3, 3)
    assert (windows.tokens[:, 0] == BOS).all()


def test_bos_each_needs_a_bos() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.bos_token = None
    task = TextTask(source=FixedText(("abcdefgh",)), window=4, n_windows=None, bos="each")
    with pytest.raises(ConfigError, match=r"bos=each: .* no BOS token; use bos=first or bos=none"):
        task.load(tokenizer, "tokenizer")


@pytest.mark.parametrize(("n", "slots"), [(1, [0]), (2, [0, 5]), (3, [0, 3, 6]), (4, [0, 2, 5, 7]), (10, [*range(10)])])
def test_fewer_windows_are_spread_over_the_slots_of_all(n: int, slots: list[int]) -> None:
    windows = cut("x" * 43, n_windows=n)
    assert windows.offsets == tuple(4 * slot for slot in slots)


@given(window=st.integers(2, 20), n=st.integers(1, 30), more=st.integers(0, 200))
def test_windows_never_overlap_and_lie_in_the_text(window: int, n: int, more: int) -> None:
    n_tokens = window * n + more
    windows = cut("x" * n_tokens, window=window, n_windows=n)
    offsets = np.array(windows.offsets)
    assert len(offsets) == n
    assert (np.diff(offsets) >= window).all()
    assert offsets[0] == 0
    assert offsets[-1] + window <= n_tokens


def test_bytes_and_documents_where_characters_take_several_bytes() -> None:
    # é: 2 bytes and tokens; €: 3; the joiner: 1.
    windows = cut("aé€", "bcd", joiner="|", window=5)
    # The second window begins with the last byte of €, which the first window's last token counts already.
    assert windows.n_bytes == (5, 4)
    assert windows.document_ids == (0, 0)
    assert cut("abc", "defg", "hijkl", joiner="|", window=4).document_ids == (0, 1, 2)
    assert cut("abc", "defg", "hijkl", joiner="", window=4).document_ids == (0, 1, 2)


@given(st.text(st.characters(codec="utf-8"), min_size=30, max_size=60))
def test_bytes_of_all_windows_add_up_to_the_text(text: str) -> None:
    size = len(text.encode())
    windows = cut(text, window=3, bos="each")
    scored = windows.offsets[-1] + 2
    # A token that ends inside a character counts the character's bytes.
    assert scored <= sum(windows.n_bytes) <= min(size, scored + 3)


def test_only_the_beginning_of_the_text() -> None:
    documents = ("abcd", "efgh", "ijkl")
    assert texts(cut(*documents, joiner=" ", max_documents=2)) == ["abcd", " efg"]
    assert texts(cut(*documents, joiner="", bos="first", max_tokens=9)) == ["<s>abc", "defg"]
    assert cut(*documents, max_documents=2).documents == documents[:2]


def test_too_short_a_text_is_refused_with_the_numbers() -> None:
    with pytest.raises(DataError, match=r"fixed, split test: 3 tokens make 0 windows of 4 tokens, but 1 is needed"):
        cut("abc")
    with pytest.raises(DataError, match=r"11 tokens make 2 windows of 4 tokens, but 3 are needed; use a longer text"):
        cut("abcdefghijk", n_windows=3)
    with pytest.raises(DataError, match=r"0 tokens make 0 windows"):
        cut("")


def test_the_protocol_changes_with_everything_that_fixes_a_score_and_with_nothing_else() -> None:
    base = cut("abcd" * 10, n_windows=2)
    others = [
        cut("abce" * 10, n_windows=2),
        cut("abcd" * 10, n_windows=3),
        cut("abcd" * 10, n_windows=2, window=5),
        cut("abcd" * 10, n_windows=2, bos="each"),
        cut("abcd" * 10, n_windows=2, split="train"),
        cut("abcd" * 10, n_windows=2, max_tokens=30),
        cut("abcd" * 10, "", n_windows=2),
        cut("abcd" * 10, n_windows=2, joiner=" "),
    ]
    assert len({protocol_id(windows) for windows in [base, *others]}) == len(others) + 1
    assert protocol_id(cut("abcd" * 10, n_windows=10)) == protocol_id(cut("abcd" * 10))


def test_the_protocol_includes_the_tokenizer() -> None:
    task = TextTask(source=FixedText(("abcdefgh",)), window=4, n_windows=None, bos="none")
    tokenizer = tiny_tokenizer()
    assert protocol_id(task.load(tokenizer, "one")) != protocol_id(task.load(tokenizer, "other"))


def test_windows_longer_than_the_model_takes_are_refused() -> None:
    windows = cut("abcdefgh")
    windows.check_length(None, "t")
    windows.check_length(4, "t")
    with pytest.raises(
        ConfigError, match=r"task t: windows of 4 tokens, but the model takes at most 3; use scale.window=3"
    ):
        windows.check_length(3, "t")


def test_the_test_distribution_is_the_texts() -> None:
    letters = Origin(name="fixed", family="lm", domain="letters", language="en", relatives=("alphabet",))
    for origin in (letters, FIXED):
        source = FixedText(("a",), origin=origin)
        assert TextTask(source=source, window=4, n_windows=None, bos="none").origin == origin


@pytest.mark.parametrize("options", [{"window": 1}, {"n_windows": 0}, {"bos": "last"}, {"typo": 1}, {"window": "4"}])
def test_bad_options_are_refused_when_built(options: dict[str, Any]) -> None:
    settings: dict[str, Any] = {"window": 4, "n_windows": None, "bos": "none"} | options
    with pytest.raises(ValidationError):
        TextTask(source=FixedText(("a",)), **settings)


def test_items_are_named_by_offset() -> None:
    frame = cut("abcdefgh").frame()
    assert frame.to_dict("list") == {
        "item": ["0", "4"],
        "document": ["0", "0"],
        "cluster": ["document 0, run 0", "document 0, run 8"],
        "n_tokens": [3, 3],
        "n_bytes": [3, 3],
    }


def clusters_of(*documents: str, **options: Any) -> list[str]:
    return list(cut(*documents, joiner="", **options).clusters)


def test_windows_of_one_document_are_a_cluster_where_there_are_enough_of_them() -> None:
    documents = [letter * 12 for letter in "abcdefgh"]
    found = cut(*documents, joiner="")
    assert list(found.clusters) == [f"document {i // 3}" for i in range(24)]
    assert found.frame()["cluster"].tolist() == list(found.clusters)
    assert "document" in found.protocol_values["clusters"]


def test_neighbouring_windows_of_few_documents_are_a_cluster_and_never_of_two_documents() -> None:
    # 64 windows in 16 runs; the second document begins within the run 8.
    found = clusters_of("a" * 136, "b" * 120)
    assert found[:5] == ["document 0, run 0"] * 4 + ["document 0, run 1"]
    assert found[31:36] == ["document 0, run 7", *["document 0, run 8"] * 2, *["document 1, run 8"] * 2]
    assert len(set(found)) == 17
    assert len(set(clusters_of("a" * 40, n_windows=5))) == 5
    assert cut("a" * 40).protocol_values["clusters"] != cut(*"abcdefgh" * 8).protocol_values["clusters"]


def test_lines_of_an_article_are_one_document() -> None:
    lines = [line for title in "abcdefgh" for line in (f" = {title} = \n", "12345678\n", "12345678\n")]
    found = cut(*lines, joiner="", window=9)
    assert len(set(found.document_ids)) > len(set(found.clusters)) == 8
