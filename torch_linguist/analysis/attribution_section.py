"""The sections with colored texts: the surprisal of passages, and what single predictions rest on."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from torch_linguist.analysis.analysis_figures import draw_attention, draw_matrix
from torch_linguist.analysis.analysis_settings import AnalysisSettings
from torch_linguist.analysis.analyzed_run import AnalyzedRun
from torch_linguist.evaluation.attribution import (
    gradient_attribution,
    has_captum,
    mean_embedding,
    occlusion,
    occlusion_matrix,
)
from torch_linguist.evaluation.contexts import contexts_at, next_log_probabilities
from torch_linguist.explore.texts import file_name
from torch_linguist.model import device_of, evaluating
from torch_linguist.report.page_parts import ColoredRow, ColoredText, PageFigure, PageTable, Section

Ids = NDArray[np.int64]
Floats = NDArray[np.float64]

PASSAGE = 160
"""Tokens of a passage at most."""

CONTEXT = 40
"""Tokens of context that a prediction of the heatmaps is given."""

MATRIX = 28
"""Tokens of the passage whose predictions are all explained."""

ATTENDED = 14
"""Tokens of the passage of the attention maps."""

MOST_MAPS = 16
"""Attention maps of single heads that are drawn; of more heads the mean of each layer."""

STRONGEST_BITS = 14.0
"""Surprisal of the strongest color."""


@dataclass(frozen=True, eq=False)
class Passage:
    """A stretch of text with the surprisal of its tokens.

    Attributes:
        source: where it comes from.
        ids: of its tokens [T].
        nll: nats of each [T].
    """

    source: str
    ids: Ids
    nll: Floats


@dataclass(frozen=True, eq=False)
class Prediction:
    """A prediction that is explained.

    Attributes:
        source: where it comes from.
        context: ids before it [T].
        target: the id that is predicted.
        probability: that the model gives it.
    """

    source: str
    context: Ids
    target: int
    probability: float


def surprisal(runs: Sequence[AnalyzedRun], settings: AnalysisSettings) -> Section:
    """Passages colored by the surprisal of every token."""
    colored, frames, text = [], [], []
    for run in runs:
        for number, passage in enumerate(passages(run, settings), 1):
            row = _surprisal_row(run, passage, "")
            of = f", {run.label}" if len(runs) > 1 else ""
            name = f"surprisal_{number}" + (f"_{file_name(run.label)}" if of else "")
            caption = f"Perplexity of the passage {math.exp(min(700.0, passage.nll.mean())):,.1f}."
            colored.append(ColoredText(name, f"{passage.source}{of}", caption, [row]))
            frames.append(_surprisal_frame(run, passage, number))
    if colored:
        text.append(
            f"The darker a word, the less it was expected; the strongest color stands for {STRONGEST_BITS:.0f} bits "
            "and more. Passages of the split are as scored, with all that the model had read before."
        )
    tables = [PageTable("surprisal", "Surprisal", pd.concat(frames, ignore_index=True), rows=0)] if frames else []
    return Section("surprisal", "Surprisal", text, tables=tables, colored_texts=colored)


def passages(run: AnalyzedRun, settings: AnalysisSettings) -> list[Passage]:
    """A text of one's own, if there is one, and lines of the split drawn with a seed."""
    found = [] if settings.text is None else [own_passage(run, settings.text)]
    offsets = np.asarray(run.stream.line_offsets)
    lengths = np.diff(offsets)
    # Lines of a paragraph's length, where there are any, tell more than headings.
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
    """A text of one's own, read from the initial state; of a long one the end, as much as fits."""
    ids = np.array(run.tokenizer.encode(text.strip()), np.int64)
    most = min(PASSAGE, run.model.context_length or PASSAGE)
    source = "your text" if len(ids) <= most else f"your text, its last {most} of {len(ids):,} tokens"
    ids = ids[-most:]
    inputs = torch.from_numpy(np.concatenate([[run.tokenizer.eos_id], ids[:-1]]))[None].to(device_of(run.model))
    with evaluating(run.model):
        targets = torch.from_numpy(ids)[None].to(inputs.device)
        nll, _ = run.model.nll(inputs, targets, run.model.initial_state(1))
    return Passage(source, ids, nll[0].double().cpu().numpy())


def _surprisal_row(run: AnalyzedRun, passage: Passage, label: str) -> ColoredRow:
    bits = passage.nll / math.log(2)
    hints = [
        f"{cost:.1f} bits, probability {math.exp(-nats):.2g}" for cost, nats in zip(bits, passage.nll, strict=True)
    ]
    pieces = [run.pieces[token] for token in passage.ids]
    return ColoredRow(label, pieces, bits.tolist(), hints, STRONGEST_BITS)


def _surprisal_frame(run: AnalyzedRun, passage: Passage, number: int) -> pd.DataFrame:
    pieces = [run.pieces[token].strip() for token in passage.ids]
    frame = pd.DataFrame({"token": pieces, "nats": passage.nll, "bits": passage.nll / math.log(2)})
    return frame.assign(passage=number, source=passage.source, run=run.label)


