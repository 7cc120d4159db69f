"""Validation loss of a training, the same number for one process and for several."""

import itertools

import torch
from torch import Tensor

from torch_linguist.distributed import processes
from torch_linguist.distributed.sharding import whole_weights
from torch_linguist.evaluation import mean_nll
from torch_linguist.evaluation.scoring import nll_in, stream_measures
from torch_linguist.model import LanguageModel, State
from torch_linguist.trainer.context import TrainingContext


def validation_loss(model: LanguageModel, context: TrainingContext, max_tokens: int | None) -> float:
    """Return the mean loss on the validation split, in nats per token; every token is scored once.

    Matrix products have the precision of the training. The final scores of a run do not: see `ScoreSettings`.

    If the context of the model is bounded, its windows are divided among the processes. A recurrent state runs through
    the whole stream, so the main process scores and the others wait for its result.

    Args:
        model: model in any mode.
        context: corpus and settings.
        max_tokens: tokens to score from the start of the split; None for all.
    """
    with whole_weights(model):
        return _mean_loss(model, context, max_tokens)


def _mean_loss(model: LanguageModel, context: TrainingContext, max_tokens: int | None) -> float:
    stream, chunk_length, stride = context.corpus.valid, context.score.chunk_length, context.score.stride
    size, precision = processes.world_size(), context.settings.precision
    if size == 1 or not model.context_length:
        loss = processes.broadcast_object(
            lambda: mean_nll(model, stream, max_tokens, chunk_length=chunk_length, stride=stride, precision=precision)
        )
        return float(loss)
    turns, nll_of = itertools.count(), nll_in(model, precision)

    def measure(tokens: Tensor, targets: Tensor, state: State) -> tuple[tuple[Tensor, ...], State]:
        if next(turns) % size != processes.rank():
            return (torch.zeros(targets.shape),), state
        nll, new_state = nll_of(tokens, targets, state)
        return (nll,), new_state

    nats, tokens = 0.0, 0
    for (part,) in stream_measures(model, stream, measure, max_tokens, chunk_length=chunk_length, stride=stride):
        nats, tokens = nats + float(part.double().sum()), tokens + len(part)
    (total,) = processes.all_reduce_sum(nats)
    return total / tokens
