"""Generates text with any language model: sampling, beam search, word suggestions."""

from torch_linguist.generation.beam import Hypothesis, beam_search
from torch_linguist.generation.continuation import Choice, Continuation
from torch_linguist.generation.continuing import continue_prompt, generate
from torch_linguist.generation.decoding import Step, generate_ids, generation_steps
from torch_linguist.generation.sampling import Sampling, draw, filtered_logits
from torch_linguist.generation.streaming import TextStream
from torch_linguist.generation.suggestions import Suggester, Suggestion

__all__ = [
    "Choice",
    "Continuation",
    "Hypothesis",
    "Sampling",
    "Step",
    "Suggester",
    "Suggestion",
    "TextStream",
    "beam_search",
    "continue_prompt",
    "draw",
    "filtered_logits",
    "generate",
    "generate_ids",
    "generation_steps",
]
