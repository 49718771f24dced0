"""`quantbench compare`: recipes side by side, against one of them, or two runs. Returns its exit status."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from quantbench.cli.parser import add_margin, subcommand
from quantbench.core.errors import StoreError
from quantbench.core.paths import local_path

if TYPE_CHECKING:
    from quantbench.store.manifest import Manifest
    from quantbench.store.store import Store

EXAMPLES = """\
X is a recipe (rtn), a calibration set (calib=wiki), a variant in one argument ('gptq quantizer.weight.bits=4'),
or the first characters of a run's id.

  quantbench compare demo                          all recipes side by side, with what they cost
  quantbench compare demo --against rtn            each recipe against rtn on the same calibration text
  quantbench compare demo --against calib=wiki     what is lost or gained by calibrating on another text than wiki
  quantbench compare demo --against rtn --margin kl=0.01
  quantbench compare 8e68 395a                     two runs: what differs, their scores, a paired test
"""


def compare(arguments: list[str]) -> int:
    """`quantbench compare SWEEP ... [--against X]` and `quantbench compare RUN RUN`."""
    parser = subcommand(
        "compare", "Recipes of sweeps side by side, or each of them against one; or two runs.", EXAMPLES
    )
    parser.add_argument("names", nargs="*", metavar="SWEEP", help="sweeps; or two runs, by the first characters of ids")
    parser.add_argument("--metric", action="append", help="may be repeated (default: those that have a table)")
    parser.add_argument("--against", metavar="X", help="test each recipe against X")
    add_margin(parser)
    parser.add_argument("--markdown", type=local_path, metavar="FILE", help="write it there, too")
    parser.add_argument("--csv", type=local_path, metavar="FILE", help="write the numbers there, too")
    given = parser.parse_args(arguments)
    from quantbench.core.files import write_text
    from quantbench.report.compare.page import as_csv, as_markdown, as_text
    from quantbench.report.compare.pages import against_page, overview_page, runs_page
    from quantbench.store.store import Store

    store = Store(given.output_dir)
    today = datetime.now(UTC).date().isoformat()
    runs = None if given.against is not None else _two_runs(store, given.names)
    if runs is not None:
        page = runs_page(store, *runs, given.metric, given.margin, today)
    else:
        manifests = _manifests(store, given.names)
        if given.against is None and given.margin:
            raise StoreError("--margin says what is equivalent to something: give --against X, or two runs, as well")
        page = (
            overview_page(store, manifests, given.metric, today)
            if given.against is None
            else against_page(store, manifests, given.against, given.metric, given.margin, today)
        )
    for path, text in ((given.markdown, as_markdown(page)), (given.csv, as_csv(page))):
        if path is not None:
            write_text(path, text)
    sys.stdout.write(as_text(page))
    return 0


def _two_runs(store: Store, names: list[str]) -> tuple[str, str] | None:
    """The ids of two runs, if that is what two names mean; a sweep's name goes before."""
    from quantbench.report.compare.two_runs import find_run

    sweeps, runs = store.sweep_names(), store.run_ids()
    are_runs = [
        any(one.startswith(name) for one in runs) and not any(one.startswith(name) for one in sweeps) for name in names
    ]
    if len(names) != 2 or not any(are_runs):
        return None
    if not all(are_runs):
        raise StoreError(
            f"compare {' '.join(names)}: one is a run and the other none. Name sweeps, or two runs; a run beside those "
            "of a sweep: quantbench compare SWEEP --against RUN"
        )
    return find_run(store, names[0]), find_run(store, names[1])


def _manifests(store: Store, names: list[str]) -> list[Manifest]:
    from quantbench.launch.overview import refreshed

    if not names:
        known = ", ".join(store.sweep_names()) or "none"
        raise StoreError(f"compare: name a sweep, or two runs. Sweeps in {store.root}: {known}")
    try:
        loaded = [store.load_manifest(store.find_sweep(name)) for name in names]
    except StoreError as error:
        raise StoreError(f"compare {error}") from error
    return [refreshed(manifest, store) for manifest in loaded if manifest is not None]
