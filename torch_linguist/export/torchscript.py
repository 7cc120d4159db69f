"""A model and its tokenizer as one TorchScript module that runs without torch_linguist.

Shape legend: B batch, T time, V vocabulary.
"""

import io
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from torch_linguist.data import Tokenizer
from torch_linguist.export.scripted import ScriptedTokenizer
from torch_linguist.generation.sampling import filter_logits
from torch_linguist.runs.files import finite


class ScriptedModel(nn.Module):
    """The module in a `.jit` file: `forward` and `initial_state` of the contract, and text to text.

    Args:
        model: scriptable model.
        tokenizer: tokenizer that the model was trained with.
    """

    def __init__(self, model: nn.Module, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.model = model
        self.text = ScriptedTokenizer(tokenizer)
        self.vocab_size: int = int(model.vocab_size)  # type: ignore[arg-type]
        self.context_length: int = int(model.context_length)  # type: ignore[arg-type]

    def forward(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return logits [B, T, V] after tokens [B, T], and the new state."""
        logits, new_state = self.model(tokens, state)
        return logits, new_state

    @torch.jit.export
    def initial_state(self, batch_size: int) -> list[Tensor]:
        """Return the state before the first token."""
        state: list[Tensor] = self.model.initial_state(batch_size)  # type: ignore[operator]
        return state

    @torch.jit.export
    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text."""
        return self.text.encode(text)

    @torch.jit.export
    def generate(
        self,
        prompt: str,
        max_tokens: int = 50,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = -1,
        stop_at_eos: bool = False,
    ) -> str:
        """Return a prompt and its continuation. Temperature 0 is greedy; a negative seed draws a fresh one."""
        ids = [self.text.eos_id] + self.text.encode(prompt)  # noqa: RUF005  (TorchScript)
        added = self.generate_ids(ids, max_tokens, temperature, top_k, top_p, seed, stop_at_eos)
        return prompt + self.text.decode(added, ids)

    @torch.jit.export
    def generate_ids(
        self,
        prompt: list[int],
        max_tokens: int = 50,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = -1,
        stop_at_eos: bool = False,
    ) -> list[int]:
        """Return the ids that continue a prompt of ids, which starts with <eos>; a final <eos> is left out."""
        if temperature < 0.0 or top_p <= 0.0 or top_p > 1.0 or max_tokens < 1:
            raise ValueError("temperature must be at least 0, top_p in (0, 1], max_tokens at least 1")
        if seed >= 0:
            torch.manual_seed(seed)
        state: list[Tensor] = self.model.initial_state(1)  # type: ignore[operator]
        tokens = torch.tensor([prompt])
        added: list[int] = []
        with torch.no_grad():
            for _ in range(max_tokens):
                logits, state = self.model(tokens, state)
                last = logits[:, -1].float().cpu()
                last[:, self.text.unk_id] = float("-inf")
                if temperature == 0.0:
                    token = int(last.argmax())
                else:
                    kept = filter_logits(last, temperature, top_k, top_p, 0.0, 1.0)
                    token = int(torch.multinomial(torch.softmax(kept, dim=-1), 1))
                if stop_at_eos and token == self.text.eos_id:
                    break
                added.append(token)
                tokens = torch.tensor([[token]])
        return added


def scripted_bytes(network: nn.Module, tokenizer: Tokenizer, settings: Mapping[str, Any]) -> bytes:
    """Return the content of a TorchScript file.

    It is serialized in memory: writing to a full disk would end the process in C++.

    Args:
        network: module in evaluation mode with `forward`, `initial_state`, `vocab_size` and `context_length`.
        tokenizer: tokenizer that the model was trained with.
        settings: plain values to keep in `settings.json`.
    """
    content = {"vocab_size": len(tokenizer.tokens), "eos_id": tokenizer.eos_id, "unk_id": tokenizer.unk_id}
    extra = {
        "tokenizer.json": tokenizer.to_json(),
        "vocabulary.json": json.dumps(tokenizer.tokens, ensure_ascii=False),
        "settings.json": json.dumps(finite({**content, **settings}), ensure_ascii=False, allow_nan=False),
    }
    buffer = io.BytesIO()
    with quiet_torchscript():
        scripted = torch.jit.script(ScriptedModel(network, tokenizer).eval())
        torch.jit.save(scripted, buffer, _extra_files=extra)
    return buffer.getvalue()


@contextmanager
def quiet_torchscript() -> Iterator[None]:
    """Silence the deprecation warnings of TorchScript."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`torch.jit", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message="`torch.jit", category=FutureWarning)
        yield
