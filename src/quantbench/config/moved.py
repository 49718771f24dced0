"""Keys of the data sets of before, of which a source, its rows and a label were nodes of their own, and today's."""

from __future__ import annotations

import re

_WITHIN = r"(calib|eval\.tasks\.[^.=]+)\.(?:source|data)\.(?:(?:rows|data|source)\.)*(?:places\.\d+\.)?"

_KEYS = (
    (r"config=(.*)", r"\1.hub=ID:\2"),
    (r"splits\.(train|test)=(.*)", r"\1.\2=\3"),
    (r"splits=.*", r"\1.train=NAME and \1.test=NAME"),
    (r"data_files(.*)", r"\1.files\2"),
    (r"places=.*", r"\1.hub=[ID,...], or \1.files={train: ADDRESS, test: ADDRESS}"),
    (r"fields\b(.*)", r"\1.columns\2"),
    (r"columns=(\[.*)", r"\1.header=\2"),
    (r"label\.columns?=(.*)", r"\1.label=\2"),
    (r"label\.at=(.*)", r"\1.cuts=\2"),
    (r"label\.(?:map|drop|labels)\b.*", r"\1.labels={VALUE: TEXT}, where null leaves the rows of a value out"),
    (r"shots_from=(.*)", r"\1.shots=\2"),
    (r"render\.parts=.*", r'\1.text="{COLUMN}\\n\\n{COLUMN}"'),
    (r"render\.(?:column|prefixes)\b.*", r"\1.render=NAME, an entry of parts/render.yaml"),
)
_CHOICES = (
    (r"~calib\.natural\.(.*)", r"calib.tests=[NAME,...] without \1"),
    (r"task(?:/lm_eval)?@calib\.natural\.[^=]*=(.*)", r"calib.tests=[\1,...]"),
    (r"task/lm_eval@eval\.tasks\.[^=]*=(.*)", r"eval.names=[\1]"),
    (r"~eval\.tasks\.(.*)", r"eval.sets=[NAME,...] without \1"),
    (r"scoring@eval\.tasks\.[^=]*=(.*)", r"`scoring: \1` in the file of the set's family"),
    (r"calib\.sets\.([^.=]+)\..*", r"an option file of yours in place of \1, which calib.parts can name"),
)

KEYS_OF_BEFORE: tuple[tuple[re.Pattern[str], str], ...] = (
    *((re.compile(_WITHIN + old), today) for old, today in _KEYS),
    *((re.compile(old), today) for old, today in _CHOICES),
)
"""Overrides of before, and what is typed today."""
