"""Section on the embeddings: nearest neighbors, analogies, and a map."""

from collections.abc import Sequence
from functools import partial

import pandas as pd

from torch_linguist.analysis.analysis_figures import draw_map
from torch_linguist.analysis.analysis_settings import AnalysisSettings
from torch_linguist.analysis.analyzed_run import AnalyzedRun
from torch_linguist.errors import LinguistError
from torch_linguist.evaluation.interpretation.embeddings import LEAST_COUNT, WordVectors, has_sklearn
from torch_linguist.report.page_parts import PageFigure, PageTable, Section

QUERIES = 16
"""Words whose neighbors are shown."""


def embeddings(runs: Sequence[AnalyzedRun], settings: AnalysisSettings) -> Section:
    """Make the section with neighbors, analogies and map of the runs that have embeddings."""
    section = Section("embeddings", "Embeddings")
    section.notes.append(
        f"Words that occur at least {LEAST_COUNT} times in train, compared by cosine after the mean embedding has been "
        "subtracted."
    )
    for run in runs:
        of, suffix = (f", {run.label}", f"_{run.label}") if len(runs) > 1 else ("", "")
        if run.model.input_embedding is None:
            section.text.append(f"{run.label}: {run.family} has no embeddings.")
            continue
        try:
            vectors = WordVectors(run.model, run.tokenizer, run.counts)
        except LinguistError as error:
            section.text.append(f"{run.label}: {error}.")
            continue
        section.tables.append(_neighbors(vectors, suffix, of))
        analogies = vectors.analogies()
        if len(analogies):
            section.tables.append(_analogy_table(analogies, suffix, of))
        else:
            section.text.append(f"{run.label}: the vocabulary does not contain the four words of any analogy.")
        if has_sklearn():
            plane = vectors.map(settings.map_words, settings.seed)
            section.figures.append(_map(plane, settings.seed, suffix, of))
            section.tables.append(PageTable(f"map{suffix}", "Map", plane, rows=0))
        else:
            section.text.append('The map needs scikit-learn: pip install "torch-linguist[analyze]".')
    return section


def _neighbors(vectors: WordVectors, suffix: str, of: str) -> PageTable:
    found = vectors.neighbors(vectors.typical_words(QUERIES))
    found["shown"] = found["neighbor"] + " " + found["cosine"].map("{:.2f}".format)
    wide = found.groupby(["word", "occurrences"], sort=False)["shown"].agg(", ".join).reset_index(name="neighbors")
    caption = "For the most frequent content words, with the cosine of each neighbor."
    return PageTable(f"neighbors{suffix}", f"Nearest neighbors{of}", wide, caption, rows=QUERIES)


def _analogy_table(found: pd.DataFrame, suffix: str, of: str) -> PageTable:
    right, ten = float((found["rank"] == 1).mean()), float((found["rank"] <= 10).mean())
    caption = (
        f"a is to b as c is to …: {right:.1%} of {len(found):,} right, {ten:.1%} among the first ten. Only pairs whose "
        "words are all in the vocabulary."
    )
    return PageTable(f"analogies{suffix}", f"Analogies{of}", found.sort_values("rank", kind="stable"), caption)


def _map(plane: pd.DataFrame, seed: int, suffix: str, of: str) -> PageFigure:
    return PageFigure(
        f"map{suffix}",
        f"The {len(plane)} most frequent words{of}",
        f"t-SNE (cosine, seed {seed}): neighbors stay close, but distances between clusters mean little. Overlapping "
        f"labels are left out. The first two principal components, also in the table, hold "
        f"{plane.attrs['explained']:.0%} of the variance.",
        partial(draw_map, table=plane),
    )
