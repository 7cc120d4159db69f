"""Section on what single predictions rest on: occlusion, gradients and attention."""

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
from torch_linguist.analysis.surprisal_section import own_passage, passages
from torch_linguist.evaluation.interpretation.attribution import (
    gradient_attribution,
    has_captum,
    mean_embedding,
    occlusion,
    occlusion_matrix,
)
from torch_linguist.evaluation.interpretation.contexts import contexts_at, next_log_probabilities
from torch_linguist.report.page_parts import ColoredRow, ColoredText, PageFigure, PageTable, Section

Ids = NDArray[np.int64]
Floats = NDArray[np.float64]

CONTEXT = 40
"""Context of an explained prediction, in tokens."""

MATRIX = 28
"""Tokens of the passage whose predictions are all explained."""

ATTENDED = 14
"""Tokens of the passage in the attention maps."""

MOST_MAPS = 16
"""Maximum number of attention maps of single heads; with more heads, the mean of each layer is drawn."""


@dataclass(frozen=True, eq=False)
class ExplainedPrediction:
    """A prediction to explain.

    Attributes:
        source: where it comes from.
        context: token ids before the target [T].
        target: id of the predicted token.
        probability: probability that the model assigns to the target.
    """

    source: str
    context: Ids
    target: int
    probability: float


def heatmaps(runs: Sequence[AnalyzedRun], settings: AnalysisSettings) -> Section:
    """Make the section on what single predictions rest on, by all methods that each run supports."""
    section = Section("heatmaps", "What predictions rest on")
    section.text.append("Orange words made the prediction more likely, blue words less likely.")
    section.notes.append(
        "Occlusion: nats that the prediction loses without the word, the words before it moving up. Integrated "
        "gradients (Sundararajan et al. 2017; path from the mean embedding of train, 64 points) and input × gradient: "
        f"nats, by captum, summed over the features. Each prediction gets at most {CONTEXT} tokens of context, from "
        "the initial state."
    )
    frames, matrices = [], []
    for run in runs:
        of, suffix = (f", {run.label}", f"_{run.label}") if len(runs) > 1 else ("", "")
        section.text.extend(f"{run.label}: {note}" for note in _missing_methods(run))
        # Runs that share their tokens are examined at the same positions.
        chooser = runs[0] if run.shares_tokens(runs[0]) else run
        for number, prediction in enumerate(choose_predictions(run, settings, chooser), 1):
            values = _attributions(run, prediction)
            section.colored_texts.append(_colored(run, prediction, values, f"attribution_{number}{suffix}", of))
            frames.append(_attribution_frame(run, prediction, values, number))
        matrices += _occlusion(run, settings, of, suffix)
        _add_attention(section, run, settings, of, suffix)
    _add_occlusion(section, matrices)
    if frames:
        section.tables.append(PageTable("attributions", "Attributions", pd.concat(frames, ignore_index=True), rows=0))
    return section


def _missing_methods(run: AnalyzedRun) -> list[str]:
    notes = []
    if run.model.input_embedding is None:
        notes.append(f"{run.family} has no embeddings and thus no gradients: occlusion only.")
    elif not has_captum():
        notes.append('attribution by gradients needs captum: pip install "torch-linguist[analyze]".')
    if not run.model.has_attention:
        notes.append(f"{run.family} has no attention to draw.")
    return notes


def choose_predictions(run: AnalyzedRun, settings: AnalysisSettings, chooser: AnalyzedRun) -> list[ExplainedPrediction]:
    """Choose the next word after the user's own text, and words of the split that the model half expected.

    Args:
        run: the run whose predictions are explained.
        settings: number of examples, and the text.
        chooser: run whose half-expected words are taken: `run` itself, or another on the same tokens.
    """
    found = []
    bound = min(CONTEXT, run.model.context_length or CONTEXT)
    if settings.text is not None:
        ids = np.concatenate([[run.tokenizer.eos_id], own_passage(run, settings.text).ids])[-bound:]
        log_prob = next(next_log_probabilities(run.model, ids[None]))[0].clone()
        log_prob[[run.tokenizer.eos_id, run.tokenizer.unk_id]] = -math.inf
        best = int(log_prob.argmax())
        source = "most likely word after your text"
        found.append(ExplainedPrediction(source, ids, best, float(log_prob[best].exp())))
    width = min(bound, len(run.stream))
    positions = _telling_positions(chooser, min(CONTEXT, len(run.stream)), settings)
    contexts, targets = contexts_at(run.stream, positions, width) if len(positions) else ((), ())
    for position, context, target in zip(positions, contexts, targets, strict=True):
        log_prob = next(next_log_probabilities(run.model, context[None]))[0]
        source = f"{run.split}, token {position + 1:,}"
        found.append(ExplainedPrediction(source, context, int(target), float(log_prob[target].exp())))
    return found


def _telling_positions(run: AnalyzedRun, width: int, settings: AnalysisSettings) -> Ids:
    """Positions deep in a line whose word is one token, carries meaning, and was neither certain nor hopeless."""
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
    # Different words first: a weak model half expects few of them.
    _, firsts = np.unique(run.ids[drawn], return_index=True)
    again = np.setdiff1d(np.arange(len(drawn)), firsts)
    order = np.concatenate([np.sort(firsts), again])[: settings.examples]
    return np.sort(drawn[order]).astype(np.int64)


