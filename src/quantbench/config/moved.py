"""Overrides of before, and what is typed today: a source, its rows and a label were nodes of their own."""

from __future__ import annotations

import re

_ROWS = r"(?:(?:rows|data|source)\.)*"
_WITHIN = rf"(calib|eval\.tasks\.[^.=]+)\.(?:source|data)\.{_ROWS}(?:places\.\d+\.)?"

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
_OTHERS = (
    (r"sweep=s1_(\w+_\d?b)(_activations)?", r"+sweep=s1\2 model=\1"),
    (r"sampler@calib\.sampler=(.*)", r"calib.sampler=\1"),
    (r"render@calib\.source\.render=(.*)", r"calib.render=\1"),
    (r"template@calib\.source\.template=(.*)", r"calib.template=\1"),
    (r"template@(eval\.tasks\.[^.=]+)\.template=(.*)", r"\1.template=\2"),
    (r"text@calib\.source=(.*)", r"calib=\1 (or calib.of=\1 where calib=shuffled)"),
    (r"rows@calib\.source\.data=(.*)", r"calib=\1"),
    (r"calib@calib\.sets\.[^=]*=(.*)", r"calib.parts.\1=WEIGHT alone: every data set can be a part"),
    (r"task@eval\.tasks\.[^=]*=lm_eval/(.*)", r"eval.names=[\1]"),
    (r"(?:task|text|rows)@eval\.tasks\.[^=]*=(.*)", r"eval.sets=[\1]"),
    (r"calib\.natural\b.*", "calib.tests=[NAME,...]"),
    (r"calib\.source\.column=(.*)", r"calib.text=\1"),
    (r"calib\.source\.labels=(.*)", r"calib.with_answers=\1"),
    (rf"calib\.source\.{_ROWS}about\.(.*)", r"calib.\1"),
    (rf"calib\.source\.{_ROWS}(train|test)_on=(.*)", r"calib.\1=\2"),
    (rf"calib\.source\.{_ROWS}(.*)", r"calib.\1"),
    (r"(eval\.tasks\.[^.=]+)\.source\.column=(.*)", r"\1.text=\2"),
    (rf"(eval\.tasks\.[^.=]+)\.(?:source|data)\.{_ROWS}(.*)", r"\1.\2"),
    (r"(eval\.tasks\.[^.=]+)\.calibrate=none", r"\1.contextual_calibration=false"),
    (r"(eval\.tasks\.[^.=]+)\.calibrate=content_free", r"\1.contextual_calibration=true"),
    (r"eval\.about\.(.*)", r"eval.origin.\1"),
    (r"(.*\.)second_level\b(.*)", r"\1double_quantization\2"),
    (r"quantizer\.rounding\.epochs=.*", "quantizer.rounding.steps=N, minibatches: passes x sequences / rounding.batch"),
    (r"(format@.*)\bint_two_level\b(.*)", r"\1int_double_quantization\2"),
    (r"format@(.*)=int4_channel", r"format@\1=int8_channel \1.bits=4"),
    (r"activation@(.*)=int4_token", r"+activation@\1=int8_token \1.bits=4"),
    (r"(.*\.)act_order=true", r"\1order=activation"),
    (r"(.*\.)act_order=false", r"\1order=natural"),
    (r"(rounding@.*)\bslim\b(.*)", r"\1slim_llm\2"),
)

OVERRIDES_OF_BEFORE: tuple[tuple[re.Pattern[str], str], ...] = (
    *((re.compile(_WITHIN + old), today) for old, today in _KEYS),
    *((re.compile(old), today) for old, today in (*_CHOICES, *_OTHERS)),
)
"""What an override of before matches in full, and what is typed today; the first that matches counts."""

OVERRIDES_OF_BEFORE_BESIDE: tuple[tuple[re.Pattern[str], re.Pattern[str], str], ...] = (
    (
        re.compile(r"(?!.*\bhqq\b).*(?:quantizer|@quantizer\.rounding)=\S*\bsignround\b"),  # hqq has iterations still
        re.compile(r"quantizer\.rounding\.iterations=(.*)"),
        r"quantizer.rounding.steps=\1",
    ),
)
"""The same for overrides that are of before only on a command line, whole, in which the first pattern is found."""
