"""What every command ends with: the results of a sweep and what is computed from them, written and printed."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from quantbench.core.errors import ConfigError, StoreError
from quantbench.report.collate import collate, collated, write, write_comparisons
from quantbench.report.comparisons import compared
from quantbench.report.costs import costs, write_costs
from quantbench.report.draw_means import draw_means, totals_of
from quantbench.report.evidence import Evidence
from quantbench.report.layers import layers, write_layers
from quantbench.report.legend import legend
from quantbench.report.modelled.columns import Modelled, with_modelled
from quantbench.report.page.write import NAME, try_report
from quantbench.report.render import console
from quantbench.report.scored import SweepScores
from quantbench.report.shown import DEFAULT_METRICS, default_metrics
from quantbench.report.tables import tables
from quantbench.report.variance import variance
from quantbench.report.variance_table import write_variance
from quantbench.report.writing import write_tables
from quantbench.store.json_record import SchemaError
from quantbench.store.manifest import Manifest
from quantbench.store.store import Store


def check_columns(store: Store, manifest: Manifest) -> None:
    """Raise ConfigError if the sweep's tables would have two texts or protocols in one column. Writes nothing."""
    try:
        tables(collate(store, [manifest]), DEFAULT_METRICS[0])
    except SchemaError:
        raise
    except StoreError as error:
        raise ConfigError(
            f"nothing was run: {error}. A column is a task: tests on different texts need different task names "
            "(options of your own in conf/calib/, with a task name each), or give all cells the same tests with eval="
        ) from error


def report(
    store: Store,
    manifests: Sequence[Manifest],
    *,
    page: bool = False,
    modelled: Modelled | None = None,
    margins: Mapping[str, float] | None = None,
) -> None:
    """Collate each sweep into its folder and print its tables; with `page` also write report.html.

    modelled  what the runs would cost on a machine: columns of results.csv
    margins   within which comparisons are said to be equivalent, by metric

    Raises StoreError for damaged results; what goes wrong with the page is logged.
    """
    for manifest in manifests:
        scores = SweepScores(store, manifest)
        frame = collated([scores])
        if modelled is not None:
            frame = with_modelled(frame, modelled.rows(scores.runs))
        write(store, manifest.name, frame)
        comparisons = compared([scores], margins)
        write_comparisons(store, manifest.name, comparisons)
        variances = variance([scores])
        write_variance(store, manifest.name, variances)
        write_costs(store, manifest.name, costs(store, [manifest]))
        write_layers(store, manifest.name, layers(store, [manifest]))
        names = legend(manifest)
        found = Evidence(comparisons, draw_means(frame, default_metrics(frame), totals_of(scores)))
        for table in write_tables(store, manifest.name, frame, legend=names, evidence=found):
            sys.stdout.write("\n" + console(table))
        if names:
            sys.stdout.write("\n" + "\n".join(names) + "\n")
        written = "results.csv, comparisons.csv, variance.csv, costs.csv, layers.csv, tables/"
        if page and try_report(scores, frame, comparisons, variances) is not None:
            written += f", {NAME}"
        sys.stdout.write(f"\nWritten to {store.sweep_dir(manifest.name)}: {written}\n")
