"""Building components from plain configuration: every mistake is named, with what would be right."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

from quantbench.config.identity import identity, run_identity
from quantbench.core.build import build, option_names
from quantbench.core.errors import ConfigError, DataError, ModelError
from quantbench.core.hashing import digest, hash_path
from quantbench.core.origin import Origin
from quantbench.datasets.files import FileSource
from quantbench.datasets.text import TextSet
from quantbench.formats.base import Format
from quantbench.formats.int import IntFormat
from quantbench.models.loading import LocalModel
from quantbench.rounding.base import Rounding

SPEC: dict[str, Any] = {
    "_target_": "quantbench.formats.int.IntFormat",
    "bits": 4,
    "group_size": 64,
    "symmetric": False,
}


def test_a_component_is_built_with_its_defaults() -> None:
    built = build(SPEC, Format, "quantizer.weight")
    assert isinstance(built, IntFormat)
    assert (built.bits, built.range, built.scale_dtype) == (4, "minmax", "float16")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bit": 3}, r"quantizer\.weight\.bit: no such option\. Did you mean 'bits'\? Valid here: bits, block_rows"),
        ({"bits": 9}, r"quantizer\.weight\.bits=9: input should be less than or equal to 8"),
        ({"bits": "4"}, r"quantizer\.weight\.bits='4': input should be a valid integer"),
        ({"bits": True}, r"quantizer\.weight\.bits=True: input should be a valid integer"),
        ({"range": "mnimax"}, r"quantizer\.weight\.range='mnimax': input should be 'minmax' or 'mse'"),
        (
            {"group_size": -1},
            r"^quantizer\.weight\.group_size=-1: input should be .* equal to 1, or 'channel' or 'tensor'$",
        ),
        ({"group_size": [1]}, r"^quantizer\.weight\.group_size=\(1,\): [^_\[\]]*$"),
        ({"bits": 2**63}, r"quantizer\.weight\.bits=9223372036854775808: whole numbers go up to 9007199254740992"),
        ({"bits": float("inf")}, r"quantizer\.weight\.bits=inf: expected a finite number"),
        ({"symmetric": None}, r"quantizer\.weight\.symmetric=None: input should be true or false"),
        ({"symmetric": True}, r"quantizer\.weight: .*scale_convention"),
        ({"_target_": "quantbench.formats.int.NoFormat"}, r"quantizer\.weight\._target_: .* cannot be imported"),
        ({"_target_": "nowhere"}, r"quantizer\.weight\._target_: 'nowhere' cannot be imported"),
    ],
)
def test_a_mistake_names_key_value_and_what_would_be_right(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(SPEC | change, Format, "quantizer.weight")


def test_a_missing_option_is_named() -> None:
    with pytest.raises(ConfigError, match=r"quantizer\.weight\.bits: this option is required"):
        build({k: v for k, v in SPEC.items() if k != "bits"}, Format, "quantizer.weight")


def test_a_component_of_another_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"quantizer\.rounding: .*IntFormat is not a Rounding"):
        build(SPEC, Rounding, "quantizer.rounding")


def test_a_component_that_would_swallow_misspelt_options_is_refused() -> None:
    def careless(**options: int) -> None:
        del options

    with pytest.raises(ConfigError, match=r"takes \*\*kwargs"):
        option_names(careless, "quantizer")


def test_description_does_not_count_and_everything_else_does() -> None:
    plain = build(SPEC, IntFormat, "x")
    described = build(SPEC | {"about": {"paper": "any"}}, IntFormat, "x")
    assert digest(identity(plain)) == digest(identity(described))
    assert digest(identity(plain)) == digest(identity(build(SPEC | {"range": "minmax"}, IntFormat, "x")))
    assert digest(identity(plain)) != digest(identity(build(SPEC | {"bits": 3}, IntFormat, "x")))


def test_what_is_known_of_a_data_set_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    source = FileSource(path=tmp_path / "a.txt")
    one, other = (
        TextSet(source=source, origin=origin)
        for origin in (Origin(name="a", family="lm"), Origin(name="b", family="sa", language="zh", path="elsewhere"))
    )
    assert identity(one) == identity(other)
    assert identity(one) != identity(dataclasses.replace(one, joiner=" "))


def test_a_file_counts_by_its_content(tmp_path: Path) -> None:
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    first.write_text("same")
    second.write_text("same")
    assert identity(first) == identity(second)
    second.write_text("other")
    assert identity(first) != identity(second)
    with pytest.raises(ConfigError, match="no such file"):
        hash_path(tmp_path / "c.txt")


def outside(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> Any:
    """A component of a module outside the package, imported anew."""
    (folder / "outside_part.py").write_text(
        f"from quantbench.core.component import component\n@component\nclass Mine:\n    bits: int = 4\n{body}\n"
    )
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "outside_part", raising=False)
    importlib.invalidate_caches()
    return importlib.import_module("outside_part").Mine()


def test_a_class_from_outside_counts_by_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
    one, same, edited = (
        identity(outside(tmp_path / name, monkeypatch, body))
        for name, body in (("one", ""), ("two", ""), ("three", "    scale: float = 1.0"))
    )
    assert one == same
    assert one["_target_"] == edited["_target_"] == "outside_part.Mine"
    assert one["_source_"] != edited["_source_"]


def test_the_identity_of_a_shipped_part_is_its_import_path_and_options_alone() -> None:
    weight = build(SPEC, IntFormat, "x")
    options = {field.name: getattr(weight, field.name) for field in dataclasses.fields(weight)}
    null = [name for name, value in options.items() if value is None]
    assert null == ["scale_convention", "double_quantization"]  # what is null does not count
    options = {name: value for name, value in options.items() if name not in null}
    assert identity(weight) == {"_target_": "quantbench.formats.int.IntFormat", **options}


def test_a_wrong_model_folder_is_named_by_its_key_before_it_is_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "big.bin").write_bytes(b"0")
    monkeypatch.setattr("quantbench.config.identity.hash_path", lambda path: pytest.fail(f"hashed {path}"))
    model = LocalModel(name="local", path=tmp_path, dtype="float32")
    with pytest.raises(ModelError, match=r"model\.path=.*: no config\.json\. Give a folder that `save"):
        identity(model)
    with pytest.raises(ModelError, match=r"model\.path=.*big\.bin: not a folder"):
        identity(LocalModel(name="local", path=tmp_path / "big.bin", dtype="float32"))
    source = FileSource(path=tmp_path / "none.txt")
    with pytest.raises(DataError, match=r"data mine: path=.*none\.txt: no such file"):
        identity(TextSet(source=source, origin=Origin(name="mine", family="lm")))


def test_seeds_count_only_where_calibration_data_are_used() -> None:
    recipe = build(SPEC, IntFormat, "x")
    assert run_identity(1, recipe, None, 0, 0) == run_identity(1, recipe, None, 5, 2)
    assert run_identity(1, recipe, 3, 0, 0) != run_identity(1, recipe, 3, 5, 0)
    assert run_identity(1, recipe, 3, 0, 0) != run_identity(1, recipe, 3, 0, 1)
