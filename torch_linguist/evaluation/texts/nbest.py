"""N-best lists: hypotheses of a recognizer or translator, scored by a language model and reranked.

Shape legend: L lists, K hypotheses of a list.
"""

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch_linguist.data import Tokenizer
from torch_linguist.errors import ConfigError, DataError
from torch_linguist.evaluation.texts.line_scores import score_lines
from torch_linguist.evaluation.texts.records import CONTINUE, RecordReader, plain_lines
from torch_linguist.model import LanguageModel

WEIGHTS = tuple(step * 0.05 for step in range(41))
"""Weights of the language model to try in tuning: 0 to 2."""

LENGTH_PENALTIES = tuple(step * 0.25 for step in range(-16, 17))
"""Length penalties per word to try in tuning: -4 to 4."""


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One hypothesis of a list.

    Attributes:
        list_id: name of the list, such as an utterance.
        text: the hypothesis.
        score: score of the recognizer; higher is better.
        lm_score: log-probability under the language model, in nats.
        fields: what stands between text and score in a Moses list; None in other lists.
        key: name of the hypothesis in Kaldi's form, `utterance-rank`.
        row: its row in JSON lines.
    """

    list_id: str
    text: str
    score: float
    lm_score: float = 0.0
    fields: str | None = None
    key: str = ""
    row: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Tuned:
    """Result of tuning.

    Attributes:
        weight: weight of the language model's log-probability.
        length_penalty: number added for each word of a hypothesis.
        errors: word errors of the best hypotheses.
        words: words of the references.
    """

    weight: float
    length_penalty: float
    errors: int
    words: int

    @property
    def word_error_rate(self) -> float:
        """Errors over the words of the references."""
        return self.errors / self.words if self.words else 0.0


def read_nbest(reader: RecordReader, scores: Mapping[str, float] | None = None) -> Iterator[Hypothesis]:
    """Read hypotheses in one of three forms.

    Moses: `id ||| text ||| fields ||| score`. JSON lines: `{"id": …, "text": …, "score": …}`. Kaldi and ESPnet:
    `utterance-rank text`, with the scores in a file of their own.

    Args:
        reader: the files, and how to handle lines that cannot be read.
        scores: `utterance-rank` to score, for Kaldi's form.

    Raises:
        DataError: a line cannot be read, or a score is missing; the message names the line.
    """
    for name in reader.files:
        for number, line in reader.lines(name):
            if not line.strip():
                continue
            try:
                hypothesis = _hypothesis(line, scores)
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                reason = f"has no {error}" if isinstance(error, KeyError) else str(error)
                reader.refuse(f"{name}, line {number}: {reason}; {CONTINUE}")
            else:
                yield hypothesis


def read_scores(lines: Iterable[str], what: str) -> dict[str, float]:
    """Read the scores of Kaldi's hypotheses: `utterance-rank score` per line."""
    found = {}
    for key, text in read_keyed(lines, what).items():
        try:
            found[key] = float(text)
        except ValueError:
            raise ConfigError(f"--nbest-scores: {key} has {text!r}, not a number") from None
    return found


def scored_hypotheses(
    hypotheses: Iterable[Hypothesis], model: LanguageModel, tokenizer: Tokenizer, *, closed: bool = True
) -> list[Hypothesis]:
    """Return the hypotheses with their log-probability under a model; see `score_lines`."""
    read, texts = itertools.tee(hypotheses)
    scores = score_lines(model, tokenizer, (hypothesis.text for hypothesis in texts), closed=closed)
    return [replace(hypothesis, lm_score=score.log_probability) for hypothesis, score in zip(read, scores, strict=True)]


def read_and_score(
    reader: RecordReader,
    model: LanguageModel,
    tokenizer: Tokenizer,
    scores_path: str | None = None,
    *,
    closed: bool = True,
) -> list[Hypothesis]:
    """Read files of n-best lists and score their hypotheses.

    Args:
        reader: see `read_nbest`.
        model: language model.
        tokenizer: tokenizer of the model.
        scores_path: file with the scores of Kaldi's hypotheses; None for the other forms.
        closed: whether `<eos>` ends each hypothesis.
    """
    scores = read_scores(plain_lines(scores_path, reader.errors), scores_path) if scores_path else None
    return scored_hypotheses(read_nbest(reader, scores), model, tokenizer, closed=closed)


