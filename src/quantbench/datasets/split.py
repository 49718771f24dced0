"""Cutting data that have one split into a train and a test side, 4:1, without leaks.

Exact duplicates are dropped first. Rows that share a run of RUN words (a reprint, a copied function), or a text of
PASSAGE words in a column (a passage, a premise), are one group and stay on one side: otherwise a quantizer would be
calibrated on what it is tested on. In the order of the sha256 of their texts, the groups go to the test side as long as
it stays within a fifth of the rows (if none is small enough, the smallest one goes). So the cut depends on the texts
alone: not on their order, a random generator, or any library's version; and it is unrelated to whatever sorted the
source (a title, a date).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from quantbench.core.errors import DataError
from quantbench.datasets.passages import Runs, most_shared
from quantbench.datasets.rows import Row, Rows
from quantbench.datasets.table import ListTable
from quantbench.datasets.values import located, scalar

CUT_VERSION = 2
"""Raise it whenever a text may change sides: cached cuts of the old version are then not read any more."""

PASSAGE = 8
"""Words of a column's text from which on rows that have it in common belong together: shorter ones recur by chance, and
one that more than a fifth of the rows have is no passage, but says the same of all."""

SIDES = ("train", "test")


def cut_texts(texts: Sequence[str], label: str) -> dict[str, list[str]]:
    """Train and test texts, each in their old order.

    Raises DataError if there are not two texts that can lie on different sides.
    """
    distinct = list(dict.fromkeys(texts))
    test = on_test_side(distinct, label)
    return {
        "train": [d for i, d in enumerate(distinct) if i not in test],
        "test": [d for i, d in enumerate(distinct) if i in test],
    }


def cut_rows(whole: Rows, side: str, group: str | None, until: str | None = None) -> Rows:
    """One side of rows: those whose running text repeats an earlier one's are left out.

    group  a column: rows of equal values lie on one side, as the snippets of one review
    until  its values count up to this sign only: with "_", "3_1" and "3_2" are the same
    """
    if side not in SIDES:
        raise DataError(f"data {whole.name}: no split {side!r}; it is cut into train and test")
    if group is not None:
        whole.require([group])
    rows = list(whole.table)
    text = {_running_text(row, group): index for index, row in reversed(list(enumerate(rows)))}
    texts = {index: one for one, index in text.items()}
    kept = sorted(texts)
    keys: list[list[str | None]] = []
    if group is not None:
        keys.append([_key(whole, index, rows[index], group, until) for index in kept])
    keys += [_passages(rows[index].get(column) for index in kept) for column in whole.table.columns if column != group]
    test = on_test_side([texts[index] for index in kept], f"data {whole.name}", keys)
    chosen = [index for number, index in enumerate(kept) if (number in test) == (side == "test")]
    notes = [f"cut 4:1 {f'by {group}' if group else 'by row'}"]
    if dropped := len(rows) - len(kept):
        notes.append(f"{dropped} rows that repeat an earlier one left out")
    positions = [whole.where(index) for index in range(len(rows))]
    return whole.chosen(chosen, ListTable(rows, positions).chosen(chosen), notes)


def on_test_side(distinct: Sequence[str], label: str, keys: Sequence[Sequence[str | None]] = ()) -> set[int]:
    """Which of some distinct texts lie on the test side.

    keys: several lists of a key for each; texts of which one key is equal, and not None, stay together, too.
    """
    groups = _linked(distinct, keys)
    hashes = [hashlib.sha256(d.encode("utf-8", "surrogatepass")).hexdigest() for d in distinct]
    members: dict[int, list[int]] = {}
    for number, group in enumerate(groups):
        members.setdefault(group, []).append(number)
    if len(members) < 2:
        raise DataError(_uncut(distinct, len(members), label))
    test: set[int] = set()
    in_order = sorted(members.values(), key=lambda group: min(hashes[i] for i in group))
    for numbers in in_order:
        if len(test) + len(numbers) <= len(distinct) // 5:
            test.update(numbers)
    smallest = min(in_order, key=len)
    return test or set(smallest)


def _uncut(documents: Sequence[str], groups: int, label: str) -> str:
    """Why documents cannot be cut: the passage that most of them hold is shown, for boilerplate can be taken out."""
    problem = (
        f"{label}: {len(documents)} distinct documents in {groups} group(s) that share long passages cannot be cut "
        "into a train and a test side"
    )
    own = "a test text of its own (test_path)"
    shared = most_shared(documents)
    if shared is None:
        return f"{problem}; give more documents, or {own}"
    share = min(0.1, shared.documents / len(documents) / 2)
    return (
        f"{problem}: {shared.documents} of them hold {shared}. If that is boilerplate, "
        f"strip_boilerplate={share:.2g} (calib.strip_boilerplate) takes out passages that more than that share of the "
        f"documents hold; if they are copies, give other documents, or {own}"
    )


def _linked(documents: Sequence[str], keys: Sequence[Sequence[str | None]]) -> list[int]:
    """The number of each text's group: the connected components of "shares a run of RUN words, or a key, with"."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    runs = Runs.of(documents)
    _, first, number = np.unique(runs.ids, return_index=True, return_inverse=True)
    pairs = [(runs.owner, runs.owner[first[number]])]
    for own in keys:
        first_of: dict[str | None, int] = {}
        linked = [(number, first_of.setdefault(key, number)) for number, key in enumerate(own) if key is not None]
        pairs.append(
            (np.array([n for n, _ in linked], dtype=np.int64), np.array([n for _, n in linked], dtype=np.int64))
        )
    one, other = (np.concatenate(side) for side in zip(*pairs, strict=True))
    edges = coo_array((np.ones(len(one), dtype=np.int8), (one, other)), (len(documents),) * 2)
    return [int(label) for label in connected_components(edges, directed=False)[1]]


def _passages(values: Iterable[object]) -> list[str | None]:
    """The texts of a column that are a passage, white space aside; None for any other value."""
    texts = [" ".join(value.split()) if isinstance(value, str) else "" for value in values]
    counts = Counter(texts)
    return [text if text.count(" ") >= PASSAGE - 1 and 5 * counts[text] <= len(texts) else None for text in texts]


def _key(rows: Rows, index: int, row: Row, group: str, until: str | None) -> str:
    with located(rows.where(index)):
        value = scalar(row[group], group)
    return value if until is None else value.partition(until)[0]


def _running_text(row: Row, group: str | None) -> str:
    """What a row says: its columns of running text; one word is an id or a label. All of it if no column is text."""
    values = [value for key, value in row.items() if isinstance(value, str) and key != group]
    running = [" ".join(value.split()) for value in values if len(value.split()) > 1]
    return "\n".join(running or values) or json.dumps(row, sort_keys=True, ensure_ascii=False, default=str)
