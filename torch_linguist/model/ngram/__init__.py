"""N-gram models: counting, smoothing and querying, on sorted arrays in memory or on disk."""

from torch_linguist.model.ngram.arpa_reading import read_arpa
from torch_linguist.model.ngram.arpa_writing import write_arpa
from torch_linguist.model.ngram.model import NGramModel
from torch_linguist.model.ngram.pruning import prune_entropy

__all__ = ["NGramModel", "prune_entropy", "read_arpa", "write_arpa"]