def _hypothesis(line: str, scores: Mapping[str, float] | None) -> Hypothesis:
    if "|||" in line:
        parts = [part.strip() for part in line.split("|||")]
        if len(parts) < 3:
            raise ValueError("has no score; write id ||| text ||| score")
        return Hypothesis(parts[0], parts[1], float((parts[-1].split() or [""])[0]), fields=" ||| ".join(parts[2:-1]))
    if line.lstrip().startswith("{"):
        row = json.loads(line)
        return Hypothesis(str(row["id"]), str(row["text"]), float(row["score"]), row=row)
    key, _, text = line.partition(" ")
    if scores is None:
        raise ValueError("has no score; give the file of scores by --nbest-scores")
    if key not in scores:
        raise ValueError(f"{key} has no score in the file of scores")
    return Hypothesis(key.rpartition("-")[0] or key, text.strip(), scores[key], key=key)


def read_keyed(lines: Iterable[str], what: str) -> dict[str, str]:
    """Read a table in Kaldi's form: a key, a blank, and the rest of the line; `what` names the file in messages.

    Raises:
        DataError: a key occurs twice.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        key, _, value = line.strip().partition(" ")
        if key in found:
            raise DataError(f"{what}, line {number}: {key} occurs twice")
        if key:
            found[key] = value.strip()
    return found


def reranked(hypotheses: Sequence[Hypothesis], weight: float, length_penalty: float = 0.0) -> list[Hypothesis]:
    """Return the hypotheses with their combined score, the best of each list first; lists keep their order."""
    ranked: list[Hypothesis] = []
    for group in grouped(hypotheses).values():
        combined = [replace(one, score=combined_score(one, weight, length_penalty)) for one in group]
        ranked += sorted(combined, key=lambda one: -one.score)
    return ranked


def combined_score(hypothesis: Hypothesis, weight: float, length_penalty: float) -> float:
    """Return score + weight * log-probability + length penalty * words."""
    words = len(hypothesis.text.split())
    return hypothesis.score + weight * hypothesis.lm_score + length_penalty * words


def grouped(hypotheses: Iterable[Hypothesis]) -> dict[str, list[Hypothesis]]:
    """Return the hypotheses by list, in the order in which the lists begin."""
    lists: dict[str, list[Hypothesis]] = {}
    for hypothesis in hypotheses:
        lists.setdefault(hypothesis.list_id, []).append(hypothesis)
    return lists


def tune(
    hypotheses: Sequence[Hypothesis],
    references: Mapping[str, str],
    weights: Sequence[float] = WEIGHTS,
    length_penalties: Sequence[float] = LENGTH_PENALTIES,
) -> Tuned:
    """Find the weight and length penalty with the fewest word errors; among equals, the smallest ones.

    Args:
        hypotheses: hypotheses of a development set, with `lm_score`.
        references: list id to the true words.
        weights: weights to try.
        length_penalties: penalties to try.

    Raises:
        DataError: there are no hypotheses, a list has no reference, or the references hold no words.
    """
    lists = grouped(hypotheses)
    missing = [list_id for list_id in lists if list_id not in references]
    if missing:
        raise DataError(f"references: {missing[0]} has none ({len(missing)} of {len(lists)} lists)")
    errors = {
        list_id: [word_errors(one.text.split(), references[list_id].split()) for one in group]
        for list_id, group in lists.items()
    }
    words = sum(len(references[list_id].split()) for list_id in lists)
    if not words:
        raise DataError("references: hold no words of the n-best lists; give KEY WORDS per line")
    pairs = sorted(itertools.product(weights, length_penalties), key=lambda pair: (abs(pair[1]), pair[0]))
    best: Tuned | None = None
    for weight, penalty in pairs:
        total = 0
        for list_id, group in lists.items():
            combined = [combined_score(one, weight, penalty) for one in group]
            total += errors[list_id][combined.index(max(combined))]
        if best is None or total < best.errors:
            best = Tuned(weight, penalty, total, words)
    assert best is not None
    return best


def word_errors(hypothesis: Sequence[str], reference: Sequence[str]) -> int:
    """Return the number of insertions, deletions and substitutions between two texts (Levenshtein 1966)."""
    row = list(range(len(reference) + 1))
    for place, word in enumerate(hypothesis, start=1):
        diagonal, row[0] = row[0], place
        for index, wanted in enumerate(reference, start=1):
            diagonal, row[index] = row[index], min(row[index] + 1, row[index - 1] + 1, diagonal + (word != wanted))
    return row[-1]


def formatted(hypothesis: Hypothesis) -> str:
    """Return a hypothesis in the form of its list."""
    if hypothesis.key:
        return f"{hypothesis.key} {hypothesis.text}"
    if hypothesis.fields is not None:
        added = f"{hypothesis.fields} LM= {hypothesis.lm_score:.6f}".strip()
        return f"{hypothesis.list_id} ||| {hypothesis.text} ||| {added} ||| {hypothesis.score:.6f}"
    row = {**hypothesis.row, "score": hypothesis.score, "lm": hypothesis.lm_score}
    return json.dumps(row, ensure_ascii=False)
