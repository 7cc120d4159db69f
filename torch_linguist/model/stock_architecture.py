"""The Transformer in the terms of Llama and Mistral, as `transformers` names their settings and weights.

With SwiGLU, one linear output and no bias, a `Transformer` computes what `MistralForCausalLM` computes with
`sliding_window=context_length`, for a text of any length. Within one window that is `LlamaForCausalLM` too.

Shape legend: V vocabulary, D embedding, A attention heads, G key/value heads, E = D / A, F inner width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torch_linguist.errors import LinguistError

MODEL_TYPES = ("llama", "mistral")
"""Values of `model_type` in a `config.json` that can be read."""

_BLOCK_WEIGHTS = {
    "attention_norm": "input_layernorm",
    "attention_out": "self_attn.o_proj",
    "feed_forward_norm": "post_attention_layernorm",
    "feed_forward_out": "mlp.down_proj",
}
_PACKED_WEIGHTS = {
    "query_key_value": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "feed_forward_in": ("mlp.gate_proj", "mlp.up_proj"),
}
_OUTER_WEIGHTS = {"embedding.weight": "model.embed_tokens.weight", "norm.weight": "model.norm.weight"}


@dataclass(frozen=True)
class ExportSpecification:
    """What exporters need to know about a model beyond its contract.

    Attributes:
        traceable: whether `forward` is a graph of tensor operations, as torch.export and ONNX require.
        recurrent_kernel: the fused kernel that runs over time: `lstm`, `gru` or `rnn`; None if there is none.
        cache_axis: axis of the state tensors that grows with the text (a key/value cache); None if their size is fixed.

    Example:
        >>> LSTM(100, embedding_dim=8, hidden_size=8).export_specification().recurrent_kernel
        'lstm'
    """

    traceable: bool = False
    recurrent_kernel: str | None = None
    cache_axis: int | None = None


@dataclass(frozen=True)
class StockArchitecture:
    """A model as Mistral.

    Attributes:
        config: the entries of `config.json` that describe the architecture.
        weights: tensors by their names in `transformers`; a tied output is left out.
    """

    config: dict[str, Any]
    weights: dict[str, Tensor]


def to_stock(arguments: Mapping[str, Any], weights: Mapping[str, Tensor], context_length: int) -> StockArchitecture:
    """Return a Transformer as Mistral.

    Args:
        arguments: arguments of its constructor.
        weights: its weights by name.
        context_length: number of tokens that a prediction can see in each layer.

    Raises:
        LinguistError: the model has a bias, an adaptive output, several softmaxes or no gate, which neither Llama nor
            Mistral has.
    """
    _check_arguments(arguments)
    heads = arguments["num_heads"]
    width = weights["embedding.weight"].shape[1]
    groups = arguments.get("num_key_value_heads") or heads
    sizes = [width, groups * width // heads, groups * width // heads]
    layers = arguments["num_layers"]
    stock = {name: weights[own] for own, name in _OUTER_WEIGHTS.items()}
    for layer in range(layers):
        for own, name in _BLOCK_WEIGHTS.items():
            stock[f"model.layers.{layer}.{name}.weight"] = weights[f"blocks.{layer}.{own}.weight"]
        for own, names in _PACKED_WEIGHTS.items():
            packed = weights[f"blocks.{layer}.{own}.weight"]
            parts = torch.split(packed, sizes) if len(names) == len(sizes) else packed.chunk(2)
            stock |= {f"model.layers.{layer}.{name}.weight": part for name, part in zip(names, parts, strict=True)}
    if not arguments["tied"]:
        stock["lm_head.weight"] = weights["output.weight"]
    base = float(arguments.get("rotary_base", 10000.0))
    config = {
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "vocab_size": len(weights["embedding.weight"]),
        "hidden_size": width,
        "intermediate_size": weights["blocks.0.feed_forward_out.weight"].shape[1],
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "head_dim": width // heads,
        "hidden_act": "silu",
        "rms_norm_eps": float(arguments.get("norm_epsilon", 1e-6)),
        # Version 5 of transformers reads the mapping, earlier versions and llama.cpp's converter the number.
        "rope_parameters": {"rope_type": "default", "rope_theta": base},
        "rope_theta": base,
        "sliding_window": context_length,
        "max_position_embeddings": max(context_length, LONGEST_TEXT),
        "tie_word_embeddings": bool(arguments["tied"]),
        "attention_dropout": 0.0,
    }
    return StockArchitecture(config, {name: tensor.detach().contiguous() for name, tensor in stock.items()})


def _check_arguments(arguments: Mapping[str, Any]) -> None:
    required = {
        "output_bias": (False,),
        "activation": ("swiglu",),
        "output": ("full", "sampled", "auto"),
        "num_softmaxes": (1,),
        "query_key_norm": (False,),
        "value_embeddings": (False,),
        "embedding_skip": (False,),
    }
    for name, wanted in required.items():
        # Checkpoints of earlier versions lack the newer arguments; their output had a bias.
        value = arguments.get(name, name == "output_bias" or wanted[0])
        if value not in wanted:
            shown = str(value).lower()
            raise LinguistError(
                f"model.{name}={shown}: Llama and Mistral have no such layer; train with model.{name}="
                f"{str(wanted[0]).lower()}, or export with --hf or --jit"
            )


LONGEST_TEXT = 8192
"""Smallest length of a text that an exported model announces: its window slides, so nothing limits the length."""


def arguments_of(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the arguments of the `Transformer` that a `config.json` of Llama or Mistral describes.

    Args:
        config: content of `config.json`.
        where: its path, for messages.

    Raises:
        LinguistError: another architecture, or a setting that the Transformer does not have.
    """
    kind = config.get("model_type")
    if kind not in MODEL_TYPES:
        raise LinguistError(
            f"{where}: model_type={kind!r} is not known; give a checkpoint of {' or '.join(MODEL_TYPES)}"
        )
    try:
        heads, width = int(config["num_attention_heads"]), int(config["hidden_size"])
        rotary = config.get("rope_parameters") or {}
        scaling = rotary.get("rope_type") or (config.get("rope_scaling") or {}).get("rope_type", "default")
        limits = {
            "hidden_act": config.get("hidden_act", "silu") == "silu",
            "head_dim": config.get("head_dim") in (None, width // heads),
            "attention_bias": not config.get("attention_bias"),
            "mlp_bias": not config.get("mlp_bias"),
            "rope_scaling": scaling == "default",
            "layer_types": len(set(config.get("layer_types") or ())) < 2,
        }
        if wrong := [name for name, holds in limits.items() if not holds]:
            raise LinguistError(
                f"{where}: {wrong[0]}={config.get(wrong[0], rotary)!r} has no counterpart in model=transformer; "
                "give another checkpoint"
            )
        longest = int(config.get("max_position_embeddings") or 2048)
        return {
            "embedding_dim": width,
            "num_layers": int(config["num_hidden_layers"]),
            "num_heads": heads,
            "num_key_value_heads": int(config.get("num_key_value_heads") or heads),
            "feed_forward_size": int(config["intermediate_size"]),
            "activation": "swiglu",
            "tied": bool(config.get("tie_word_embeddings", False)),
            "context_length": int(config.get("sliding_window") or longest) if kind == "mistral" else longest,
            "rotary_base": float(rotary.get("rope_theta") or config.get("rope_theta") or 10000.0),
            "norm_epsilon": float(config.get("rms_norm_eps", 1e-6)),
            "output_bias": False,
        }
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        if isinstance(error, LinguistError):
            raise
        raise LinguistError(
            f"{where}: not the config.json of a {kind} model ({error!r}); give another folder"
        ) from error


def from_stock(weights: Mapping[str, Tensor], arguments: Mapping[str, Any], where: str) -> dict[str, Tensor]:
    """Return the weights of a `Transformer` from those of Llama or Mistral.

    Args:
        weights: tensors by their names in `transformers`.
        arguments: result of `arguments_of`.
        where: path of the checkpoint, for messages.

    Raises:
        LinguistError: a tensor is missing, or there are more than the model has.
    """
    left = dict(weights)

    def take(name: str) -> Tensor:
        try:
            return left.pop(f"{name}.weight")
        except KeyError as error:
            raise LinguistError(f"{where}: has no weights {name}.weight; it is not a complete checkpoint") from error

    own = {name: take(stock.removesuffix(".weight")) for name, stock in _OUTER_WEIGHTS.items()}
    for layer in range(arguments["num_layers"]):
        for name, stock in _BLOCK_WEIGHTS.items():
            own[f"blocks.{layer}.{name}.weight"] = take(f"model.layers.{layer}.{stock}")
        for name, parts in _PACKED_WEIGHTS.items():
            own[f"blocks.{layer}.{name}.weight"] = torch.cat([take(f"model.layers.{layer}.{part}") for part in parts])
    if arguments["tied"]:
        left.pop("lm_head.weight", None)
    else:
        own["output.weight"] = take("lm_head")
    if surplus := [name for name in left if not name.endswith("rotary_emb.inv_freq")]:
        raise LinguistError(f"{where}: has weights that its config.json does not describe, such as {surplus[0]}")
    return own
