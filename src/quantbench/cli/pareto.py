"""`quantbench pareto`: which recipes are worth their bits, bytes or time, and the cheapest within a bound."""

from __future__ import annotations

import argparse
import sys
import textwrap

from quantbench.cli.modelling import add_load, modelled_of
from quantbench.cli.parser import add_bound, add_margin, bound_of, subcommand, tests_of
from quantbench.core.errors import ConfigError
from quantbench.core.paths import local_path

EXAMPLES = """\
  quantbench pareto demo                                       bits against loss, on every test text
  quantbench pareto demo --below 0.1 --on wiki_sample,news_sample
                                                               and the cheapest recipe of a KL divergence below 0.1
  quantbench pareto demo --x modelled_decode_ms --hardware a100_80gb --figure front.svg
  quantbench pareto demo --y accuracy --above 0.6
"""


def pareto(arguments: list[str]) -> int:
    """`quantbench pareto SWEEP ... [--x X] [--y METRIC] [--on TEXTS] [--below NUMBER]`."""
    given = _parser().parse_args(arguments)
    from quantbench.report.axes import axis_of
    from quantbench.report.margins import margins_of

    axis, bound = axis_of(given.x), bound_of(given)
    if axis.needs_hardware and given.hardware is None:
        raise ConfigError(
            f"--x {axis.name}: it is modelled; name a machine: --hardware NAME (quantbench list hardware)"
        )
    from quantbench.launch.overview import refreshed
    from quantbench.report.decide import decided
    from quantbench.report.page.drawing import write_figures
    from quantbench.report.page.gather import gathered
    from quantbench.report.render import WIDTH, console, csv_table, markdown
    from quantbench.report.scored import SweepScores
    from quantbench.store.store import Store

    suffixes = [] if given.figure is None else [suffix_of(given.figure)]
    store = Store(given.output_dir)
    loaded = [store.load_manifest(store.find_sweep(name)) for name in given.sweeps]
    manifests = [refreshed(manifest, store) for manifest in loaded if manifest is not None]
    modelled = modelled_of(given, manifests, shapes=axis.modelled)
    sweeps = [SweepScores(store, manifest) for manifest in manifests]
    content = gathered(sweeps, margins_of(given.margin), modelled)
    found = decided(sweeps, content, axis, given.y, tests_of(given), bound, above=given.above is not None)
    from quantbench.core.files import write_text

    for path, render in ((given.markdown, markdown), (given.csv, csv_table)):
        if path is not None:
            write_text(path, "\n".join(render(table) for table in found.tables))
    if given.figure is not None:
        write_figures(given.figure.parent, found.figures_named(given.figure.stem), suffixes)
    if modelled is not None and modelled.machine is not None:
        sys.stdout.write(f"Modelled on {modelled.words}: no measurement (docs/roofline.md).\n\n")
    sys.stdout.write("".join(f"{textwrap.fill(one, WIDTH)}\n\n" for one in found.notes))
    sys.stdout.write("\n".join(console(table) for table in found.tables))
    sys.stdout.write("".join(f"\n{textwrap.fill(one, WIDTH)}\n" for one in found.sentences))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = subcommand("pareto", "Cost against loss: the front, and the cheapest recipe within a bound.", EXAMPLES)
    parser.add_argument("sweeps", nargs="+", metavar="SWEEP")
    parser.add_argument(
        "--x",
        default="bits",
        metavar="COST",
        help="bits, bytes, modelled_decode_ms, modelled_prefill_ms, measured_decode_ms or measured_prefill_ms "
        "(default: %(default)s)",
    )
    add_bound(parser)
    add_margin(parser)
    parser.add_argument(
        "--figure", type=local_path, metavar="FILE", help=".svg, .png or .pdf; its data beside it as .csv"
    )
    parser.add_argument("--markdown", type=local_path, metavar="FILE", help="write the tables there, too")
    parser.add_argument("--csv", type=local_path, metavar="FILE", help="write the tables there, too")
    add_load(parser)
    return parser


def suffix_of(path: object) -> str:
    """The format of a figure, by the end of its name. Raises ConfigError for one that there is not."""
    from quantbench.report.page.drawing import formats

    suffix = str(path).rpartition(".")[2] if "." in str(path).rpartition("/")[2] else ""
    if not suffix:
        raise ConfigError(f"--figure {path}: end its name in .svg, .png or .pdf")
    return formats(suffix)[0]
