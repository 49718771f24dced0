"""The origin of the data a task reads."""

from __future__ import annotations

from quantbench.core.origin import Origin, origin_of
from quantbench.datasets.documents import TextSource
from quantbench.datasets.examples import ExampleSet


def source_origin(source: TextSource | ExampleSet) -> Origin:
    """What the source tells of itself."""
    return origin_of(source)
