"""Section on calibration: whether the models' confidence matches their accuracy."""

from collections.abc import Sequence
from functools import partial

import pandas as pd

from torch_linguist.analysis.analysis_figures import draw_reliability
from torch_linguist.analysis.analysis_settings import AnalysisSettings
from torch_linguist.analysis.analyzed_run import AnalyzedRun
from torch_linguist.evaluation.calibration import BINS, collect_predictions, reliability
from torch_linguist.report.page_parts import PageFigure, PageTable, Section


def calibration(runs: Sequence[AnalyzedRun], settings: AnalysisSettings) -> Section:
    """Make the section on the calibration of the runs."""
    rows, tables, findings = [], {}, []
    for run in runs:
        found = collect_predictions(run.model, run.stream, settings.predictions, settings.seed)
        summary = found.summary()
        rows.append({"run": run.label, **summary})
        tables[run.label] = reliability(found.confidence, found.correct)
        findings.append(
            f"The first choice of {run.label} is right {summary['accuracy']:.1%} of the time, at a mean confidence of "
            f"{summary['mean confidence']:.1%} (calibration error {summary['ECE']:.1%})."
        )
    sizes = ", ".join(f"{row['predictions']:,} of {row['run']}" for row in rows)
    notes = [
        f"Sample: {sizes}, from stretches of {runs[0].split} (seed {settings.seed}). A loss above the mean entropy "
        "means that a model is overconfident. ECE: expected calibration error, |accuracy − confidence| over "
        f"{BINS} bins of equal width, weighted by their predictions (Naeini et al. 2015)."
    ]
    figure = PageFigure(
        "reliability",
        "Reliability of the first choice",
        f"{BINS} bins of equal width; bars are 95% intervals of the accuracy. Below: predictions per bin.",
        partial(draw_reliability, tables=tables),
    )
    shares = ("accuracy", "in the first 5", "in the first 10", "mean confidence", "ECE", "ECE, bins of equal size")
    joined = pd.concat([table.assign(run=label) for label, table in tables.items()], ignore_index=True)
    written = [
        PageTable("calibration", "Calibration", pd.DataFrame(rows), shares=shares),
        PageTable("reliability", "Reliability", joined, rows=0),
    ]
    return Section("calibration", "Calibration", [], [figure], written, findings=findings, notes=notes)
