"""The files of a folder for `transformers`, and a reader that compares them with the model."""

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torch_linguist.data import Tokenizer
from torch_linguist.data.tokenizers.huggingface import to_huggingface
from torch_linguist.errors import LinguistError
from torch_linguist.export.torchscript import quiet_torchscript, scripted_bytes
from torch_linguist.model import LanguageModel

CODE = "modeling_torch_linguist.py"
"""Name of the file with the code of a model that `transformers` does not know."""


def write_folder(folder: Path, model: LanguageModel, tokenizer: Tokenizer, settings: Mapping[str, Any]) -> None:
    """Write weights, configuration and tokenizer into an empty folder.

    A model with a stock architecture is written as Mistral. Any other one becomes a TorchScript file with the code that
    calls it.

    Args:
        folder: an empty folder.
        model: model in evaluation mode.
        tokenizer: tokenizer of the model.
        settings: plain values to keep in the TorchScript file.
    """
    from safetensors.torch import save

    tokens = {"bos_token_id": tokenizer.eos_id, "eos_token_id": None, "pad_token_id": tokenizer.eos_id}
    config: dict[str, Any]
    try:
        stock = model.stock_architecture()
    except LinguistError:
        (folder / "model.jit").write_bytes(scripted_bytes(model, tokenizer, settings))
        code = resources.files("torch_linguist.export.huggingface").joinpath(CODE)
        (folder / CODE).write_text(code.read_text(encoding="utf-8"), encoding="utf-8")
        module = CODE.removesuffix(".py")
        config = {
            "architectures": ["LinguistForCausalLM"],
            "model_type": "torch_linguist",
            "auto_map": {
                "AutoConfig": f"{module}.LinguistConfig",
                "AutoModelForCausalLM": f"{module}.LinguistForCausalLM",
            },
            "vocab_size": model.vocab_size,
            "context_length": model.context_length,
            "use_cache": False,
        }
    else:
        config = stock.config
        # Two names for one tensor, or a part of a larger one, cannot be stored as they are.
        weights = save({name: weight.clone() for name, weight in stock.weights.items()}, {"format": "pt"})
        (folder / "model.safetensors").write_bytes(weights)
    generation = {
        **tokens,
        "suppress_tokens": [tokenizer.unk_id],
        "do_sample": False,
        "use_cache": config.get("use_cache", True),
    }
    description, names = to_huggingface(tokenizer)
    contents = {
        "config.json": {**config, **tokens, "dtype": "float32"},
        "generation_config.json": generation,
        "tokenizer.json": description,
        "tokenizer_config.json": names,
    }
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def readme(card: str, folder: Path) -> str:
    """Return a model card as the README of a folder: with metadata for the hub, and with how to use the model."""
    remote = (folder / CODE).is_file()
    trust = ", trust_remote_code=True" if remote else ""
    kind = (
        "`transformers` does not know this architecture, so the folder brings its own code, which runs `model.jit`. "
        f"Read `{CODE}` before you trust it.\n\n"
        if remote
        else "The architecture is `MistralForCausalLM`; within one window it is that of `LlamaForCausalLM` too.\n\n"
    )
    use = (
        "## Use\n\n"
        f"{kind}```python\nfrom transformers import pipeline\n\n"
        f'pipe = pipeline("text-generation", "FOLDER"{trust})\n'
        'print(pipe("The", max_new_tokens=40, skip_special_tokens=False)[0]["generated_text"])\n```\n\n'
        "A newline is the token that ends a line and stands before a text; `skip_special_tokens=False` keeps it.\n\n"
    )
    front = "---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n- torch-linguist\n---\n\n"
    head, data, rest = card.partition("## Data")
    return front + head + use + data + rest


class FolderReader:
    """A folder for `transformers`, called like a model. The state is the text so far, [1, B, T].

    Args:
        folder: the folder.
    """

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        try:
            # The code is the package's own, written a moment ago.
            with quiet_torchscript():
                self.model: Any = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
        finally:
            logging.set_verbosity(verbosity)
            logging.enable_progress_bar()

    def initial_state(self, batch_size: int) -> list[Tensor]:
        """Return the state before the first token."""
        return [torch.empty(1, batch_size, 0, dtype=torch.int64)]

    def __call__(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return logits [B, T, V] after tokens [B, T], and the new state."""
        text = torch.cat([state[0][0], tokens], dim=1)
        return self.model(input_ids=text, logits_to_keep=tokens.shape[1]).logits, [text[None]]
