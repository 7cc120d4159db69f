"""The sections on the embeddings and on the calibration."""

from collections.abc import Sequence
from functools import partial

import pandas as pd

from torch_linguist.analysis.analysis_figures import draw_map, draw_reliability
from torch_linguist.analysis.analysis_settings import AnalysisSettings
from torch_linguist.analysis.analyzed_run import AnalyzedRun
from torch_linguist.errors import LinguistError
from torch_linguist.evaluation.calibration import BINS, predictions, reliability
from torch_linguist.evaluation.embeddings import LEAST_COUNT, WordVectors, has_sklearn
from torch_linguist.explore.texts import file_name
from torch_linguist.report.page_parts import PageFigure, PageTable, Section

QUERIES = 16
"""Words whose neighbors are shown."""


def embeddings(runs: Sequence[AnalyzedRun], settings: AnalysisSettings) -> Section:
    """Neighbors, analogies and the map, for the runs that have embeddings."""
    text = [
        f"Of words that occur {LEAST_COUNT} times and more in train, by cosine; the mean of their embeddings is taken "
        "away first."
    ]
    figures: list[PageFigure] = []
    tables: list[PageTable] = []
    for run in runs:
        of = f", {run.label}" if len(runs) > 1 else ""
        suffix = f"_{file_name(run.label)}" if of else ""
        if run.model.input_embedding is None:
            text.append(f"{run.label}: {run.family} has no embeddings.")
            continue
        try:
            vectors = WordVectors(run.model, run.tokenizer, run.counts)
        except LinguistError as error:
            text.append(f"{run.label}: {error}.")
            continue
        tables.append(_neighbors(vectors, suffix, of))
        analogies = vectors.analogies()
        if len(analogies):
            tables.append(_analogy_table(analogies, suffix, of))
        else:
            text.append(f"{run.label}: the vocabulary has no four words of any analogy.")
        if has_sklearn():
            figures += [_map(vectors, settings, suffix, of, tables)]
        else:
            text.append('The map needs scikit-learn: pip install "torch-linguist[analyze]".')
    return Section("embeddings", "Embeddings", text, figures, tables)


def _neighbors(vectors: WordVectors, suffix: str, of: str) -> PageTable:
    found = vectors.neighbors(vectors.typical_words(QUERIES))
    found["shown"] = found["neighbor"] + " " + found["cosine"].map("{:.2f}".format)
    wide = found.groupby(["word", "occurrences"], sort=False)["shown"].agg(", ".join).reset_index(name="neighbors")
    caption = "The most frequent words that carry a meaning; beside each neighbor the cosine."
    return PageTable(f"neighbors{suffix}", f"Nearest neighbors{of}", wide, caption, rows=QUERIES)


def _analogy_table(found: pd.DataFrame, suffix: str, of: str) -> PageTable:
    right, ten = float((found["rank"] == 1).mean()), float((found["rank"] <= 10).mean())
    caption = (
        f"a is to b as c is to …: {right:.1%} of {len(found):,} right, {ten:.1%} among the first ten. Pairs of the "
        "relation whose words are all there."
    )
    best = found.sort_values("rank", kind="stable")
    return PageTable(f"analogies{suffix}", f"Analogies{of}", best, caption, rows=12)


def _map(vectors: WordVectors, settings: AnalysisSettings, suffix: str, of: str, tables: list[PageTable]) -> PageFigure:
    plane = vectors.map(settings.map_words, settings.seed)
    tables.append(PageTable(f"map{suffix}", "Map", plane, rows=0))
    return PageFigure(
        f"map{suffix}",
        f"The {len(plane)} most frequent words{of}",
        f"By t-SNE (cosine, seed {settings.seed}): neighbors stay neighbors, distances between clusters mean little; "
        "labels that would cover others are left out. "
        f"Two principal components, also in the table, hold {plane.attrs['explained']:.0%} of the variance.",
        partial(draw_map, table=plane),
    )


def calibration(runs: Sequence[AnalyzedRun], settings: AnalysisSettings) -> Section:
    """Whether the models' confidence can be believed."""
    rows, tables, together = [], {}, []
    for run in runs:
        found = predictions(run.model, run.stream, settings.predictions, settings.seed)
        rows.append({"run": run.label, **found.facts()})
        tables[run.label] = reliability(found.confidence, found.correct)
        together.append(tables[run.label].assign(run=run.label))
    sizes = ", ".join(f"{row['predictions']:,} of {row['run']}" for row in rows)
    text = [
        f"From {sizes}: stretches of {runs[0].split} drawn with seed {settings.seed}. Entropy and loss agree where "
        "a model knows how much it does not know; a loss above the entropy means that it is too sure."
    ]
    drawing = PageFigure(
        "reliability",
        "Reliability of the first choice",
        f"{BINS} bins as wide as each other; bars are 95% intervals of the accuracy. Below: how many predictions.",
        partial(draw_reliability, tables=tables),
    )
    caption = (
        f"ECE: expected calibration error, |accuracy − confidence| over {BINS} bins of equal width, weighted by their "
        "predictions (Naeini et al. 2015)."
    )
    shares = ("accuracy", "in the first 5", "in the first 10", "mean confidence", "ECE", "ECE, bins of equal size")
    written = [
        PageTable("calibration", "Calibration", pd.DataFrame(rows), caption, shares=shares),
        PageTable("reliability", "Reliability", pd.concat(together, ignore_index=True), rows=0),
    ]
    return Section("calibration", "Calibration", text, [drawing], written)
