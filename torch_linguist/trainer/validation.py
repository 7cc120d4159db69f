"""The validation loss of a training, with one process or several: the same number."""

import itertools

import torch
from torch import Tensor

from torch_linguist.distributed import processes
from torch_linguist.evaluation import mean_nll
from torch_linguist.evaluation.scoring import stream_measures
from torch_linguist.model import LanguageModel, State
from torch_linguist.trainer.context import TrainingContext


def validation_loss(model: LanguageModel, context: TrainingContext, max_tokens: int | None) -> float:
    """The loss on the validation split, every token scored once, whoever scores it.

    The windows of a model with a bounded context are divided among the processes. A state that runs through the whole
    stream cannot be: there the first process scores, and the others wait for its answer.

    Args:
        model: in any mode.
        context: corpus and settings.
        max_tokens: only so many from the start of the split; None for all.

    Returns:
        Nats per token.
    """
    stream, chunk_length, stride = context.corpus.valid, context.score.chunk_length, context.score.stride
    if processes.world_size() == 1 or not model.context_length:
        loss = processes.broadcast_object(
            lambda: mean_nll(model, stream, max_tokens, chunk_length=chunk_length, stride=stride)
        )
        return float(loss)
    turns = itertools.count()

    def measure(tokens: Tensor, targets: Tensor, state: State) -> tuple[tuple[Tensor, ...], State]:
        if next(turns) % processes.world_size() != processes.rank():
            return (torch.zeros(targets.shape),), state
        nll, new_state = model.nll(tokens, targets, state)
        return (nll,), new_state

    nats, tokens = 0.0, 0
    for (part,) in stream_measures(model, stream, measure, max_tokens, chunk_length=chunk_length, stride=stride):
        nats, tokens = nats + float(part.double().sum()), tokens + len(part)
    (total,) = processes.all_reduce_sum(nats)
    return total / tokens


__all__ = ["validation_loss"]
