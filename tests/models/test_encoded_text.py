"""Long texts are tokenized once: what is read again is what the tokenizer gave."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest

from quantbench.core.errors import ModelError
from quantbench.models import encoded_text as module
from quantbench.models.encoded_text import EncodedText, encoded_text
from tiny import tiny_tokenizer

TEXT = "Ein Wort, zwei Wörter — 三 語. " * 8000


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QUANTBENCH_CACHE", str(tmp_path / "cache"))
    encoded_text.cache_clear()
    return tmp_path / "cache" / "tokens"


def again(text: str, monkeypatch: pytest.MonkeyPatch) -> EncodedText:
    """The tokens as a new process finds them, which may not tokenize."""

    def refused(*_args: object) -> EncodedText:
        raise AssertionError("tokenized again")

    encoded_text.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(module, "_encode", refused)
        return encoded_text(tiny_tokenizer(), text)


def same(one: EncodedText, other: EncodedText) -> bool:
    return all(
        a.dtype == b.dtype == np.int64 and np.array_equal(a, b)
        for a, b in ((one.ids, other.ids), (one.begins, other.begins), (one.ends, other.ends))
    )


def test_a_long_text_is_read_where_it_was_tokenized_before(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = tiny_tokenizer()
    expected = tokenizer(TEXT, add_special_tokens=False, return_offsets_mapping=True)
    first = encoded_text(tokenizer, TEXT)
    assert first.ids.tolist() == expected["input_ids"]
    assert list(zip(first.begins.tolist(), first.ends.tolist(), strict=True)) == expected["offset_mapping"]
    assert len(list(cache.iterdir())) == 1
    assert same(again(TEXT, monkeypatch), first)


def test_another_text_and_another_tokenizer_have_tokens_of_their_own(cache: Path) -> None:
    encoded_text(tiny_tokenizer(), TEXT)
    encoded_text(tiny_tokenizer(), TEXT + "!")
    larger = tiny_tokenizer()
    larger.add_tokens(["Wort"])
    assert len(encoded_text(larger, TEXT).ids) == len(encoded_text(tiny_tokenizer(), TEXT).ids) - 3 * 8000
    assert len(list(cache.iterdir())) == 3


def test_a_short_text_is_not_kept(cache: Path) -> None:
    assert len(encoded_text(tiny_tokenizer(), "word").ids) == 4
    assert not cache.exists()


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY nonsense", None])
def test_a_damaged_file_is_made_again(cache: Path, damage: bytes | None, monkeypatch: pytest.MonkeyPatch) -> None:
    first = encoded_text(tiny_tokenizer(), TEXT)
    (path,) = cache.iterdir()
    if damage is None:
        np.save(path, np.zeros(3))
    else:
        path.write_bytes(damage)
    encoded_text.cache_clear()
    assert same(encoded_text(tiny_tokenizer(), TEXT), first)
    assert same(again(TEXT, monkeypatch), first)


def test_a_cache_that_cannot_be_written_costs_time_alone(cache: Path) -> None:
    cache.parent.mkdir()
    cache.write_text("a file where the folder should be", encoding="utf-8")
    assert len(encoded_text(tiny_tokenizer(), TEXT).ids) > 0


def test_a_cache_on_a_file_system_that_is_read_only_costs_time_alone(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_args: object, **_kwargs: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", refused)
        patch.setattr(Path, "unlink", refused)
        assert len(encoded_text(tiny_tokenizer(), TEXT).ids) > 0
    assert not list(cache.glob("*.npy"))


def test_a_tokenizer_that_knows_no_characters_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = tiny_tokenizer()
    monkeypatch.setattr(type(tokenizer), "is_fast", property(lambda _self: False))
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        encoded_text(tokenizer, TEXT)
