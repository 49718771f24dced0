"""Exams: multiple-choice questions with four options, by subject, some subjects making up a domain."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated

from pydantic import Field

from quantbench.core.apportion import evenly
from quantbench.core.component import component
from quantbench.core.errors import ConfigError, DataError
from quantbench.core.origin import Origin
from quantbench.core.progress import say_once
from quantbench.datasets.examples import Example, Examples, fields_of, finish
from quantbench.datasets.hub import HubSource
from quantbench.datasets.likeness import squeezed
from quantbench.datasets.rows import Rows
from quantbench.datasets.table import ListTable
from quantbench.datasets.values import located, scalar

log = logging.getLogger("quantbench")

LETTERS = ("A", "B", "C", "D")
SLOTS = ("question", *LETTERS)

BySubject = Mapping[str, Sequence[Example]]


@component
class ExamSet:
    """The questions of some subjects, for calibration ("train"), evaluation ("test") and worked examples ("shots").

    source      where each subject's data set lies; {subject} in `hub` and `files` is replaced. Its splits are those of
                the exam for each use, named exactly: `datasets` merges splits called dev and val where it has to guess
    columns     question, A, B, C, D, answer -> column
    held_out    where calibration and evaluation use one split: so many questions, spread evenly over the subjects, are
                for calibration only. Which ones follows from the questions alone, and one that is repeated is not
                tested either
    questions   how many questions calibration may draw from, spread evenly over the subjects; None: all there are
    seed        which ones
    shots_per_subject  how many worked examples each subject has
    """

    source: HubSource
    origin: Origin
    subjects: Annotated[tuple[str, ...], Field(min_length=1)]
    columns: dict[str, str]
    held_out: Annotated[int, Field(ge=0)] = 0
    questions: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    shots_per_subject: Annotated[int, Field(ge=1)] = 5

    def __post_init__(self) -> None:
        if set(self.columns) != {*SLOTS, "answer"}:
            raise ConfigError(f"columns: expected {', '.join(SLOTS)} and answer, found {', '.join(self.columns)}")
        if (self.source.train == self.source.test) != bool(self.held_out):
            raise ConfigError(
                f"held_out={self.held_out}, train={self.source.train}, test={self.source.test}: questions are held out "
                "from evaluation if, and only if, calibration and evaluation use the same split"
            )

    def load(self, split: str) -> Examples:
        """See ExampleSet; the splits are train, test and shots."""
        if split not in self.source.sides():
            raise DataError(f"data {self.origin.name}: no split {split!r}; it has {', '.join(self.source.sides())}")
        say_once(f"loading data {self.origin.name} ({', '.join(self.source.hub)}, {split})")
        with _one_line():
            loaded = {subject: self._read(subject, split) for subject in self.subjects}
        found: BySubject = {subject: self._examples(subject, rows) for subject, rows in loaded.items()}
        notes = [note for rows in loaded.values() for note in rows.notes]
        if split == "shots":
            self._check_shots(found)
        elif self.held_out:
            found = self._held_out(found) if split == "train" else self._tested(found)
            notes.append(f"{self.held_out} questions held out for calibration")
        if split == "train" and self.questions is not None:
            found = _spread(found, self.questions, lambda one: _random_order(one, self.seed))
        examples = [example for several in found.values() for example in several]
        revisions = "; ".join(dict.fromkeys(rows.revision for rows in loaded.values()))
        table = ListTable([dict(example.fields) for example in examples])
        ids = [example.id for example in examples]
        rows = Rows(self.origin.name, split, table, ids, revisions, notes=tuple(dict.fromkeys(notes)))
        return finish(rows, examples, LETTERS, {})

    def check_reachable(self, split: str) -> None:
        """Raise DataError if the data are neither here nor can be fetched; asks for one of the subjects."""
        self._of(self.subjects[0]).check_reachable(f"{self.origin.name}.{self.subjects[0]}", split)

    def shots(self, k: int, seed: int) -> dict[str, list[Example]]:
        """k worked examples of each subject, in their order in the file; `seed` chooses where there are more.

        Raises DataError if there are fewer.
        """
        found: dict[str, list[Example]] = {subject: [] for subject in self.subjects}
        for example in self.load("shots").examples:
            found[subject_of(example)].append(example)
        for subject, pool in found.items():
            if len(pool) < k:
                raise DataError(f"data {self.origin.name}: {k} shots were asked for, but {subject} has {len(pool)}")
            chosen = random.Random(f"{seed} {subject}").sample(range(len(pool)), k)
            found[subject] = [pool[i] for i in sorted(chosen)]
        return found

    def prepare(self) -> str:
        """Fetch every split of every subject."""
        counts = {split: len(self.load(split).examples) for split in self.source.sides()}
        said = ", ".join(f"{count:,} for {split}" for split, count in counts.items())
        where = f"{len(self.subjects)} subjects of {', '.join(self.source.hub)} at {self.load('test').rows.revision}"
        return f"{self.origin.name}: {where}, questions: {said}, in the Hugging Face cache (HF_HOME)"

    def _read(self, subject: str, split: str) -> Rows:
        return self._of(subject).read(f"{self.origin.name}.{subject}", split)

    def _of(self, subject: str) -> HubSource:
        hub = tuple(place.format(subject=subject) for place in self.source.hub)
        files = self.source.files
        if isinstance(files, dict):
            files = {side: file.format(subject=subject) for side, file in files.items()}
        return dataclasses.replace(self.source, hub=hub, files=files)

    def _examples(self, subject: str, rows: Rows) -> list[Example]:
        asked = {slot: self.columns[slot] for slot in SLOTS}
        rows.require([*asked.values()])
        answers = self.columns["answer"]
        made = []
        for where, name, row in rows.each():
            with located(where):
                answer = scalar(row.get(answers), answers)
                if answer and answer not in LETTERS:
                    raise DataError(f"the answer is {answer!r}, not A, B, C or D")
                fields = fields_of(row, asked)
            made.append(Example(f"{subject}:{name}", fields, answer, (answer,) if answer else ()))
        return made

    def _check_shots(self, found: BySubject) -> None:
        for subject, examples in found.items():
            if len(examples) != self.shots_per_subject:
                raise DataError(
                    f"data {self.origin.name}: {subject} has {len(examples)} questions in its split "
                    f"{self.source.shots}, not {self.shots_per_subject}: splits may have been merged (dev and val are, "
                    "where their names are guessed); name the files of each split in `files`"
                )

    def _held_out(self, found: BySubject) -> BySubject:
        return _spread(found, self.held_out, _fixed_order)

    def _tested(self, found: BySubject) -> BySubject:
        held = {squeezed(one.content) for several in self._held_out(found).values() for one in several}
        return {
            subject: [one for one in several if squeezed(one.content) not in held] for subject, several in found.items()
        }


@contextmanager
def _one_line() -> Iterator[None]:
    """Keep what is said of each subject's data off the screen; warnings still arrive."""
    before = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(before)


def subject_of(example: Example) -> str:
    """The subject a question of an ExamSet is from."""
    return example.id.partition(":")[0]


def _spread(found: BySubject, total: int, order: Callable[[Example], str]) -> dict[str, list[Example]]:
    """`total` questions, spread evenly over the subjects; `order` says which of a subject come first."""
    shares = evenly(total, [len(several) for several in found.values()])
    chosen = {}
    for (subject, several), share in zip(found.items(), shares, strict=True):
        first = {one.id for one in sorted(several, key=order)[:share]}
        chosen[subject] = [one for one in several if one.id in first]
    return chosen


def _fixed_order(example: Example) -> str:
    return hashlib.sha256(example.content.encode("utf-8", "surrogatepass")).hexdigest()


def _random_order(example: Example, seed: int) -> str:
    return hashlib.sha256(f"{seed} {example.content}".encode("utf-8", "surrogatepass")).hexdigest()
