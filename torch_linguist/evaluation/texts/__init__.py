"""Scores for any text: lines, tokens and words, minimal pairs, n-best lists, and filters by perplexity."""

from torch_linguist.evaluation.texts.line_scores import LineScore, score_lines
from torch_linguist.evaluation.texts.token_scores import TokenScore, WordScore, score_tokens, score_words

__all__ = ["LineScore", "TokenScore", "WordScore", "score_lines", "score_tokens", "score_words"]
