"""N-best lists: hypotheses of a recognizer or translator, scored by a language model and ranked anew.

Shape legend: L lists, K hypotheses of a list.
"""

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from torch_linguist.errors import DataError

WEIGHTS = tuple(step * 0.05 for step in range(41))
"""Weights of the language model that tuning tries: 0 to 2."""

LENGTH_PENALTIES = tuple(step * 0.25 for step in range(-16, 17))
"""Scores for each word that tuning tries: -4 to 4."""


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One hypothesis of a list.

    Attributes:
        list_id: name of the list, such as an utterance.
        text: the hypothesis.
        score: score of the recognizer, higher is better.
        lm_score: log-probability under the language model, in nats.
        fields: what stands between text and score in a Moses list, which is kept.
        key: name of the hypothesis itself in Kaldi's form, `utterance-rank`.
    """

    list_id: str
    text: str
    score: float
    lm_score: float = 0.0
    fields: str = ""
    key: str = ""


@dataclass(frozen=True)
class Tuned:
    """What tuning found.

    Attributes:
        weight: weight of the language model's log-probability.
        length_penalty: added for each word of a hypothesis.
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


def read_nbest(lines: Iterable[str], scores: Mapping[str, float] | None = None) -> Iterator[Hypothesis]:
    """Hypotheses of a list in one of three forms, told apart by the first line.

    Moses: `id ||| text ||| fields ||| score`. JSON lines: `{"id": …, "text": …, "score": …}`. Kaldi and ESPnet:
    `utterance-rank text`, whose scores stand in a file of their own.

    Args:
        lines: of the file, without newlines.
        scores: for Kaldi's form, `utterance-rank` to its score.

    Raises:
        DataError: a line cannot be read, or a score is missing; the message names the line.
    """
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield _hypothesis(line, scores)
        except (ValueError, KeyError, TypeError) as error:
            reason = f"has no {error}" if isinstance(error, KeyError) else str(error)
            raise DataError(f"n-best list, line {number}: {reason}") from error


def _hypothesis(line: str, scores: Mapping[str, float] | None) -> Hypothesis:
    if "|||" in line:
        parts = [part.strip() for part in line.split("|||")]
        if len(parts) < 3:
            raise ValueError("has no score; write id ||| text ||| score")
        return Hypothesis(parts[0], parts[1], float(parts[-1].split()[0]), fields=" ||| ".join(parts[2:-1]))
    if line.lstrip().startswith("{"):
        row = json.loads(line)
        return Hypothesis(str(row["id"]), str(row["text"]), float(row["score"]))
    key, _, text = line.partition(" ")
    if scores is None:
        raise ValueError("has no score; give the file of scores by --nbest-scores")
    if key not in scores:
        raise ValueError(f"{key} has no score in the file of scores")
    return Hypothesis(key.rpartition("-")[0] or key, text.strip(), scores[key], key=key)


def read_keyed(lines: Iterable[str], what: str) -> dict[str, str]:
    """Kaldi's form of a table: a key, a blank, and the rest of the line.

    Raises:
        DataError: a key stands there twice.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        key, _, value = line.strip().partition(" ")
        if key in found:
            raise DataError(f"{what}, line {number}: {key} stands there twice")
        if key:
            found[key] = value.strip()
    return found


def reranked(hypotheses: Sequence[Hypothesis], weight: float, length_penalty: float = 0.0) -> list[Hypothesis]:
    """The hypotheses with their combined score, the best of each list first; lists keep their order."""
    ranked: list[Hypothesis] = []
    for group in grouped(hypotheses).values():
        combined = [replace(one, score=combined_score(one, weight, length_penalty)) for one in group]
        ranked += sorted(combined, key=lambda one: -one.score)
    return ranked


def combined_score(hypothesis: Hypothesis, weight: float, length_penalty: float) -> float:
    """The recognizer's score + weight * log-probability + length penalty * words."""
    words = len(hypothesis.text.split())
    return hypothesis.score + weight * hypothesis.lm_score + length_penalty * words


def grouped(hypotheses: Iterable[Hypothesis]) -> dict[str, list[Hypothesis]]:
    """The hypotheses by their list, in the order in which the lists begin."""
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
    """The weight and length penalty with the fewest word errors; of equal ones those nearest to none.

    Args:
        hypotheses: with `lm_score`, of a development set.
        references: list id to the true words.
        weights: weights that are tried.
        length_penalties: penalties that are tried.

    Raises:
        DataError: a list has no reference.
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
    """Insertions, deletions and substitutions that turn one row of words into the other (Levenshtein 1966)."""
    row = list(range(len(reference) + 1))
    for place, word in enumerate(hypothesis, start=1):
        diagonal, row[0] = row[0], place
        for index, wanted in enumerate(reference, start=1):
            diagonal, row[index] = row[index], min(row[index] + 1, row[index - 1] + 1, diagonal + (word != wanted))
    return row[-1]


def formatted(hypothesis: Hypothesis) -> str:
    """A hypothesis in the form that its list had, its combined score in place of the recognizer's."""
    if hypothesis.key:
        return f"{hypothesis.key} {hypothesis.text}"
    if hypothesis.fields:
        added = f"{hypothesis.fields} LM= {hypothesis.lm_score:.6f}"
        return f"{hypothesis.list_id} ||| {hypothesis.text} ||| {added} ||| {hypothesis.score:.6f}"
    row = {"id": hypothesis.list_id, "text": hypothesis.text, "score": hypothesis.score, "lm": hypothesis.lm_score}
    return json.dumps(row, ensure_ascii=False)
