"""A model of torch-linguist for `transformers`: the TorchScript file beside this one, behind the usual interface.

Load it with `AutoModelForCausalLM.from_pretrained(FOLDER, trust_remote_code=True)`; torch_linguist is not needed.
"""

# mypy: ignore-errors
import itertools
import shutil
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import GenerationConfig, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput
from transformers.utils import cached_file

NETWORK = "model.jit"


class LinguistConfig(PretrainedConfig):
    """Sizes of the vocabulary and of the context (0 if unbounded)."""

    model_type = "torch_linguist"

    def __init__(self, vocab_size: int = 0, context_length: int = 0, **others: Any) -> None:
        self.vocab_size, self.context_length = vocab_size, context_length
        super().__init__(**others)


class LinguistForCausalLM(PreTrainedModel, GenerationMixin):
    """Next-token logits of any model of torch-linguist.

    The state after the last tokens is kept: a text that continues the one before is not read again. Generation
    therefore passes the whole text and needs no cache.
    """

    config_class = LinguistConfig
    _tied_weights_keys: ClassVar[dict] = {}

    def __init__(self, config: LinguistConfig, network: torch.nn.Module) -> None:
        super().__init__(config)
        self.network = network
        self._text: Tensor | None = None
        self._state: list[Tensor] = []

    @property
    def device(self) -> torch.device:
        """Device of the first weight or table."""
        return next(itertools.chain(self.parameters(), self.buffers()), torch.empty(0)).device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights; counted models have none."""
        return next(iter(self.parameters()), torch.empty(0)).dtype

    @classmethod
    def from_pretrained(
        cls, folder: str, *_: Any, config: LinguistConfig | None = None, **options: Any
    ) -> "LinguistForCausalLM":
        """Load a folder, or a repository on the hub."""
        known = ("cache_dir", "force_download", "local_files_only", "revision", "token", "subfolder")
        hub = {name: options[name] for name in known if options.get(name) is not None}
        network = torch.jit.load(cached_file(folder, NETWORK, **hub), map_location="cpu")
        model = cls(config or LinguistConfig.from_pretrained(folder, **hub), network)
        model.generation_config = GenerationConfig.from_pretrained(folder, **hub)
        dtype = options.get("dtype", options.get("torch_dtype"))
        return (model.to(dtype) if isinstance(dtype, torch.dtype) else model).eval()

    def save_pretrained(self, folder: str, **_: Any) -> None:
        """Write the configuration, the network and this file; the tokenizer has its own `save_pretrained`."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        self.config.save_pretrained(folder)
        self.generation_config.save_pretrained(folder)
        torch.jit.save(self.network, Path(folder) / NETWORK)
        if not (target := Path(folder) / Path(__file__).name).exists():
            shutil.copy(__file__, target)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int = 0,
        **_: Any,
    ) -> CausalLMOutput:
        """Return the logits [B, T, V], or those of the last `logits_to_keep` tokens, and the loss of the labels."""
        if attention_mask is not None and not bool(attention_mask.all()):
            logits = self._padded(input_ids, attention_mask.bool())
        else:
            logits = self._logits(input_ids, logits_to_keep)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=-100)
        return CausalLMOutput(loss=loss, logits=logits[:, -logits_to_keep:] if logits_to_keep else logits)

    def prepare_inputs_for_generation(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any) -> dict:
        """Return the whole text; `forward` reads what is new of it."""
        return {"input_ids": input_ids, "attention_mask": attention_mask, "logits_to_keep": 1}

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False

    def _logits(self, tokens: Tensor, wanted: int) -> Tensor:
        if torch.is_grad_enabled():
            return self.network(tokens, self.network.initial_state(len(tokens)))[0]
        done = 0 if self._text is None else self._text.shape[1]
        fits = wanted and 0 < done <= tokens.shape[1] - wanted and len(tokens) == len(self._text)
        if fits and torch.equal(self._text, tokens[:, :done]):
            logits, state = self.network(tokens[:, done:], self._state)
        else:
            logits, state = self.network(tokens, self.network.initial_state(len(tokens)))
        self._text, self._state = tokens.clone(), state
        return logits

    def _padded(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return the logits of texts of different lengths, read one by one; padding gets zeros."""
        rows = []
        for ids, kept in zip(tokens, mask, strict=True):
            logits, _ = self.network(ids[kept][None], self.network.initial_state(1))
            row = logits.new_zeros(len(ids), logits.shape[-1])
            row[kept] = logits[0]
            rows.append(row)
        return torch.stack(rows)
