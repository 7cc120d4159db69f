"""The content of a GGUF file: sizes, weights and tokenizer in the terms of llama.cpp, and back.

Shape legend: A heads, E width of a head, D embedding.
"""

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import gguf
import numpy as np
import torch
from torch import Tensor, nn

from torch_linguist.data import Tokenizer
from torch_linguist.errors import LinguistError
from torch_linguist.model.stock_architecture import from_stock
from torch_linguist.runs.files import temporary_folder

if TYPE_CHECKING:
    from torch_linguist.model import LanguageModel

NEWLINE_SIGN = "Ċ"
"""Token of a newline in a byte-level vocabulary, which llama.cpp finds by its name."""


def gguf_bytes(network: nn.Module, tokenizer: Tokenizer, number_type: str, name: str) -> bytes:
    """Return the content of a file.

    Args:
        network: a Transformer with a stock architecture.
        tokenizer: byte-level BPE tokenizer of the model.
        number_type: `F32`, `F16` or `Q8_0`, of the weight matrices.
        name: name of the model.

    Raises:
        LinguistError: llama.cpp has no form for the model or its tokenizer.
    """
    stock = cast("LanguageModel", network).stock_architecture()
    tokens, merges = _vocabulary(tokenizer)
    config, kind = stock.config, gguf.GGMLQuantizationType[number_type]
    with temporary_folder("torch-linguist-gguf-") as folder:
        writer = gguf.GGUFWriter(folder / "model.gguf", "llama")
        writer.add_name(name)
        writer.add_file_type(gguf.LlamaFileType["ALL_F32" if number_type == "F32" else f"MOSTLY_{number_type}"])
        writer.add_context_length(config["sliding_window"])
        writer.add_embedding_length(config["hidden_size"])
        writer.add_block_count(config["num_hidden_layers"])
        writer.add_feed_forward_length(config["intermediate_size"])
        writer.add_head_count(config["num_attention_heads"])
        writer.add_head_count_kv(config["num_key_value_heads"])
        writer.add_rope_dimension_count(config["head_dim"])
        writer.add_rope_freq_base(config["rope_theta"])
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
        writer.add_vocab_size(config["vocab_size"])
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("gpt-2")
        writer.add_token_list([token for token, _ in tokens])
        writer.add_token_types([kind for _, kind in tokens])
        writer.add_token_merges(merges)
        writer.add_bos_token_id(tokenizer.eos_id)
        writer.add_eos_token_id(tokenizer.tokens.index(NEWLINE_SIGN))
        writer.add_add_bos_token(True)
        writer.add_add_eos_token(False)
        for tensor_name, values in _tensors(config, stock.weights).items():
            own = kind if values.ndim > 1 else gguf.GGMLQuantizationType.F32
            writer.add_tensor(tensor_name, gguf.quantize(values, own), raw_dtype=own)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return (folder / "model.gguf").read_bytes()


def read_gguf(path: Path, network: nn.Module) -> nn.Module:
    """Return a copy of a model with the weights of a file."""
    loaded = copy.deepcopy(network)
    model = cast("LanguageModel", loaded)
    config = model.stock_architecture().config
    stock_names = {own: name for name, own in _names(config["num_hidden_layers"]).items()}
    weights = {}
    for tensor in gguf.GGUFReader(path).tensors:
        values = np.array(gguf.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
        name = stock_names[tensor.name]
        if heads := _heads(name, config):
            values = _interleaved(values, heads, back=True)
        weights[name] = torch.from_numpy(values)
    own = from_stock(weights, model.arguments, str(path))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(own[name])
    return loaded


def rounded(model: "LanguageModel", number_type: str, option: str) -> nn.Module:
    """Return a copy of a model whose weight matrices are rounded to a number type.

    Raises:
        LinguistError: the rows of a matrix cannot be divided into the blocks of the type.
    """
    kind = gguf.GGMLQuantizationType[number_type]
    block = gguf.GGML_QUANT_SIZES[kind][0]
    duplicate = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in duplicate.named_parameters():
            if parameter.dim() < 2:
                continue
            if parameter.shape[1] % block:
                raise LinguistError(
                    f"{option}: the rows of {name} have {parameter.shape[1]} numbers, not a multiple of {block}; use "
                    "--quantize gguf-f16"
                )
            values = gguf.quantize(parameter.numpy(), kind)
            parameter.copy_(torch.from_numpy(np.array(gguf.dequantize(values, kind))))
    return duplicate


def _vocabulary(tokenizer: Tokenizer) -> tuple[list[tuple[str, int]], list[str]]:
    """Return the tokens with their types, and the merges.

    `<eos>` gets the name of a newline, which it stands for. The newline's own token, which no text of this package has,
    becomes the end of the text, so that a continuation does not stop with its first line.
    """
    description: dict[str, Any] = json.loads(tokenizer.to_json())
    if tokenizer.kind not in ("bpe", "byte") or tokenizer.transformed or NEWLINE_SIGN not in tokenizer.tokens:
        what = "transforms of the text" if tokenizer.transformed else f"tokenizer={tokenizer.kind}"
        raise LinguistError(f"--gguf: llama.cpp has no form for {what}; train with tokenizer=bpe, or export with --hf")
    ordinary, own = int(gguf.TokenType.NORMAL), int(gguf.TokenType.USER_DEFINED)
    tokens = [(token, ordinary) for token in tokenizer.tokens]
    tokens[tokenizer.tokens.index(NEWLINE_SIGN)] = ("<eos>", int(gguf.TokenType.CONTROL))
    tokens[tokenizer.eos_id] = (NEWLINE_SIGN, ordinary)
    tokens[tokenizer.unk_id] = (tokenizer.tokens[tokenizer.unk_id], own)
    merges = [one if isinstance(one, str) else " ".join(one) for one in description["model"]["merges"]]
    return tokens, merges


def _names(layers: int) -> dict[str, str]:
    """Return the names of llama.cpp by those of `transformers`."""
    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, layers)
    parts = ["input_layernorm", "post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
    parts += [f"self_attn.{one}_proj" for one in "qkvo"]
    names = ["model.embed_tokens", "model.norm", "lm_head"]
    names += [f"model.layers.{layer}.{part}" for layer in range(layers) for part in parts]
    return {f"{name}.weight": f"{table.get_name(name)}.weight" for name in names}


def _tensors(config: dict[str, Any], weights: dict[str, Tensor]) -> dict[str, np.ndarray]:
    names = _names(config["num_hidden_layers"])
    tensors = {}
    for name, weight in weights.items():
        values = np.ascontiguousarray(weight.float().cpu().numpy())
        if heads := _heads(name, config):
            values = _interleaved(values, heads)
        tensors[names[name]] = values
    return tensors


def _heads(name: str, config: dict[str, Any]) -> int:
    """Return the number of heads of a weight that makes queries or keys; 0 for any other weight."""
    if name.endswith("q_proj.weight"):
        return int(config["num_attention_heads"])
    return int(config["num_key_value_heads"]) if name.endswith("k_proj.weight") else 0


def _interleaved(values: np.ndarray, heads: int, *, back: bool = False) -> np.ndarray:
    """Reorder the rows [A * E, D] of queries or keys: llama.cpp rotates neighbors, this package opposite halves."""
    halves = (-1, 2) if back else (2, -1)
    split = values.reshape(heads, halves[0], halves[1], values.shape[1])
    return np.ascontiguousarray(split.swapaxes(1, 2).reshape(values.shape))