def _attributions(run: AnalyzedRun, prediction: ExplainedPrediction) -> dict[str, Floats]:
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


def _colored(
    run: AnalyzedRun, prediction: ExplainedPrediction, values: dict[str, Floats], name: str, of: str
) -> ColoredText:
    pieces = [run.pieces[token] for token in prediction.context]
    target = run.pieces[prediction.target].strip()
    rows = []
    for label, own in values.items():
        most = max(float(np.abs(own).max()), 1e-9)
        signed = not label.startswith("attention")
        shown = f"{label}; strongest color {most:.2g}{' nats' if signed else ''}"
        hints = [f"{value:+.3f}" for value in own]
        rows.append(ColoredRow(shown, [*pieces, f" → {target}"], [*own.tolist(), math.nan], [*hints, ""], most, signed))
    caption = f"The word after the arrow is predicted with probability {prediction.probability:.2g}."
    return ColoredText(name, f"“{target}” ({prediction.source}{of})", caption, rows)


def _attribution_frame(
    run: AnalyzedRun, prediction: ExplainedPrediction, values: dict[str, Floats], number: int
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


def _first_passage(run: AnalyzedRun, settings: AnalysisSettings, most: int) -> tuple[str, Ids, list[str]] | None:
    """Source, ids and texts of the first passage, cut to `most` tokens; None where it is too short."""
    passage = passages(run, settings)[:1]
    if not passage or len(passage[0].ids) < 2:
        return None
    ids = passage[0].ids[: min(most, run.model.context_length or most)]
    return passage[0].source, ids, [run.pieces[token] for token in ids]


def _occlusion(
    run: AnalyzedRun, settings: AnalysisSettings, of: str, suffix: str
) -> list[tuple[str, str, str, Floats, list[str]]]:
    """Suffix, title, source, matrix and pieces of the occlusion of every word of the first passage."""
    found = _first_passage(run, settings, MATRIX)
    if found is None:
        return []
    source, ids, pieces = found
    matrix = occlusion_matrix(run.model, ids, run.tokenizer.eos_id)
    return [(suffix, f"Occlusion of every word of a passage{of}", source, matrix, pieces)]


def _add_occlusion(section: Section, matrices: list[tuple[str, str, str, Floats, list[str]]]) -> None:
    """Add figures and tables of occlusion; all figures share one color scale."""
    finite = np.concatenate([np.abs(matrix[np.isfinite(matrix)]) for *_, matrix, _ in matrices] or [np.ones(1)])
    # A single strong pair must not make all others look empty.
    most = max(float(np.quantile(finite, 0.98)), 1e-6) if len(finite) else 1.0
    for suffix, title, source, matrix, pieces in matrices:
        caption = f"{source}. Nats that the row's word loses without the column's word, read from the initial state."
        draw = partial(
            draw_matrix, matrix=matrix[1:, :-1], columns=pieces[:-1], rows=pieces[1:], label="nats", most=most
        )
        section.figures.append(PageFigure(f"occlusion{suffix}", title, caption, draw))
        pairs = _pair_rows(matrix, pieces, ("predicted", "left_out", "nats"))
        section.tables.append(PageTable(f"occlusion{suffix}", "Occlusion", pairs, rows=0))


def _add_attention(section: Section, run: AnalyzedRun, settings: AnalysisSettings, of: str, suffix: str) -> None:
    """Add attention maps of the start of the first passage, for models that have them."""
    found = _first_passage(run, settings, ATTENDED)
    if found is None:
        return
    source, ids, pieces = found
    weights = run.model.attention_weights(torch.from_numpy(ids))
    if weights is None:
        return
    maps = weights.numpy()
    layers, heads = maps.shape[:2]
    shown = {
        f"layer {layer + 1}, head {head + 1}": maps[layer, head] for layer in range(layers) for head in range(heads)
    }
    frames = [
        _pair_rows(np.where(np.tri(len(ids), dtype=bool), own, np.nan), pieces, ("token", "looks_at", "weight"))
        .assign(layer=index // heads + 1, head=index % heads + 1)
        for index, own in enumerate(shown.values())
    ]  # fmt: skip
    if len(shown) > MOST_MAPS:
        shown = {f"layer {layer + 1}, mean of its heads": maps[layer].mean(0) for layer in range(layers)[:MOST_MAPS]}
    caption = f"{source}. Each row attends to the columns; rows sum to one."
    draw = partial(draw_attention, maps=shown, pieces=pieces)
    section.figures.append(PageFigure(f"attention{suffix}", f"Attention maps{of}", caption, draw))
    table = pd.concat(frames, ignore_index=True)
    section.tables.append(PageTable(f"attention{suffix}", "Attention", table, rows=0))


def _pair_rows(matrix: Floats, pieces: Sequence[str], names: tuple[str, str, str]) -> pd.DataFrame:
    """One row per pair of tokens that has a number, with their positions."""
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
