"""Which documents of a text belong together: WikiText's documents are the lines of its articles."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_TITLE = re.compile(r"\s*= [^=\s](.*[^=\s])? =\s*")
"""A line of WikiText that names an article: ` = Title = `; of sections it has more signs, ` = = Section = = `."""


def article_numbers(documents: Sequence[str]) -> NDArray[np.int64]:
    """int64 [D]: the number of the article that each document lies in.

    A document that is a title of WikiText begins an article, and those up to the next one belong to it. In a text
    without such titles each document is an article.
    """
    titles = np.array([_TITLE.fullmatch(document) is not None for document in documents], dtype=bool)
    return np.cumsum(titles, dtype=np.int64) if titles.any() else np.arange(len(documents), dtype=np.int64)
