"""Weights of one model for another of the same sizes, perhaps with another vocabulary."""

import torch
from torch import Tensor

from torch_linguist.data import Tokenizer
from torch_linguist.errors import LinguistError
from torch_linguist.model import LanguageModel


def transfer_weights(source: LanguageModel, old: Tokenizer, model: LanguageModel, new: Tokenizer) -> str:
    """Copy the weights of a model into another one.

    With another vocabulary, known tokens keep their rows of the embedding and the output, and new ones start at the
    mean of the old rows, as in ULMFiT (Howard & Ruder 2018, "Universal Language Model Fine-tuning for Text
    Classification").

    Args:
        source: model to copy from.
        old: tokenizer of `source`.
        model: model of the same class and sizes, modified in place.
        new: tokenizer of `model`.

    Returns:
        A sentence for the user: how many parameters were copied and how many tokens were known.

    Raises:
        LinguistError: the vocabularies differ and the weights have no row for each token, or a size differs.
    """
    weights = source.state_dict()
    summary = f"{sum(weight.numel() for weight in source.parameters()):,} parameters copied"
    if old.tokens == new.tokens:
        model.load_state_dict(weights)
        return summary
    by_token = set(source.vocabulary_parameters())
    id_of = {token: index for index, token in enumerate(old.tokens)}
    ids = torch.tensor([id_of.get(token, -1) for token in new.tokens])
    known = int((ids >= 0).sum())
    targets = dict(model.named_parameters())
    with torch.no_grad():
        for name, weight in source.named_parameters():
            moved = _rows(weight, ids) if name in by_token else weight
            if moved.shape != targets[name].shape:
                raise LinguistError(f"{name} is {list(targets[name].shape)}, in the other model {list(moved.shape)}")
            targets[name].copy_(moved)
    return f"{summary}; {known:,} of {len(ids):,} tokens are known, the others start at the mean"


def _rows(weight: Tensor, ids: Tensor) -> Tensor:
    """Return a row for each token: that of an old token [old V, ...], or the mean where the id is -1."""
    rows = weight[ids.clamp(min=0)].clone()
    rows[ids < 0] = weight.mean(dim=0)
    return rows
