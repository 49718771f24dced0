"""Cases for the command's edge: command lines, option files, texts, stored files and model folders, mostly damaged.

The number of cases is that of the environment variable QUANTBENCH_FUZZ, shared out among the kinds by what one costs; a
few by default, chosen by a fixed seed, so that every run of the tests tries the same.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

import inside
from inside import Ended

CASES = int(os.environ.get("QUANTBENCH_FUZZ", "0"))
SECONDS = 60
"""After which a command that has not ended counts as one that hangs."""

FOREIGN = "QUANTBENCH_TRACEBACK=1"
"""What the message for an error that is not ours ends with."""


def cases(few: int, share: float) -> settings:
    """Hypothesis's settings: `few` cases, the same every time; or this share of QUANTBENCH_FUZZ, others each time."""
    number = max(few, round(CASES * share)) if CASES else few
    ignored = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]
    return settings(
        max_examples=number, derandomize=not CASES, deadline=None, database=None, suppress_health_check=ignored
    )


def in_process(arguments: Sequence[str], folder: Path) -> Ended:
    """Run a command line in this process, in `folder`; one that hangs is an error."""
    with _no_longer_than(SECONDS):
        return inside.in_process(arguments, folder)


@contextlib.contextmanager
def _no_longer_than(seconds: int) -> Iterator[None]:
    def late(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt(f"it still runs after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


KEYS = [
    *("quantizer", "calib", "model", "eval", "scale", "cluster", "seed", "threads", "device", "save", "output_dir"),
    *("quantizer.weight.bits", "quantizer.weight.group_size", "quantizer.weight", "quantizer.rounding.damping"),
    *("quantizer.policy.keep", "quantizer.policy.rules.a", "quantizer.kv_cache.bits", "quantizer.transforms.awq"),
    *("calib.n", "calib.path", "calib.length", "calib.text", "calib.labels", "calib.parts.wiki", "calib.tests"),
    *("calib.joiner", "calib.sampler", "calib.family", "calib.columns.text", "calib.name", "calib.split"),
    *("eval.sets", "eval.names", "eval.suites", "eval.tasks.wiki.window", "eval.tasks.wiki", "eval.shots", "eval.seed"),
    *("eval.suffix", "eval.origin.domain", "eval.limit", "eval.include_path", "scale.window", "scale.windows"),
    *("cluster.extra", "cluster.minutes", "format@quantizer.weight", "+format@quantizer.weight", "~quantizer.clip"),
    *("hydra.verbose", "hydra.sweeper.params", "hydra/launcher", "+sweep", "sweep", "detach", "dry_run", "replicate"),
]
NAMES = [
    *("gptq", "rtn", "awq", "wiki", "local", "mix", "shuffled", "sst2", "squad", "mnli", "auto", "lm_eval", "smoke"),
    *("inprocess", "slurm", "int", "nvfp4", "demo", "piqa", "smollm2_135m_gguf", "none"),
]
AWKWARD = [
    *(
        "",
        "null",
        "true",
        "-1",
        "0",
        "1e400",
        "nan",
        "inf",
        "9223372036854775808",
        "1" * 5000,
        "0x10",
        "1_000",
        "'",
        '"',
    ),
    *(
        "[",
        "]",
        "{",
        "}",
        "[]",
        "{}",
        "[[]]",
        "{a: 1}",
        "[a,b]",
        "a,b",
        "choice(1,2)",
        "range(3)",
        "interval(0,1)",
        "~",
    ),
    *("${seed}", "${", "${nope}", "${oc.env:NOPE}", "${oc.env:HOME}", "${.x}", "???", "é", "日本", "\\", "a=b", "a b"),
    *("${quantizer}", "glob(*)", "glob(*,exclude=a*)", "sort(3,1)", "'a''b'", "\u202e", "a\tb", "a\nb", "@", "*", "%s"),
    *("{" * 200, "[" * 200, "${" * 50, "a" * 5000, "../x", "/", "/dev/null", "~/x", "~nobody/x", "{x: ${seed}}"),
]

values = st.one_of(
    st.sampled_from(NAMES),
    st.sampled_from(AWKWARD),
    st.integers().map(str),
    st.floats().map(str),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12),
    st.lists(st.sampled_from([*NAMES, *AWKWARD[:20]]), min_size=2, max_size=3).map(",".join),
)
overrides = st.one_of(
    st.builds("{}={}".format, st.sampled_from(KEYS), values),
    st.builds("{}{}={}".format, st.sampled_from(["", "+", "++", "~"]), st.sampled_from(KEYS), values),
    st.builds("~{}".format, st.sampled_from(KEYS)),
    st.builds("{}.{}={}".format, st.sampled_from(KEYS), st.sampled_from(["x", "a.b", "0", "", ".", "é"]), values),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=10),
)
flags = st.sampled_from(
    ["-m", "--multirun", "--cfg", "--cfg=job", "--info", "--resolve", "-p", "--package=x", "--config-name=nope", "--x"]
)
commands = st.one_of(
    st.lists(overrides, max_size=4),
    st.lists(overrides, max_size=4).map(lambda line: ["-m", *line]),
    st.lists(st.one_of(overrides, flags), max_size=5),
    st.builds(
        lambda name, rest: [name, *rest],
        st.sampled_from(["list", "show", "collate", "status", "logs", "compare", "cancel", "retry"]),
        st.lists(st.one_of(values, st.sampled_from(["--all", "--json", "--metric", "--against", "--csv"])), max_size=3),
    ),
)
"""Command lines that need no network and compute nothing."""

plain = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.sampled_from(AWKWARD)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(st.text(max_size=6), st.sampled_from([key.rpartition(".")[2] for key in KEYS])), inner
        ),
    ),
    max_leaves=8,
)


def damaged(content: bytes) -> st.SearchStrategy[bytes]:
    """A file's bytes, cut, with others put in, or with one of its JSON's values replaced."""
    place = st.integers(0, max(0, len(content) - 1))
    tried = [
        place.map(lambda at: content[:at]),
        st.builds(
            lambda at, put: content[:at] + put + content[at + len(put) :], place, st.binary(min_size=1, max_size=4)
        ),
        st.builds(lambda at, put: content[:at] + put + content[at:], place, st.binary(min_size=1, max_size=40)),
        st.builds(lambda at, size: content[:at] + content[at + size :], place, st.integers(1, 200)),
        st.sampled_from(
            [b"", b"null", b"[]", b"{}", b"[" * 5000, b"\xff\xfe\x00", b"\0" * 100, b"1" * 5000, b'"\\ud800"']
        ),
        st.binary(max_size=60),
    ]
    try:
        data = json.loads(content)
    except ValueError:
        return st.one_of(tried)
    paths = list(_paths(data))
    tried.append(st.builds(lambda path, put: _replaced(data, path, put), st.sampled_from(paths), plain))
    return st.one_of(tried)


def _paths(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    inner = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in inner:
        yield from _paths(value, (*path, key))


def _replaced(data: Any, path: tuple[Any, ...], put: Any) -> bytes:
    if not path:
        return json.dumps(put).encode()
    copy = json.loads(json.dumps(data))
    place = copy
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = put
    return json.dumps(copy).encode()
