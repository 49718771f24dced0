"""Which items are among others, word for word or nearly so.

Items are compared by their letters and digits alone, so that neither case, white space nor the conventions of a
tokenized corpus ("it 's", "do n't") hide one. An item is nearly among others if 70 % of its n-grams occur in them, the
share of PaLM's contamination analysis (Chowdhery et al. 2022, arXiv 2204.02311, with 8-grams of words); n-grams here
are of 24 letters and digits, about five words.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

GRAM = 24
ALIKE = 0.7

_BATCH = 1 << 22
"""Letters that are looked at at a time."""

_OTHER = re.compile(r"[\W_]+")

Hashes = NDArray[np.uint64]


def squeezed(text: str) -> str:
    """The letters and digits of a text, case and compatibility forms aside; of a text without any, its signs."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return _OTHER.sub("", plain) or "".join(plain.split())


def among(items: Sequence[str], known: Sequence[str]) -> list[bool]:
    """For each item whether it is one of `known`, or nearly among them.

    An item has a field a line. It is nearly among them if each of its fields is: one that is too short for an n-gram if
    it is the whole of a field there. So another question on the same passage, or with the same options, is another
    item.
    """
    ours, theirs = [_fields(item) for item in items], [_fields(one) for one in known]
    exact = {"".join(fields) for fields in theirs}
    return [near or "".join(fields) in exact for fields, near in zip(ours, _nearly(ours, theirs), strict=True)]


def apart(rows: Sequence[str], items: Sequence[str]) -> list[bool]:
    """For each row whether it can stay if none of `items` is to be among the rows that stay (`among`)."""
    ours, theirs = [_fields(row) for row in rows], [_fields(item) for item in items]
    exact = {"".join(fields) for fields in theirs}
    stays = ["".join(fields) not in exact for fields in ours]
    left = [fields for fields, kept in zip(ours, stays, strict=True) if kept]
    leaked = [field for item, near in zip(theirs, _nearly(theirs, left), strict=True) if near for field in item]
    if leaked:
        grams = np.unique(_grams(leaked)[0])
        held = {
            field for batch in _batches([field for row in left for field in row]) for field in _holding(batch, grams)
        }
        stays = [kept and held.isdisjoint(fields) for fields, kept in zip(ours, stays, strict=True)]
    return stays


def _fields(item: str) -> list[str]:
    return [field for line in item.split("\n") if (field := squeezed(line))]


def _nearly(items: Sequence[Sequence[str]], known: Sequence[Sequence[str]]) -> list[bool]:
    """Which items have a field of an n-gram or more, and all of their fields in `known`."""
    fields, theirs = [field for item in items for field in item], [field for one in known for field in one]
    whole = set(theirs)
    inside = iter([near or field in whole for field, near in zip(fields, _covered(fields, theirs), strict=True)])
    found = []
    for item in items:
        every = [next(inside) for _ in item]
        found.append(all(every) and any(len(field) >= GRAM for field in item))
    return found


def _covered(items: Sequence[str], known: Sequence[str]) -> list[bool]:
    """Which texts have their share of n-grams in `known`; those too short for one have not."""
    grams, owner = _grams(items)
    unique, number = np.unique(grams, return_inverse=True)
    found = np.zeros(len(unique), dtype=np.bool_)
    for batch in _batches(known):
        found |= np.isin(unique, _grams(batch)[0])
    counts = np.bincount(owner, minlength=len(items))
    hits = np.bincount(owner, weights=found[number], minlength=len(items))
    return [bool(near) for near in (counts > 0) & (hits >= ALIKE * counts)]


def _holding(texts: Sequence[str], grams: Hashes) -> set[str]:
    found, owner = _grams(texts)
    return {texts[index] for index in np.unique(owner[np.isin(found, grams)])}


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _grams(texts: Sequence[str]) -> tuple[Hashes, NDArray[np.int64]]:
    """64-bit hashes of the n-grams of texts, and the number of the text that each is in."""
    letters = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    owner = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    if len(letters) < GRAM:
        return np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int64)
    hashes, width = letters, 1
    while width < GRAM:  # of two neighbouring or overlapping stretches that make up one
        step = min(width, GRAM - width)
        hashes = _mixed(hashes[:-step], hashes[step:])
        width += step
    inside = owner[: len(hashes)] == owner[GRAM - 1 :]
    return hashes[inside], owner[: len(hashes)][inside]


def _mixed(one: Hashes, other: Hashes) -> Hashes:
    """A hash of pairs, by the multipliers of SplitMix64 (Steele, Lea and Flood 2014)."""
    found = one * np.uint64(0x9E3779B97F4A7C15) + other
    found ^= found >> np.uint64(30)
    found *= np.uint64(0xBF58476D1CE4E5B9)
    found ^= found >> np.uint64(27)
    found *= np.uint64(0x94D049BB133111EB)
    found ^= found >> np.uint64(31)
    return found
