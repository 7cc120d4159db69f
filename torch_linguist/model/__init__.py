"""Batches of token ids -> next-token log-probabilities."""

from torch_linguist.model.base import LanguageModel
from torch_linguist.model.mixture import Mixture, Population
from torch_linguist.model.module_modes import device_of, evaluating
from torch_linguist.model.ngram import NGramModel
from torch_linguist.model.recurrent import GRU, LSTM, RNN
from torch_linguist.model.state import State, detach_state
from torch_linguist.model.stock_architecture import ExportSpecification
from torch_linguist.model.transformer import Transformer

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "ExportSpecification",
    "LanguageModel",
    "Mixture",
    "NGramModel",
    "Population",
    "State",
    "Transformer",
    "detach_state",
    "device_of",
    "evaluating",
]
