"""Passages that several documents hold: a legal footer, a signature, a licence. They are found, shown, and taken out.

A passage is RUN or more words (or punctuation marks) in a row. Documents that share one are taken for copies of each
other (quantbench.datasets.split), which is wrong of boilerplate: `without_boilerplate` takes it out before.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantbench.datasets.ngrams import Integers, ngram_ids

RUN = 32
"""Words or punctuation marks in a row: in prose about 36 tokens, in source code about 50."""

SHOWN = 80
"""Characters of a passage in messages."""

SHORTER = (RUN, 16, 8, 4)
"""Runs that are looked for in texts known to share something: without spaces a word is as long as a clause."""

CLOSING = frozenset(".!?,;:)]}\"'»”’…。！？，；：）")

_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class Passage:
    """A text, its number of words, and how many documents hold it."""

    text: str
    words: int
    documents: int

    def __str__(self) -> str:
        text = " ".join(self.text.split())
        shown = text if len(text) <= SHOWN else f"{text[:SHOWN].rstrip()}..."
        return f'"{shown}" ({self.words} words, in {self.documents} documents)'


@dataclass(frozen=True)
class Runs:
    """The runs of `run` words inside texts.

    ids    [R] equal where runs are
    owner  [R] the number of the text that each is in
    first  [R] the number, among the words of all texts, of its first word
    ends   [T + 1] the words of text i are those from ends[i] to ends[i + 1]
    """

    run: int
    ids: Integers
    owner: Integers
    first: Integers
    ends: Integers

    @classmethod
    def of(cls, texts: Sequence[str], run: int = RUN) -> Runs:
        """All runs of some texts. Exact: equal numbers are equal words."""
        vocabulary: dict[str, int] = {}
        words = [[vocabulary.setdefault(word, len(vocabulary)) for word in _WORD.findall(text)] for text in texts]
        ends = np.cumsum([0, *map(len, words)], dtype=np.int64)
        owner = np.repeat(np.arange(len(texts)), np.diff(ends))
        ids = ngram_ids(np.fromiter(chain.from_iterable(words), dtype=np.int64), run)
        # A run that crosses from one text to the next is in neither.
        first = np.flatnonzero(owner[: len(ids)] == owner[run - 1 :][: len(ids)])
        return cls(run, ids[first], owner[first], first, ends)

    def holders(self, holder: Integers) -> Integers:
        """[R] how many documents have each run; holder [T]: the document that each text is of."""
        if not len(self.ids):
            return self.ids
        pairs = np.unique(np.stack([self.ids, holder[self.owner]]), axis=1)
        return np.bincount(pairs[0], minlength=int(self.ids.max()) + 1)[self.ids]

    def stretches(self, chosen: NDArray[np.bool_]) -> list[tuple[int, int, int]]:
        """Chosen runs put together: (text, first word, word behind the last), words counted within the text."""
        found: list[tuple[int, int, int]] = []
        for owner, first in zip(self.owner[chosen].tolist(), self.first[chosen].tolist(), strict=True):
            begin = first - int(self.ends[owner])
            if found and found[-1][0] == owner and begin <= found[-1][2]:
                found[-1] = (owner, found[-1][1], begin + self.run)
            else:
                found.append((owner, begin, begin + self.run))
        return found


def most_shared(documents: Sequence[str]) -> Passage | None:
    """The passage that most of the documents hold, of those the longest; None if no two share one."""
    runs = Runs.of(documents)
    return _largest(documents, runs, runs.holders(np.arange(len(documents))), 2)


def shared_between(ours: Sequence[str], theirs: Sequence[str]) -> Passage | None:
    """The passage of `ours` that most of `theirs` hold; None if there is none of four words."""
    for run in SHORTER:
        runs = Runs.of([*ours, *theirs], run)
        inside = runs.owner >= len(ours)
        known = np.isin(runs.ids, runs.ids[~inside])
        counts = np.where(inside & known, _counts(runs, inside), 0)
        if found := _largest([*ours, *theirs], runs, counts, 1):
            return found
    return None


def _counts(runs: Runs, inside: NDArray[np.bool_]) -> Integers:
    """How many texts have each run, those that are not `inside` not counted."""
    pairs = np.unique(np.stack([runs.ids[inside], runs.owner[inside]]), axis=1)
    return np.bincount(pairs[0], minlength=int(runs.ids.max(initial=-1)) + 1)[runs.ids]


def _largest(texts: Sequence[str], runs: Runs, holders: Integers, least: int) -> Passage | None:
    most = int(holders.max(initial=0))
    if most < least:
        return None
    text, first, end = max(runs.stretches(holders == most), key=lambda one: (one[2] - one[1], -one[0]))
    return _passage(texts[text], first, end, most)[0]


@dataclass(frozen=True)
class Stripped:
    """Texts without the passages that were taken out, and what is recorded of it.

    share     the option: more than this share of the documents held each passage
    passages  those that were taken out, each once, the most frequent first
    changed   how many documents lost one
    """

    texts: list[str]
    share: float
    documents: int
    passages: list[Passage]
    changed: int

    @property
    def note(self) -> str:
        """What a reader of the numbers must know."""
        shown = "".join(f"; {passage}" for passage in self.passages[:3])
        more = f"; and {len(self.passages) - 3} more" if len(self.passages) > 3 else ""
        return (
            f"{len(self.passages)} passages that more than {self.share:.3g} of {self.documents} documents hold were "
            f"taken out of {self.changed} of them (strip_boilerplate){shown}{more}"
        )

    @property
    def protocol(self) -> dict[str, Any]:
        """What fixes it, for the protocol of a score."""
        return {"share": self.share, "run": RUN, "passages": [passage.text for passage in self.passages]}


def without_boilerplate(texts: Sequence[str], share: float, holder: Sequence[int] | None = None) -> Stripped:
    """The texts without the passages that more than `share` of the documents hold, and two at least.

    holder: the document that each text is of, where one has several; None: equal texts are one, others one each
    What stood around a passage is moved together, which may make another one: it is taken out, too, until none is left.
    """
    if holder is None:
        first_of: dict[str, int] = {}
        holder = [first_of.setdefault(text, index) for index, text in enumerate(texts)]
    owners = np.array(holder, dtype=np.int64)
    documents = len(np.unique(owners))
    least = max(2, math.floor(share * documents) + 1)
    found: dict[str, Passage] = {}
    kept, changed = list(texts), set[int]()
    while True:
        runs = Runs.of(kept)
        holders = runs.holders(owners)
        stretches = runs.stretches(holders >= least)
        if not stretches:
            passages = sorted(found.values(), key=lambda passage: -passage.documents)
            return Stripped(kept, share, documents, passages, len({holder[text] for text in changed}))
        count = dict(zip(runs.first.tolist(), holders.tolist(), strict=True))
        for text, first, end in reversed(stretches):  # from the end, so that those before keep their places
            passage, begin = _passage(kept[text], first, end, count[first + int(runs.ends[text])])
            found.setdefault(passage.text, passage)
            kept[text] = _without(kept[text], passage.text, begin)
            changed.add(text)


def _passage(text: str, first: int, end: int, documents: int) -> tuple[Passage, int]:
    """The passage from word `first` to before `end`, and the character it begins at.

    What closes the sentence before it is the same in many documents, too, but no part of it.
    """
    words = list(_WORD.finditer(text))[first:end]
    closing = next((number for number, word in enumerate(words) if word[0] not in CLOSING), 0)
    begin, stop = words[closing].start(), words[-1].end()
    return Passage(text[begin:stop], len(words) - closing, documents), begin


def _without(text: str, passage: str, begin: int) -> str:
    rest = text[begin + len(passage) :].lstrip()
    return text[:begin] + rest if rest else text[:begin].rstrip()
