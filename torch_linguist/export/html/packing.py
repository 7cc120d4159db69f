"""Models as bytes and a description that a page's own code can run.

Matrices become int8 with one float32 scale a row, vectors stay float32. An n-gram model becomes a trie with 8-bit
codes for its probabilities.

Shape legend: V vocabulary, M[k] n-grams of order k.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torch_linguist.errors import LinguistError
from torch_linguist.model import LanguageModel
from torch_linguist.model.ngram.estimation import BackoffModel
from torch_linguist.model.ngram.pruning import prune_entropy

MOST_NGRAMS = 4_000_000
"""n-grams of a page at most; a larger model is pruned by entropy, and the page says so."""

THRESHOLDS = tuple(10.0 ** (exponent / 2) for exponent in range(-20, -7))
"""Entropy thresholds that pruning tries, from mild to strong."""

CODES = 256
"""Different probabilities of an order that a page tells apart."""

TYPES = {"int8": np.int8, "uint8": np.uint8, "uint16": np.uint16, "uint32": np.uint32, "float32": np.float32}


@dataclass
class Blob:
    """Bytes of many arrays, each on a multiple of four.

    Attributes:
        content: the bytes so far.
    """

    content: bytearray = field(default_factory=bytearray)

    def add(self, array: NDArray[Any], kind: str) -> dict[str, Any]:
        """Append an array and return its entry: type, shape and offset."""
        offset = len(self.content)
        self.content += np.ascontiguousarray(array, TYPES[kind]).tobytes()
        self.content += bytes(-len(self.content) % 4)
        return {"type": kind, "shape": list(array.shape), "offset": offset}

    def add_tensor(self, tensor: Tensor) -> dict[str, Any]:
        """Append a weight: a matrix as int8 with a scale for each row, anything else as float32."""
        if tensor.dim() != 2:
            return self.add(tensor.detach().float().numpy(), "float32")
        codes, scales = quantized_rows(tensor)
        entry = self.add(codes.numpy(), "int8")
        return entry | {"scales": self.add(scales.numpy(), "float32")["offset"]}


def quantized_rows(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix as int8 codes and one scale for each row.

    Args:
        matrix: float [rows, columns].

    Returns:
        Codes, int8 [rows, columns], and scales, float32 [rows]; their product is the matrix but for rounding.
    """
    values = matrix.detach().float()
    scales = (values.abs().amax(dim=1) / 127).clamp(min=1e-12)
    return (values / scales[:, None]).round().clamp(-127, 127).to(torch.int8), scales


def rounded_copy(model: LanguageModel) -> LanguageModel:
    """A copy of a neural model, or a mixture of them, whose weights are those that a page holds.

    Args:
        model: without n-gram components.
    """
    duplicate = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in duplicate.parameters():
            if parameter.dim() == 2:
                codes, scales = quantized_rows(parameter)
                parameter.copy_(codes.to(parameter) * scales.to(parameter)[:, None])
    return duplicate


def pack(model: LanguageModel, blob: Blob, earlier: Sequence[LanguageModel] = ()) -> dict[str, Any]:
    """Append a model's weights and return the description that `modelOf` in the page takes.

    Args:
        model: any of the package's families.
        blob: takes the weights.
        earlier: models that the page holds already; a mixture of them refers to them.

    Raises:
        LinguistError: the page has no code for this model.
    """
    if parts := model.mixture():
        components = [
            {"family": "earlier", "run": earlier.index(component)} if component in earlier else pack(component, blob)
            for component, _ in parts
        ]
        return {"family": "mixture", "components": components, "weights": [weight for _, weight in parts]}
    if model.is_counted:
        return _pack_ngrams(model, blob)
    weights = model.state_dict()
    if "output.prior.weight" in weights:
        raise LinguistError("model.num_softmaxes: a page has no code for a mixture of softmaxes; use --jit or --onnx")
    if model.arguments.get("mogrifier_rounds") or model.arguments.get("capped_input_gate"):
        raise LinguistError("--html: a page has no code for model.mogrifier_rounds and capped_input_gate; use --jit")
    if "blocks.0.query_key_value.weight" in weights:
        description, names = _transformer(model, weights)
    elif model.export_specification().recurrent_kernel is not None:
        description, names = _recurrent(model, weights)
    else:
        raise LinguistError(
            f"{type(model).__name__}: a page has no code for it; it runs RNN, LSTM, GRU, Transformer, n-gram, mixtures"
        )
    description["output"], outputs, shared = _output(model, weights)
    tensors = {name: blob.add_tensor(weights[source]) for name, source in (names | outputs).items()}
    if "output.id_of_rank" in weights and description["output"]["kind"] == "adaptive":
        tensors["output.id_of_rank"] = blob.add(weights["output.id_of_rank"].numpy(), "uint32")
    return {**description, "tensors": tensors, "shared": shared}


def _recurrent(model: LanguageModel, weights: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, str]]:
    layers = sum(name.endswith("weight_ih_l0") for name in weights)
    names = {"embedding": "embedding.weight"}
    for layer in range(layers):
        for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            names[f"layers.{layer}.{part}"] = f"layers.{layer}.{part}_l0"
    if "projection.weight" in weights:
        names["projection"] = "projection.weight"
    return {
        "family": model.export_specification().recurrent_kernel,
        "layers": layers,
        "hidden": weights["layers.0.weight_hh_l0"].shape[1],
        "nonlinearity": model.arguments.get("nonlinearity", "tanh"),
    }, names


