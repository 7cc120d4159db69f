"""Section on the use of context: shortened, damaged, or changed by one word."""

from collections.abc import Sequence
from functools import partial

import pandas as pd

from torch_linguist.analysis.analysis_figures import draw_context, draw_damages, draw_divergence
from torch_linguist.analysis.analysis_settings import AnalysisSettings
from torch_linguist.analysis.analyzed_run import AnalyzedRun
from torch_linguist.evaluation.interpretation.contexts import sample_contexts
from torch_linguist.evaluation.interpretation.sensitivity import LONGEST, context_curve, damage_table, word_changes
from torch_linguist.report.page_parts import PageFigure, PageTable, Section

REACH = 16
"""Words of the context that are replaced, one at a time."""

CHANGED_WIDTH = 64
"""Length of the context around them, in tokens."""

NEGLIGIBLE = 0.01
"""Nats per token that count as no gain from a longer context."""


def sensitivity(runs: Sequence[AnalyzedRun], settings: AnalysisSettings) -> Section:
    """Make the section on how much of its context a model uses, and how."""
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
            "Shortened context",
            "Perplexity of the same tokens, given only the last tokens before them, from the initial state. Band: 95% "
            "interval of the difference from the score, over the positions.",
            partial(draw_context, curves=curves),
        ),
        PageFigure(
            "context_damages",
            "Damaged context",
            "Increase of the loss over the undamaged context, with its 95% interval over the positions. Above: all "
            "tokens beyond a distance are shuffled. Below: a random share is dropped, swapped with a neighbor, or "
            "misspelled.",
            partial(draw_damages, tables=damaged),
        ),
        PageFigure(
            "changed_word",
            "One changed word",
            "Change of the prediction when one word of the context is replaced by another from the training split.",
            partial(draw_divergence, tables=changed),
        ),
    ]
    tables = [
        PageTable("context_length", "Shortened context", _joined(curves), rows=0),
        PageTable("context_damages", "Damaged context", _joined(damaged), rows=0),
        _largest(changed),
        PageTable("changed_word", "One changed word", _joined(changed), rows=0),
    ]
    findings = [_reach_sentence(label, curve) for label, curve in curves.items()]
    notes = [_sample_note(usable, settings)]
    return Section("sensitivity", "Sensitivity to the context", short, figures, tables, findings=findings, notes=notes)


def _longest(run: AnalyzedRun) -> int:
    bound = min(LONGEST, run.model.context_length or LONGEST)
    return min(bound, len(run.stream) // 2)


def _reach_sentence(label: str, curve: pd.DataFrame) -> str:
    own = curve[curve["context"] > 0]
    enough = own[own["loss"] <= own["loss"].iloc[-1] + NEGLIGIBLE]["context"].min()
    return f"{label} uses about {enough:,} tokens of context: more lower its loss by less than {NEGLIGIBLE:g} nats."


def _sample_note(runs: Sequence[AnalyzedRun], settings: AnalysisSettings) -> str:
    lengths = ", ".join(f"{run.label} {_longest(run)}" for run in runs)
    width = min(settings.damage_width, min(map(_longest, runs)))
    return (
        f"Measured at {min(settings.probes, len(runs[0].stream) // 2)} positions of {runs[0].split} (seed "
        f"{settings.seed}). Damages: context of {width} tokens. Single words: {settings.changed_probes} of the "
        f"positions. Longest context in tokens: {lengths}. The model reads each context from its initial state. "
        "Method: Khandelwal et al. 2018, “Sharp nearby, fuzzy far away”; the misspellings are our addition."
    )


def _curve(run: AnalyzedRun, settings: AnalysisSettings) -> pd.DataFrame:
    sample = sample_contexts(run.stream, settings.probes, _longest(run), settings.seed)
    return context_curve(run.model, sample, run.evaluation.nll[sample.positions])


def _damages(run: AnalyzedRun, settings: AnalysisSettings) -> pd.DataFrame:
    width = min(settings.damage_width, _longest(run))
    wide = min(width + width // 4, len(run.stream))
    sample = sample_contexts(run.stream, settings.probes, wide, settings.seed)
    return damage_table(run.model, run.tokenizer, sample, width, settings.seed)


def _changes(run: AnalyzedRun, settings: AnalysisSettings) -> pd.DataFrame:
    width = min(CHANGED_WIDTH, _longest(run))
    sample = sample_contexts(run.stream, settings.changed_probes, width, settings.seed)
    return word_changes(run.model, run.tokenizer, sample, run.counts, min(REACH, width), settings.seed)


def _joined(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    return pd.concat([table.assign(run=label) for label, table in tables.items()], ignore_index=True)


def _largest(changed: dict[str, pd.DataFrame]) -> PageTable:
    names = ["run", "context", "word", "replaced_by", "distance", "js", "kl", "target", "before", "after"]
    tops = [table.drop_duplicates("position").assign(run=label) for label, table in changed.items()]
    top = pd.concat(tops).sort_values("js", ascending=False, kind="stable")[names]
    if len(changed) == 1:
        top = top.drop(columns="run")
    caption = (
        "Largest divergence at each position. distance: of the replaced word from the target. js, kl: in nats. before, "
        "after: probability of the target."
    )
    return PageTable("changed_word_largest", "Changed words with the largest effect", top, caption)
