"""Running text: a column of a source, several columns through a template, or chats."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from quantbench.core.component import component
from quantbench.core.errors import DataError
from quantbench.core.origin import Origin
from quantbench.datasets.boilerplate import Share, without_boilerplate_rows
from quantbench.datasets.chat import Rendering
from quantbench.datasets.documents import Documents
from quantbench.datasets.extracted import extracted
from quantbench.datasets.fill import TextTemplate, is_template
from quantbench.datasets.passages import RUN, without_boilerplate
from quantbench.datasets.rows import Rows, Source
from quantbench.datasets.split import cut_rows, cut_texts
from quantbench.datasets.values import located

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@component
class TextSet:
    r"""A text whose documents are rows of a source.

    text            the column that holds the text (of a list of texts, each is a document); or a template of several:
                    "{subject}\n\n{body}" (quantbench.datasets.fill)
    render          in place of `text`: how a row becomes a document (quantbench.datasets.chat)
    joiner          stands between documents when they are read as one text
    min_characters  shorter documents are left out
    strip_boilerplate  passages that more than this share of the documents hold (a legal footer) are taken out before
                    anything is cut; null: none (quantbench.datasets.passages)
    Documents lose white space at their ends, and empty ones are left out, but for a column of the hub, which is read as
    published loaders read it.
    """

    source: Source
    origin: Origin
    text: Annotated[str, Field(min_length=1)] = "text"
    render: Rendering | None = None
    joiner: str = "\n\n"
    min_characters: Annotated[int, Field(ge=1)] = 1
    strip_boilerplate: Share = None

    def __post_init__(self) -> None:
        if is_template(self.text):
            TextTemplate(self.text)  # refuses what is no template

    def check_files(self) -> None:
        """Raise DataError for a file of the user's that is missing."""
        try:
            self.source.check_files()
        except DataError as error:
            raise DataError(f"data {self.origin.name}: {error}") from error

    def check_reachable(self, split: str) -> None:
        """Raise DataError if the data are neither here nor can be fetched."""
        self.source.check_reachable(self.origin.name, split)

    def load(self, split: str) -> Documents:
        """See TextSource."""
        return self._loaded(split, None)

    def load_for(self, split: str, tokenizer: PreTrainedTokenizerBase) -> Documents:
        """As `load`; chats may be written by the chat template of the tokenizer."""
        return self._loaded(split, tokenizer)

    def prepare(self) -> str:
        """Fetch the rows."""
        where = self.source.fetch(self.origin.name)
        if (key := self._cache_key()) is not None:
            where += f" and {extracted(self.origin.name, key, self._distinct_sides).path}"
        return f"{self.origin.name}: {where}"

    def _loaded(self, split: str, tokenizer: PreTrainedTokenizerBase | None) -> Documents:
        if (key := self._cache_key()) is not None:
            return self._extracted(key, split)
        rows = self.source.read(self.origin.name, split)
        column = self.render is None and not is_template(self.text)
        rows, texts, documents = self._column(rows, split) if column else self._written(rows, split, tokenizer)
        if not documents:
            raise DataError(f"{rows.label}: none of {len(rows.table)} rows holds text ({'; '.join(rows.notes)})")
        return Documents(
            self.origin.name,
            split,
            documents,
            rows.revision,
            self.joiner,
            rows.notes,
            processing=rows.processing,
            places=_places(rows, texts, documents),
        )

    def _extracted(self, key: str, split: str) -> Documents:
        kept = extracted(self.origin.name, key, self._distinct_sides)
        documents, total = kept.sides[split], sum(map(len, kept.sides.values()))
        notes = (*kept.notes, f"{len(documents)} of {total} distinct documents")
        share = self.strip_boilerplate
        processing = {} if share is None else {"strip_boilerplate": {"share": share, "run": RUN}}
        return Documents(self.origin.name, split, documents, kept.revision, self.joiner, notes, processing=processing)

    def _cache_key(self) -> str | None:
        """Fixes what is kept in the cache folder of a source that is slow to read."""
        key = self.source.cache_key()
        stripped = "" if self.strip_boilerplate is None else f" {self.strip_boilerplate}"
        return None if key is None else f"{key} {self.text} {self.min_characters}{stripped}"

    def _distinct_sides(self) -> tuple[Rows, dict[str, list[str]]]:
        rows, texts = self._stripped(self.source.read(self.origin.name, "train"))
        return rows, cut_texts(self._kept(texts), rows.label)

    def _stripped(self, rows: Rows) -> tuple[Rows, Sequence[str]]:
        """The texts of a column without boilerplate, and the rows with what is to be said of it."""
        texts = self._texts(rows)
        if self.strip_boilerplate is None:
            return rows, texts
        stripped = without_boilerplate(texts, self.strip_boilerplate)
        processing = {"strip_boilerplate": stripped.protocol}
        return dataclasses.replace(rows, notes=(*rows.notes, stripped.note), processing=processing), stripped.texts

    def _column(self, rows: Rows, split: str) -> tuple[Rows, Sequence[str], Sequence[str]]:
        """The rows, a text of each, and the documents of the split."""
        rows, texts = self._stripped(rows)
        documents, notes = (texts, []) if self.source.verbatim else self._kept_and_noted(texts)
        if rows.whole:
            if repeated := len(documents) - len(set(documents)):
                notes.append(f"{repeated} documents that repeat an earlier one left out")
            notes.append("cut 4:1 by document")
            documents = cut_texts(documents, rows.label)[split] if len(documents) else []
        return dataclasses.replace(rows, notes=(*rows.notes, *notes)), texts, documents

    def _texts(self, rows: Rows) -> Sequence[str]:
        with rows.named():
            return rows.table.texts(self.text)

    def _kept(self, texts: Iterable[str]) -> list[str]:
        return [text for text in map(str.strip, texts) if len(text) >= self.min_characters]

    def _kept_and_noted(self, texts: Sequence[str]) -> tuple[list[str], list[str]]:
        kept = self._kept(texts)
        few = "empty documents" if self.min_characters == 1 else f"documents below {self.min_characters} characters"
        left_out = len(texts) - len(kept)
        return kept, [f"{left_out} {few} left out"] if left_out else []

    def _written(
        self, rows: Rows, split: str, tokenizer: PreTrainedTokenizerBase | None
    ) -> tuple[Rows, Sequence[str], Sequence[str]]:
        """As `_column`, of rows that a template or a rendering makes documents of."""
        rows = without_boilerplate_rows(rows, self.strip_boilerplate)
        if rows.whole:
            rows = cut_rows(rows, split, self.source.group, self.source.group_until)
        texts = list(self._each(rows, tokenizer))
        documents, notes = self._kept_and_noted(texts)
        return dataclasses.replace(rows, notes=(*rows.notes, *notes)), texts, documents

    def _each(self, rows: Rows, tokenizer: PreTrainedTokenizerBase | None) -> Iterator[str]:
        template = None if self.render is not None else TextTemplate(self.text)
        rows.require(self.render.columns if self.render is not None else TextTemplate(self.text).columns)
        for where, _, row in rows.each():
            with located(where):
                document = template.fill(row) if template is not None else self._rendered(row, tokenizer)
            yield document

    def _rendered(self, row: dict[str, object], tokenizer: PreTrainedTokenizerBase | None) -> str:
        assert self.render is not None
        return self.render.document(row, tokenizer)


def _places(rows: Rows, texts: Sequence[str], documents: Sequence[str]) -> tuple[str, ...]:
    """Where each document stands, of files and of sets that were cut: otherwise the split's own order says it.

    texts: those of all rows, of which the documents are the ones that were kept
    """
    if len(texts) != len(rows.table) or not (rows.whole or (len(texts) and rows.table.position(0))):
        return ()
    first: dict[str, int] = {}
    for index, text in enumerate(texts):
        first.setdefault(text, index)
        first.setdefault(text.strip(), index)
    return tuple(rows.place(first[document]) for document in documents)