def heatmaps(runs: Sequence[AnalyzedRun], settings: AnalysisSettings) -> Section:
    """What single predictions rest on, for each run by all methods that it has."""
    text = [
        "Orange words made the prediction more likely, blue ones less. Occlusion: how many nats the prediction loses "
        "without the word, what stands before it moving up. Integrated gradients (Sundararajan et al. 2017; path "
        "from the mean embedding of train, 64 points) and input × gradient: nats by captum, summed over the features. "
        f"Each prediction is given its last {CONTEXT} tokens at most, from the initial state."
    ]
    colored: list[ColoredText] = []
    figures: list[PageFigure] = []
    tables: list[PageTable] = []
    frames = []
    for run in runs:
        of = f", {run.label}" if len(runs) > 1 else ""
        suffix = f"_{file_name(run.label)}" if of else ""
        text += [f"{run.label}: {note}" for note in _lacking(run)]
        # Runs that share their tokens are looked at in the same places, those that the first one half expected.
        chooser = runs[0] if run.shares_tokens(runs[0]) else run
        for number, prediction in enumerate(predictions(run, settings, chooser), 1):
            values = _methods(run, prediction)
            colored.append(_colored(run, prediction, values, f"attribution_{number}{suffix}", of))
            frames.append(_attribution_frame(run, prediction, values, number))
        passage_figures, written = _passage_figures(run, settings, suffix, of)
        figures += passage_figures
        tables += written
    if frames:
        tables.append(PageTable("attributions", "Attributions", pd.concat(frames, ignore_index=True), rows=0))
    return Section("heatmaps", "What predictions rest on", text, figures, tables, colored_texts=colored)


def _lacking(run: AnalyzedRun) -> list[str]:
    notes = []
    if run.model.input_embedding is None:
        notes.append(f"{run.family} has no embeddings, so that it has no gradients: occlusion alone.")
    elif not has_captum():
        notes.append('attribution by gradients needs captum: pip install "torch-linguist[analyze]".')
    if not run.model.has_attention:
        notes.append(f"{run.family} has no attention to draw.")
    return notes


def predictions(run: AnalyzedRun, settings: AnalysisSettings, chooser: AnalyzedRun) -> list[Prediction]:
    """The next word after a text of one's own, and words of the split that the model half expected.

    Args:
        run: the run.
        settings: how many.
        chooser: whose half-expected words are taken: the run itself, or another on the same tokens.
    """
    found = []
    bound = min(CONTEXT, run.model.context_length or CONTEXT)
    if settings.text is not None:
        ids = np.concatenate([[run.tokenizer.eos_id], own_passage(run, settings.text).ids])[-bound:]
        log_prob = next(next_log_probabilities(run.model, ids[None]))[0].clone()
        log_prob[[run.tokenizer.eos_id, run.tokenizer.unk_id]] = -math.inf
        best = int(log_prob.argmax())
        found.append(Prediction("after your text, the likeliest word", ids, best, float(log_prob[best].exp())))
    width = min(bound, len(run.stream))
    positions = _telling(chooser, min(CONTEXT, len(run.stream)), settings)
    contexts, targets = contexts_at(run.stream, positions, width) if len(positions) else ((), ())
    for position, context, target in zip(positions, contexts, targets, strict=True):
        log_prob = next(next_log_probabilities(run.model, context[None]))[0]
        source = f"{run.split}, token {position + 1:,}"
        found.append(Prediction(source, context, int(target), float(log_prob[target].exp())))
    return found


