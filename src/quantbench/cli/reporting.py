"""`quantbench report`: one page on sweeps, and its figures. Returns its exit status."""

from __future__ import annotations

import sys

from quantbench.cli.modelling import add_load, modelled_of
from quantbench.cli.parser import add_bound, add_margin, bound_of, subcommand, tests_of
from quantbench.core.errors import ConfigError
from quantbench.core.paths import local_path

EXAMPLES = """\
  quantbench report demo                                   outputs/sweeps/demo/report.html: open it in a browser
  quantbench report demo --margin kl=0.01                  what is equivalent within 0.01 nats is said to be
  quantbench report demo --hardware a100_80gb              loss against modelled time and bytes, too
  quantbench report demo --below 0.1 --on news_sample      the first finding: the cheapest recipe within it, or none
  quantbench report demo --figures figures --format pdf    every figure as a file of its own, with its data as CSV
"""


def report(arguments: list[str]) -> int:
    """`quantbench report SWEEP ...`: findings, figures, numbers and commands in one HTML file."""
    parser = subcommand(
        "report", "One HTML file on sweeps: what was found, figures, numbers, and the command of each run.", EXAMPLES
    )
    parser.add_argument("sweeps", nargs="+", metavar="SWEEP")
    parser.add_argument("--output", type=local_path, metavar="FILE", help="default: report.html in the sweep's folder")
    parser.add_argument("--x", default="bits", metavar="COST", help="with a bound: as for `quantbench pareto`")
    add_bound(parser)
    add_margin(parser)
    parser.add_argument("--figures", type=local_path, metavar="DIR", help="write the figures there, too")
    parser.add_argument("--format", default="svg", metavar="LIST", help="of svg,png,pdf (default: %(default)s)")
    add_load(parser)
    given = parser.parse_args(arguments)
    bound, tests = bound_of(given), tests_of(given)
    if bound is None and (tests or given.y or given.x != "bits"):
        raise ConfigError("--x, --y and --on are about a bound, which is missing: --below NUMBER or --above NUMBER")
    from quantbench.launch.overview import refreshed
    from quantbench.report.axes import axis_of
    from quantbench.report.decide import Wish
    from quantbench.report.margins import margins_of
    from quantbench.report.page.drawing import formats
    from quantbench.report.page.write import write_all_figures, write_report
    from quantbench.store.store import Store

    axis = axis_of(given.x)
    if axis.needs_hardware and given.hardware is None:
        raise ConfigError(
            f"--x {axis.name}: it is modelled; name a machine: --hardware NAME (quantbench list hardware)"
        )
    wish = None if bound is None else Wish(axis, bound, given.y, tests, above=given.above is not None)
    suffixes = formats(given.format)
    store = Store(given.output_dir)
    loaded = [store.load_manifest(store.find_sweep(name)) for name in given.sweeps]
    manifests = [refreshed(manifest, store) for manifest in loaded if manifest is not None]
    modelled = modelled_of(given, manifests, shapes=axis.modelled)
    path, content = write_report(store, manifests, margins_of(given.margin), given.output, modelled, wish)
    sys.stdout.write(f"{path}\n")
    if given.figures is not None:
        written = write_all_figures(content, given.figures, suffixes)
        sys.stdout.write(f"{given.figures}: {len(written)} files\n")
    return 0
