"""Which windows of a text are correlated with each other, so that errors count them together."""

from __future__ import annotations

import numpy as np

from quantbench.metrics.clusters import RELIABLE
from quantbench.models.encoded_text import Integers

RUNS = 16
"""Into so many equal runs of tokens a text is cut whose windows lie in few documents."""

BY_DOCUMENT = "the document that a window's first scored token lies in; lines of a WikiText article are one document"
BY_RUN = f"{RUNS} equal runs of the text's tokens, cut where a document ends"


def window_clusters(starts: Integers, documents: Integers, n_tokens: int) -> tuple[list[str], str]:
    """The cluster of each of W windows, and the rule in words, which is part of the protocol.

    starts     int64 [W]: where each begins in the text, in tokens
    documents  int64 [W]: the document (the article) it lies in
    n_tokens   of the text

    Windows of one document are one cluster where they lie in RELIABLE documents or more. Fewer would give no usable
    error: then neighbouring windows are one, those in one of RUNS equal runs of tokens, and never of two documents.
    """
    if len(np.unique(documents)) >= RELIABLE:
        return [f"document {document}" for document in documents], BY_DOCUMENT
    runs = starts * RUNS // n_tokens
    return [f"document {document}, run {run}" for document, run in zip(documents, runs, strict=True)], BY_RUN
