"""The section on what a model makes of its context: cut short, damaged, changed by one word."""

from collections.abc import Sequence
from functools import partial

import pandas as pd

from torch_linguist.analysis.analysis_figures import draw_context, draw_damages, draw_divergence
from torch_linguist.analysis.analysis_settings import AnalysisSettings
from torch_linguist.analysis.analyzed_run import Subject
from torch_linguist.evaluation.contexts import draw_probes
from torch_linguist.evaluation.sensitivity import LONGEST, context_curve, damage_table, word_changes
from torch_linguist.report.page_parts import Drawing, Section, Table

REACH = 16
"""Words of the context that are changed one at a time."""

CHANGED_WIDTH = 64
"""Tokens of context around them."""


def sensitivity(subjects: Sequence[Subject], settings: AnalysisSettings) -> Section:
    """How much of its context a model uses, and how.

    Args:
        subjects: the runs.
        settings: sizes of the samples.
    """
    usable = [subject for subject in subjects if _longest(subject) >= 2]
    short = [f"{subject.label}: the split is too short for this part." for subject in subjects if subject not in usable]
    if not usable:
        return Section("sensitivity", "Sensitivity to the context", short)
    curves = {subject.label: _curve(subject, settings) for subject in usable}
    damaged = {subject.label: _damages(subject, settings) for subject in usable}
    changed = {subject.label: _changes(subject, settings) for subject in usable}
    drawings = [
        Drawing(
            "context_length",
            "The context cut short",
            "Perplexity of the same tokens, given only so many tokens before them, from the initial state. The band is "
            "the 95% interval of the difference from the score over the places.",
            partial(draw_context, curves=curves),
        ),
        Drawing(
            "context_damages",
            "The context damaged",
            "Nats more than with the undamaged context, with the 95% interval over the places. Above: all tokens "
            "further away than the distance are shuffled. Below: a random share is dropped, swapped with a "
            "neighbour, or misspelled.",
            partial(draw_damages, tables=damaged),
        ),
        Drawing(
            "changed_word",
            "One changed word",
            "How far the prediction moves as one word of the context is replaced by another of the training split.",
            partial(draw_divergence, tables=changed),
        ),
    ]
    tables = [
        Table("context_length", "The context cut short", _joined(curves), rows=0),
        Table("context_damages", "The context damaged", _joined(damaged), rows=0),
        _largest(changed),
        Table("changed_word", "One changed word", _joined(changed), rows=0),
    ]
    return Section("sensitivity", "Sensitivity to the context", [_sample(usable, settings), *short], drawings, tables)


def _longest(subject: Subject) -> int:
    bound = min(LONGEST, subject.model.context_length or LONGEST)
    return min(bound, len(subject.stream) // 2)


def _sample(subjects: Sequence[Subject], settings: AnalysisSettings) -> str:
    lengths = ", ".join(f"{subject.label} {_longest(subject)}" for subject in subjects)
    return (
        f"Measured at {min(settings.probes, len(subjects[0].stream) // 2)} places of {subjects[0].split}, drawn with "
        f"seed {settings.seed}; damages on a context of "
        f"{min(settings.damage_width, min(map(_longest, subjects)))} tokens, single words at {settings.changed_probes} "
        f"of the places. Longest context: {lengths} tokens. The model reads each context from its initial state. After "
        "Khandelwal et al. 2018, “Sharp nearby, fuzzy far away”; the misspellings are ours."
    )


def _curve(subject: Subject, settings: AnalysisSettings) -> pd.DataFrame:
    probes = draw_probes(subject.stream, settings.probes, _longest(subject), settings.seed)
    return context_curve(subject.model, probes, subject.evaluation.nll[probes.positions])


def _damages(subject: Subject, settings: AnalysisSettings) -> pd.DataFrame:
    width = min(settings.damage_width, _longest(subject))
    wide = min(width + width // 4, len(subject.stream))
    probes = draw_probes(subject.stream, settings.probes, wide, settings.seed)
    return damage_table(subject.model, subject.tokenizer, probes, width, settings.seed)


def _changes(subject: Subject, settings: AnalysisSettings) -> pd.DataFrame:
    width = min(CHANGED_WIDTH, _longest(subject))
    probes = draw_probes(subject.stream, settings.changed_probes, width, settings.seed)
    reach = min(REACH, width)
    return word_changes(subject.model, subject.tokenizer, probes, subject.counts, reach, settings.seed)


def _joined(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    return pd.concat([table.assign(run=label) for label, table in tables.items()], ignore_index=True)


def _largest(changed: dict[str, pd.DataFrame]) -> Table:
    names = ["run", "context", "word", "replaced_by", "distance", "js", "kl", "target", "before", "after"]
    tops = [table.drop_duplicates("position").assign(run=label) for label, table in changed.items()]
    top = pd.concat(tops).sort_values("js", ascending=False, kind="stable")[names]
    if len(changed) == 1:
        top = top.drop(columns="run")
    caption = (
        "The largest divergence at each place. The word at the distance from the target is replaced; js and kl in "
        "nats; before and after: probability of the word that came."
    )
    return Table("changed_word_largest", "One changed word: the largest", top, caption, rows=12)
