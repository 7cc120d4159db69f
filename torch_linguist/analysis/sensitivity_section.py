"""The section on what a model makes of its context: cut short, damaged, changed by one word."""

from collections.abc import Sequence
from functools import partial

import pandas as pd

from torch_linguist.analysis.analysis_figures import draw_context, draw_damages, draw_divergence
from torch_linguist.analysis.analysis_settings import AnalysisSettings
from torch_linguist.analysis.analyzed_run import AnalyzedRun
from torch_linguist.evaluation.contexts import sample_contexts
from torch_linguist.evaluation.sensitivity import LONGEST, context_curve, damage_table, word_changes
from torch_linguist.report.page_parts import PageFigure, PageTable, Section

REACH = 16
"""Words of the context that are changed one at a time."""

CHANGED_WIDTH = 64
"""Tokens of context around them."""


def sensitivity(runs: Sequence[AnalyzedRun], settings: AnalysisSettings) -> Section:
    """How much of its context a model uses, and how.

    Args:
        runs: the runs.
        settings: sizes of the samples.
    """
    usable = [run for run in runs if _longest(run) >= 2]
    short = [f"{run.label}: the split is too short for this part." for run in runs if run not in usable]
    if not usable:
        return Section("sensitivity", "Sensitivity to the context", short)
    curves = {run.label: _curve(run, settings) for run in usable}
    damaged = {run.label: _damages(run, settings) for run in usable}
    changed = {run.label: _changes(run, settings) for run in usable}
    figures = [
        PageFigure(
            "context_length",
            "The context cut short",
            "Perplexity of the same tokens, given only so many tokens before them, from the initial state. The band is "
            "the 95% interval of the difference from the score over the places.",
            partial(draw_context, curves=curves),
        ),
        PageFigure(
            "context_damages",
            "The context damaged",
            "Nats more than with the undamaged context, with the 95% interval over the places. Above: all tokens "
            "further away than the distance are shuffled. Below: a random share is dropped, swapped with a "
            "neighbor, or misspelled.",
            partial(draw_damages, tables=damaged),
        ),
        PageFigure(
            "changed_word",
            "One changed word",
            "How far the prediction moves as one word of the context is replaced by another of the training split.",
            partial(draw_divergence, tables=changed),
        ),
    ]
    tables = [
        PageTable("context_length", "The context cut short", _joined(curves), rows=0),
        PageTable("context_damages", "The context damaged", _joined(damaged), rows=0),
        _largest(changed),
        PageTable("changed_word", "One changed word", _joined(changed), rows=0),
    ]
    return Section("sensitivity", "Sensitivity to the context", [_sample(usable, settings), *short], figures, tables)


def _longest(run: AnalyzedRun) -> int:
    bound = min(LONGEST, run.model.context_length or LONGEST)
    return min(bound, len(run.stream) // 2)


def _sample(runs: Sequence[AnalyzedRun], settings: AnalysisSettings) -> str:
    lengths = ", ".join(f"{run.label} {_longest(run)}" for run in runs)
    return (
        f"Measured at {min(settings.probes, len(runs[0].stream) // 2)} places of {runs[0].split}, drawn with "
        f"seed {settings.seed}; damages on a context of "
        f"{min(settings.damage_width, min(map(_longest, runs)))} tokens, single words at {settings.changed_probes} "
        f"of the places. Longest context: {lengths} tokens. The model reads each context from its initial state. After "
        "Khandelwal et al. 2018, “Sharp nearby, fuzzy far away”; the misspellings are ours."
    )


def _curve(run: AnalyzedRun, settings: AnalysisSettings) -> pd.DataFrame:
    probes = sample_contexts(run.stream, settings.probes, _longest(run), settings.seed)
    return context_curve(run.model, probes, run.evaluation.nll[probes.positions])


def _damages(run: AnalyzedRun, settings: AnalysisSettings) -> pd.DataFrame:
    width = min(settings.damage_width, _longest(run))
    wide = min(width + width // 4, len(run.stream))
    probes = sample_contexts(run.stream, settings.probes, wide, settings.seed)
    return damage_table(run.model, run.tokenizer, probes, width, settings.seed)


def _changes(run: AnalyzedRun, settings: AnalysisSettings) -> pd.DataFrame:
    width = min(CHANGED_WIDTH, _longest(run))
    probes = sample_contexts(run.stream, settings.changed_probes, width, settings.seed)
    reach = min(REACH, width)
    return word_changes(run.model, run.tokenizer, probes, run.counts, reach, settings.seed)


def _joined(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    return pd.concat([table.assign(run=label) for label, table in tables.items()], ignore_index=True)


def _largest(changed: dict[str, pd.DataFrame]) -> PageTable:
    names = ["run", "context", "word", "replaced_by", "distance", "js", "kl", "target", "before", "after"]
    tops = [table.drop_duplicates("position").assign(run=label) for label, table in changed.items()]
    top = pd.concat(tops).sort_values("js", ascending=False, kind="stable")[names]
    if len(changed) == 1:
        top = top.drop(columns="run")
    caption = (
        "The largest divergence at each place. The word at the distance from the target is replaced; js and kl in "
        "nats; before and after: probability of the word that came."
    )
    return PageTable("changed_word_largest", "One changed word: the largest", top, caption, rows=12)
