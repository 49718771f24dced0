"""Which documents of an lm-eval task are questions on one text, so that errors count them together."""

from __future__ import annotations

import hashlib
from typing import Any

PASSAGES = ("passage", "paragraph", "article", "context", "story", "premise")
"""Fields of a document that hold a text which several questions may be asked on."""

CLUSTERS = f"documents with the same text in the first of the fields {', '.join(PASSAGES)} that they have"


def cluster_of(subtask: str, number: int, document: Any) -> str:
    """The cluster of a document: the subtask and a short name of its passage; without one, the document itself."""
    fields = document if isinstance(document, dict) else {}
    passage = next((fields[name] for name in PASSAGES if isinstance(fields.get(name), str) and fields[name]), None)
    if passage is None:
        return f"{subtask}/{number}"
    digest = hashlib.sha256(passage.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{subtask}/{digest[:12]}"
