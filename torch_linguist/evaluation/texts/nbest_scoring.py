"""N-best lists under a language model."""

import itertools
from collections.abc import Iterable
from dataclasses import replace

from torch_linguist.data import Tokenizer
from torch_linguist.evaluation.texts.line_scores import score_lines
from torch_linguist.evaluation.texts.nbest import Hypothesis
from torch_linguist.model import LanguageModel


def scored_hypotheses(
    hypotheses: Iterable[Hypothesis], model: LanguageModel, tokenizer: Tokenizer, *, closed: bool = True
) -> list[Hypothesis]:
    """The hypotheses with their log-probability under a model."""
    read, texts = itertools.tee(hypotheses)
    scores = score_lines(model, tokenizer, (hypothesis.text for hypothesis in texts), closed=closed)
    return [replace(hypothesis, lm_score=score.log_probability) for hypothesis, score in zip(read, scores, strict=True)]
