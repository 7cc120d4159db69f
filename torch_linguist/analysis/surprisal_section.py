"""Section on passages colored by the surprisal of each token."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from torch_linguist.analysis.analysis_settings import AnalysisSettings
from torch_linguist.analysis.analyzed_run import AnalyzedRun
from torch_linguist.model import device_of, evaluating
from torch_linguist.report.page_parts import ColoredRow, ColoredText, PageTable, Section

Ids = NDArray[np.int64]
Floats = NDArray[np.float64]

PASSAGE = 160
"""Maximum length of a passage, in tokens."""

STRONGEST_BITS = 14.0
"""Surprisal shown in the strongest color."""


@dataclass(frozen=True, eq=False)
class Passage:
    """A stretch of text with the surprisal of its tokens.

    Attributes:
        source: where the passage comes from.
        ids: token ids [T].
        nll: nats of each token [T].
    """

    source: str
    ids: Ids
    nll: Floats


def surprisal(runs: Sequence[AnalyzedRun], settings: AnalysisSettings) -> Section:
    """Make the section with passages colored by the surprisal of every token."""
    colored, frames = [], []
    for run in runs:
        for number, passage in enumerate(passages(run, settings), 1):
            row = _colored_row(run, passage)
            of, suffix = (f", {run.label}", f"_{run.label}") if len(runs) > 1 else ("", "")
            caption = f"Perplexity of the passage: {math.exp(min(700.0, passage.nll.mean())):,.1f}."
            colored.append(ColoredText(f"surprisal_{number}{suffix}", f"{passage.source}{of}", caption, [row]))
            frames.append(_frame(run, passage, number))
    if not colored:
        return Section("surprisal", "Surprisal")
    text = [
        f"The darker a word, the less the model expected it; the strongest color stands for {STRONGEST_BITS:.0f} bits "
        "or more. Passages of the split are colored as scored: the model has read everything before them."
    ]
    tables = [PageTable("surprisal", "Surprisal", pd.concat(frames, ignore_index=True), rows=0)]
    return Section("surprisal", "Surprisal", text, tables=tables, colored_texts=colored)


def passages(run: AnalyzedRun, settings: AnalysisSettings) -> list[Passage]:
    """Return the user's own text, if there is one, and lines of the split drawn with the seed."""
    found = [] if settings.text is None else [own_passage(run, settings.text)]
    offsets = np.asarray(run.stream.line_offsets)
    lengths = np.diff(offsets)
    # Paragraphs, where there are any, show more than headings.
    least = min(40, int(lengths.max()))
    lines = np.flatnonzero(lengths >= least)
    chosen = np.random.default_rng(settings.seed).permutation(lines)[: settings.passages]
    for line in sorted(chosen.tolist()):
        begin, end = int(offsets[line]), int(min(offsets[line + 1], offsets[line] + PASSAGE))
        source = f"{run.split}, line {line + 1:,}"
        found.append(Passage(source, run.ids[begin:end], run.evaluation.nll[begin:end]))
    return found


@torch.inference_mode()
def own_passage(run: AnalyzedRun, text: str) -> Passage:
    """Score a text from the initial state. Of a long text, only the end is read, as much as fits."""
    ids = np.array(run.tokenizer.encode(text.strip()), np.int64)
    most = min(PASSAGE, run.model.context_length or PASSAGE)
    source = "your text" if len(ids) <= most else f"your text, its last {most} of {len(ids):,} tokens"
    ids = ids[-most:]
    inputs = torch.from_numpy(np.concatenate([[run.tokenizer.eos_id], ids[:-1]]))[None].to(device_of(run.model))
    with evaluating(run.model):
        targets = torch.from_numpy(ids)[None].to(inputs.device)
        nll, _ = run.model.nll(inputs, targets, run.model.initial_state(1))
    return Passage(source, ids, nll[0].double().cpu().numpy())


def _colored_row(run: AnalyzedRun, passage: Passage) -> ColoredRow:
    bits = passage.nll / math.log(2)
    hints = [
        f"{cost:.1f} bits, probability {math.exp(-nats):.2g}" for cost, nats in zip(bits, passage.nll, strict=True)
    ]
    return ColoredRow("", [run.pieces[token] for token in passage.ids], bits.tolist(), hints, STRONGEST_BITS)


def _frame(run: AnalyzedRun, passage: Passage, number: int) -> pd.DataFrame:
    pieces = [run.pieces[token].strip() for token in passage.ids]
    frame = pd.DataFrame({"token": pieces, "nats": passage.nll, "bits": passage.nll / math.log(2)})
    return frame.assign(passage=number, source=passage.source, run=run.label)