def _transformer(model: LanguageModel, weights: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, str]]:
    fixed = {
        "num_key_value_heads": (None, model.arguments["num_heads"]),
        "rotary_base": (1e4,),
        "norm_epsilon": (1e-6,),
        "activation": ("swiglu", "gelu"),
        "query_key_norm": (False,),
        "value_embeddings": (False,),
        "embedding_skip": (False,),
    }
    for name, values in fixed.items():
        if model.arguments.get(name, values[0]) not in values:
            raise LinguistError(
                f"--html: a page has no code for model.{name}={str(model.arguments[name]).lower()}; use --jit or --hf"
            )
    layers = sum(name.endswith("query_key_value.weight") for name in weights)
    names = {"embedding": "embedding.weight", "norm": "norm.weight"}
    parts = ("attention_norm", "query_key_value", "attention_out", "feed_forward_norm", "feed_forward_in")
    for layer in range(layers):
        for part in (*parts, "feed_forward_out"):
            names[f"blocks.{layer}.{part}"] = f"blocks.{layer}.{part}.weight"
    return {
        "family": "transformer",
        "layers": layers,
        "width": weights["embedding.weight"].shape[1],
        "heads": model.arguments["num_heads"],
        "context": model.context_length,
        "gated": model.arguments["activation"] == "swiglu",
    }, names


def _output(model: LanguageModel, weights: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, str], dict[str, str]]:
    """The output layer's description, its tensors by their source, and those that are the embedding itself."""
    tied = bool(model.arguments["tied"])
    if "output.head_bias" not in weights:
        names = {"output.bias": "output.bias"} | ({} if tied else {"output.weight": "output.weight"})
        return {"kind": "full"}, names, {"output.weight": "embedding"} if tied else {}
    clusters = sum(name.startswith("output.projections.") for name in weights)
    names = {"output.head_bias": "output.head_bias"}
    if clusters:
        names["output.cluster_weight"] = "output.cluster_weight"
    if not tied:
        names["output.head_weight"] = "output.head_weight"
    for index in range(clusters):
        names[f"output.projections.{index}"] = f"output.projections.{index}.weight"
        names |= {f"output.tails.{index}.{part}": f"output.tails.{index}.{part}" for part in ("weight", "bias")}
    head_size = len(weights["output.head_bias"]) - clusters
    description = {"kind": "adaptive", "head_size": head_size, "clusters": clusters, "tied": tied}
    return description, names, {"output.head_weight": "embedding"} if tied else {}


def page_ngrams(model: BackoffModel) -> tuple[BackoffModel, float]:
    """An n-gram model that is small enough for a page, and the entropy threshold that made it so (0 for none)."""
    if sum(model.sizes()) <= MOST_NGRAMS or model.unseen_backoff:
        return model, 0.0
    low, high = 0, len(THRESHOLDS) - 1
    smaller = prune_entropy(model, THRESHOLDS[high])
    while low < high:
        middle = (low + high) // 2
        tried = prune_entropy(model, THRESHOLDS[middle])
        if sum(tried.sizes()) <= MOST_NGRAMS:
            smaller, high = tried, middle
        else:
            low = middle + 1
    return smaller, THRESHOLDS[high]


def rounded_ngrams(model: BackoffModel) -> BackoffModel:
    """An n-gram model whose probabilities are those that a page holds."""
    pruned, _ = page_ngrams(model)
    levels = []
    for level in pruned.levels:
        (prob, probs), (backoff, backoffs) = coded(level.log_prob[:]), coded(level.log_backoff[:])
        levels.append(replace(level, log_prob=probs[prob].astype(float), log_backoff=backoffs[backoff].astype(float)))
    return replace(pruned, levels=tuple(levels))


def _pack_ngrams(model: LanguageModel, blob: Blob) -> dict[str, Any]:
    estimated, threshold = page_ngrams(model.backoff_model())  # type: ignore[operator]
    tensors = {"unigrams": blob.add(estimated.unigrams, "float32")}
    size = "uint16" if estimated.vocab_size <= 1 << 16 else "uint32"
    contexts = estimated.vocab_size
    for order, level in enumerate(estimated.levels, start=2):
        keys = level.keys[:]
        words = keys & ((1 << estimated.word_bits) - 1)
        starts = np.searchsorted(keys >> estimated.word_bits, np.arange(contexts + 1))
        tensors[f"order{order}.words"] = blob.add(words, size)
        tensors[f"order{order}.starts"] = blob.add(starts, "uint32")
        for name, book, values in (
            ("log_prob", "prob_book", level.log_prob[:]),
            ("log_backoff", "backoff_book", level.log_backoff[:]),
        ):
            codes, centers = coded(values)
            tensors[f"order{order}.{name}"] = blob.add(codes, "uint8")
            tensors[f"order{order}.{book}"] = blob.add(centers, "float32")
        contexts = len(level.keys)
    return {
        "family": "ngram",
        "order": len(estimated.levels) + 1,
        "unseen_backoff": estimated.unseen_backoff,
        "pruned": threshold,
        "tensors": tensors,
    }


def coded(values: NDArray[np.float64]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Numbers as one of 256 codes: bins of equal counts, each standing for its mean (Federico & Bertoldi 2006).

    Args:
        values: any number of them.

    Returns:
        The code of each value, and the value of each code [256].
    """
    if not len(values):
        return np.empty(0, np.uint8), np.zeros(CODES, np.float32)
    different = np.unique(values)
    if len(different) <= CODES:
        edges = different
    else:
        # Values that occur often, such as a backoff of zero, keep a bin of their own.
        edges = np.unique(np.quantile(values, np.linspace(0, 1, CODES + 1)[:-1], method="lower"))
    codes = np.searchsorted(edges, values, side="right") - 1
    counts = np.maximum(np.bincount(codes, minlength=CODES), 1)
    centers = np.bincount(codes, weights=values, minlength=CODES) / counts
    return codes.astype(np.uint8), centers.astype(np.float32)