def _telling(run: AnalyzedRun, width: int, settings: AnalysisSettings) -> Ids:
    """Places deep in a line whose word is one token, carries a meaning, and was neither certain nor hopeless."""
    classes, nll = run.words.token_classes(), run.evaluation.nll
    lines = np.asarray(run.stream.line_offsets)
    in_line = np.arange(len(nll)) - np.repeat(lines[:-1], np.diff(lines))
    able = np.arange(len(nll)) >= width - 1
    meaning = (classes >= 1) & (classes <= 3) & (in_line >= min(16, width // 2))
    meaning &= np.bincount(run.words.of_token)[run.words.of_token] == 1
    for wanted in (meaning & (nll > 0.05) & (nll < 3), meaning & (nll < 6), meaning, np.ones(len(nll), bool)):
        candidates = np.flatnonzero(able & wanted)
        if len(np.unique(run.ids[candidates])) >= settings.examples:
            break
    drawn = np.random.default_rng(settings.seed).permutation(candidates)
    # Another word each time, as far as there are others: a weak model half expects few of them.
    _, firsts = np.unique(run.ids[drawn], return_index=True)
    different = np.sort(firsts)
    again = np.setdiff1d(np.arange(len(drawn)), different)
    order = np.concatenate([different, again])[: settings.examples]
    return np.sort(drawn[order]).astype(np.int64)


def _methods(run: AnalyzedRun, prediction: Prediction) -> dict[str, Floats]:
    """The value of each token of the context, by method."""
    model = run.model
    found: dict[str, Floats] = {}
    if model.input_embedding is not None and has_captum():
        baseline = mean_embedding(model, run.counts)
        by_gradient = gradient_attribution(model, prediction.context, prediction.target, baseline)
        error = f"sum {by_gradient.integrated.sum():+.2f} of {by_gradient.difference:+.2f}"
        found[f"integrated gradients ({error} nats)"] = by_gradient.integrated
        found["input × gradient"] = by_gradient.input_x_gradient
    if len(prediction.context) >= 2:
        found["occlusion"] = occlusion(model, prediction.context, prediction.target)
    maps = model.attention_weights(torch.from_numpy(prediction.context))
    if maps is not None:
        found["attention of the last token, mean of all heads"] = maps[:, :, -1].mean(dim=(0, 1)).numpy()
    return found


def _colored(run: AnalyzedRun, prediction: Prediction, values: dict[str, Floats], name: str, of: str) -> ColoredText:
    pieces = [run.pieces[token] for token in prediction.context]
    target = run.pieces[prediction.target].strip()
    rows = []
    for label, own in values.items():
        most = max(float(np.abs(own).max()), 1e-9)
        signed = not label.startswith("attention")
        shown = f"{label}; strongest color {most:.2g}{' nats' if signed else ''}"
        hints = [f"{value:+.3f}" for value in own]
        rows.append(ColoredRow(shown, [*pieces, f" → {target}"], [*own.tolist(), math.nan], [*hints, ""], most, signed))
    caption = f"The word after the arrow is predicted, with probability {prediction.probability:.2g}."
    return ColoredText(name, f"“{target}” ({prediction.source}{of})", caption, rows)


def _attribution_frame(
    run: AnalyzedRun, prediction: Prediction, values: dict[str, Floats], number: int
) -> pd.DataFrame:
    frame = pd.DataFrame({"token": [run.pieces[token].strip() for token in prediction.context]})
    for label, own in values.items():
        frame[label.split(" (")[0].split(" of ")[0].replace(" ", "_").replace("×", "x")] = own
    return frame.assign(
        prediction=number,
        source=prediction.source,
        target=run.pieces[prediction.target].strip(),
        probability=prediction.probability,
        run=run.label,
    )


def _passage_figures(
    run: AnalyzedRun, settings: AnalysisSettings, suffix: str, of: str
) -> tuple[list[PageFigure], list[PageTable]]:
    """All predictions of a passage against all words before them, and the attention maps of its beginning."""
    passage = passages(run, settings)[:1]
    if not passage or len(passage[0].ids) < 2:
        return [], []
    bound = run.model.context_length or MATRIX
    ids, source = passage[0].ids[: min(MATRIX, bound)], passage[0].source
    pieces = [run.pieces[token] for token in ids]
    matrix = occlusion_matrix(run.model, ids, run.tokenizer.eos_id)
    drawing = PageFigure(
        f"occlusion{suffix}",
        f"Occlusion: every word of a passage{of}",
        f"{source}. Nats that the word of the row loses without the word of the column; read from the initial state.",
        partial(draw_matrix, matrix=matrix[1:, :-1], columns=pieces[:-1], rows=pieces[1:], label="nats"),
    )
    table = PageTable(
        f"occlusion{suffix}", "Occlusion", _pairs(matrix, pieces, ("predicted", "left_out", "nats")), rows=0
    )
    maps = run.model.attention_weights(torch.from_numpy(ids[:ATTENDED]))
    if maps is None:
        return [drawing], [table]
    attention, weights = _attention(maps.numpy(), pieces[:ATTENDED], suffix, of, source)
    return [drawing, attention], [table, weights]


def _attention(maps: Floats, pieces: Sequence[str], suffix: str, of: str, source: str) -> tuple[PageFigure, PageTable]:
    layers, heads = maps.shape[:2]
    names = ("token", "looks_at", "weight")
    shown: dict[str, Floats] = {}
    frames = []
    for layer in range(layers):
        for head in range(heads):
            own = np.where(np.tri(len(pieces), dtype=bool), maps[layer, head], np.nan)
            frames.append(_pairs(own, pieces, names).assign(layer=layer + 1, head=head + 1))
            shown[f"layer {layer + 1}, head {head + 1}"] = maps[layer, head]
    if len(shown) > MOST_MAPS:
        shown = {
            f"layer {layer + 1}, mean of its heads": maps[layer].mean(0) for layer in range(min(layers, MOST_MAPS))
        }
    caption = f"{source}. The row looks at the columns; each row adds up to one."
    drawing = PageFigure(
        f"attention{suffix}", f"Attention maps{of}", caption, partial(draw_attention, maps=shown, pieces=pieces)
    )
    return drawing, PageTable(f"attention{suffix}", "Attention", pd.concat(frames, ignore_index=True), rows=0)


def _pairs(matrix: Floats, pieces: Sequence[str], names: tuple[str, str, str]) -> pd.DataFrame:
    """A row a pair of tokens that has a number, with their places."""
    rows, columns = np.nonzero(np.isfinite(matrix))
    shown = np.array([piece.strip() for piece in pieces])
    return pd.DataFrame(
        {
            f"{names[0]}_place": rows,
            names[0]: shown[rows],
            f"{names[1]}_place": columns,
            names[1]: shown[columns],
            names[2]: matrix[rows, columns],
        }
    )
