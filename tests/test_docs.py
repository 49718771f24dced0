"""The pages in docs/ say what the code does: their examples run, and the columns they list are those of the file."""

from __future__ import annotations

import dataclasses
import importlib
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir

from helpers_math import correlated_inputs, random, stats_of
from quantbench.calibration.calibration import Calibration
from quantbench.cli.listing import markdown_table, options
from quantbench.core.build import build
from quantbench.config.compose import config_dir, resolved
from quantbench.config.mixing import CALIB_NODES
from quantbench.core.input_stats import output_error
from quantbench.formats.base import Format
from quantbench.formats.int import IntFormat
from quantbench.formats.quantize import quantize
from quantbench.models.handle import ModelHandle
from quantbench.pipeline.artifact import Artifact
from quantbench.pipeline.policy import Policy
from quantbench.pipeline.recipe import Recipe
from quantbench.pipeline.walker import quantize_model
from quantbench.report.columns import RESULT_COLUMNS
from quantbench.rounding.base import Rounding
from quantbench.transforms.base import ScaleTransform
from tiny import tiny_llama, tiny_tokenizer

DOCS = Path(__file__).parents[1] / "docs"
PACKAGE = "mylab"

_FILE = re.compile(r"^```\w+ file=(\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ROW = re.compile(r"^\| `(\w+)` \| (\w+) \| (.*) \|$", re.MULTILINE)
_LINK = re.compile(r"\]\((?!https?:)([^)#]+)")


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the files of the worked examples, from which Python can import."""
    folder = tmp_path_factory.mktemp("examples")
    for name, text in _FILE.findall((DOCS / "add_a_quantizer.md").read_text()):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))
    for module in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[module]


def recipe_of(examples: Path, name: str) -> Recipe:
    """A recipe composed as the command composes it with --config-dir."""
    search = f"hydra.searchpath=[file://{examples / PACKAGE / 'conf'}]"
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("config", [search, f"quantizer={name}"])
    return build(resolved(config)["quantizer"], Recipe, "quantizer")


@pytest.mark.parametrize("name", ["coordinate", "rms_scale", "fp4"])
def test_example_quantizes_a_model_that_is_stored_and_reloaded_exactly(examples: Path, name: str) -> None:
    recipe = recipe_of(examples, name)
    handle = ModelHandle(tiny_llama(), tiny_tokenizer(), "random")
    tokens = torch.randint(2, 250, (2, 32), generator=torch.Generator().manual_seed(0))
    artifact = quantize_model(handle, recipe, tokens, torch.device("cpu"), lambda _done, _all: None).artifact
    assert len(artifact.weights) == 14
    assert bool(artifact.changed) == (name == "rms_scale")
    again = Artifact.from_tensors(*artifact.to_tensors())
    assert again.fingerprint() == artifact.fingerprint()
    for layer, weight in artifact.weights.items():
        assert torch.equal(again.weights[layer].dequantize(), weight.dequantize())


def test_every_recipe_of_the_page_is_tried(examples: Path) -> None:
    names = {path.stem for path in (examples / PACKAGE / "conf" / "quantizer").glob("*.yaml")}
    assert names == {"coordinate", "rms_scale", "fp4"}


def test_rounding_example_never_does_worse_than_nearest(examples: Path) -> None:
    rounding = recipe_of(examples, "coordinate").rounding
    assert isinstance(rounding, Rounding)
    stats = stats_of(correlated_inputs(200, 24, seed=1))
    assert stats.hessian is not None
    weight = random(6, 24, seed=2)
    int3 = IntFormat(bits=3, group_size=16, symmetric=False)
    before = weight.clone()
    losses = [
        output_error(rounded.dequantize() - weight, stats.hessian)
        for rounded in (quantize(weight, int3), rounding.round(weight, stats, int3).weight)
    ]
    assert losses[1] < losses[0]
    assert torch.equal(weight, before)


def test_transform_example_survives_an_input_that_was_always_zero(examples: Path) -> None:
    (transform,) = recipe_of(examples, "rms_scale").transforms.values()
    assert isinstance(transform, ScaleTransform)
    x = correlated_inputs(50, 8, seed=3)
    x[:, 2] = 0
    scale = transform.scale([random(4, 8, seed=4)], stats_of(x), None)
    assert scale.shape == (8,)
    assert bool((scale > 0).all() & scale.isfinite().all())


def test_format_example_takes_the_nearest_of_its_values(examples: Path) -> None:
    fp4 = recipe_of(examples, "fp4").weight
    assert isinstance(fp4, Format)
    weight = torch.cat([random(3, 40, seed=5), torch.zeros(3, 8)], dim=1)
    rounded = quantize(weight, fp4)
    index = torch.arange(48) // 32
    levels = torch.tensor([0.0, 0.5, 1, 1.5, 2, 3, 4, 6])
    grid = torch.cat([levels, -levels]) * rounded.params.scale[:, index][..., None]
    nearest = (grid - weight[..., None]).abs().amin(dim=-1)
    torch.testing.assert_close((rounded.dequantize() - weight).abs(), nearest)
    assert rounded.bits_per_weight() == 4 + 16 * 2 / 48
    with pytest.raises(ValueError, match="NaN or infinity"):
        fp4.params(torch.full((2, 32), torch.nan))


def test_the_test_of_the_page_passes(examples: Path) -> None:
    module: Any = importlib.import_module(f"{PACKAGE}.test_coordinate")
    module.test_coordinate_descent_beats_rounding_to_nearest()


def test_every_option_of_a_recipe_is_in_its_table() -> None:
    _, _, table = (DOCS / "add_a_quantizer.md").read_text().partition("## Options of a recipe")
    listed = re.findall(
        r"`([\w.]+)`", "\n".join(row.split("|")[1] for row in table.splitlines() if row.startswith("|"))
    )
    own = [f.name for f in dataclasses.fields(Recipe) if f.name not in {"policy", "about"}]
    assert sorted(listed) == sorted([*own, *(f"policy.{f.name}" for f in dataclasses.fields(Policy))])


def test_results_page_lists_exactly_the_columns() -> None:
    rows = _ROW.findall((DOCS / "results.md").read_text())
    assert rows == [(name, column.dtype, column.description) for name, column in RESULT_COLUMNS.items()]


@pytest.mark.parametrize("page", [*sorted(DOCS.glob("*.md")), *sorted(DOCS.parent.glob("*.md"))], ids=lambda p: p.name)
def test_links_lead_to_files(page: Path) -> None:
    missing = [link for link in _LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert not missing


def test_the_page_of_data_sets_has_the_table_of_the_options() -> None:
    page = (DOCS / "datasets.md").read_text()
    table = page.partition("<!-- table: python -m quantbench.cli.listing -->\n")[2].partition("<!-- end of table -->")[
        0
    ]
    assert table.splitlines() == markdown_table([config_dir()])
    rows = [row for row in table.splitlines()[2:] if "a file or folder of yours" not in row]
    assert len(rows) >= 45


@pytest.mark.parametrize("group", ["calib", "task", "text", "rows"])
def test_every_option_of_data_stands_on_the_page(group: str) -> None:
    page = (DOCS / "datasets.md").read_text()
    missing = [
        p.stem for p in options([config_dir()], group) if f"`{p.stem}`" not in page and f"calib={p.stem}`" not in page
    ]
    assert not missing


def test_commands_of_the_page_of_data_sets_compose() -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```$", (DOCS / "datasets.md").read_text(), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    assert len(lines) == 2
    for line in lines:
        overrides = shlex.split(line)[3:]
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            config = resolved(compose("config", overrides))
        node = {k: v for k, v in config["calib"].items() if k not in CALIB_NODES}
        assert build(node, Calibration, "calib").source.name in {"ceval_hm", "skypile"}
