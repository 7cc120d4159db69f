"""Runs behind the interface of EleutherAI's lm-evaluation-harness (`pip install "torch-linguist[lm-eval]"`).

Importing this module registers the model `torch_linguist`; `python -m torch_linguist.cli.lm_eval` is the harness's own
command with the model registered.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model
from torch import Tensor

from torch_linguist.checkpoint import load_run
from torch_linguist.evaluation.parallel_reading import Measure
from torch_linguist.evaluation.texts.batched_reading import BATCH_TOKENS, Ids, RowReader
from torch_linguist.generation.continuing import continue_prompt
from torch_linguist.generation.sampling import Sampling
from torch_linguist.model import State

MAX_TOKENS = 256
"""Length of a continuation for which a task sets no limit."""


@register_model("torch_linguist")
class HarnessModel(LM):  # type: ignore[misc]
    """A finished run, of any family, as a model of the harness.

    A text is read as `tl-eval` reads it: it begins after `<eos>`, and each newline is an `<eos>`.

    Args:
        run: run folder.
        device: device to compute on; without CUDA it is the CPU.
        others: settings of the harness that have no meaning here, such as the batch size.

    Raises:
        LinguistError: the folder is no run.
    """

    def __init__(self, run: str, device: str | None = None, **others: Any) -> None:
        super().__init__()
        loaded = load_run(Path(run).expanduser())
        self.model, self.linguist_tokenizer = loaded.model, loaded.tokenizer
        # The harness asks for CUDA unless told otherwise.
        self.model.to(device if device and torch.cuda.is_available() else "cpu")

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Return the log-likelihood of each continuation, and whether it is the most probable one token by token."""
        rows, lengths = [], []
        for request in requests:
            context, continuation = request.args
            # Words begin with their blank, so a blank at the end of the context belongs to the continuation.
            kept = context.rstrip()
            whole = self.linguist_tokenizer.encode(context + continuation)
            rows.append(np.array(whole, np.int64))
            lengths.append(len(whole) - len(self.linguist_tokenizer.encode(kept)))
        results = []
        for length, measured in zip(lengths, self._read(rows, self._measure), strict=True):
            if length <= 0:
                results.append((0.0, True))
                continue
            nll, best = (tensor[-length:] for tensor in measured)
            results.append((-float(nll.sum()), bool(best.all())))
        return results

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Return the log-likelihood of each text, with an `<eos>` for the end of its last line."""

        def nll(tokens: Tensor, targets: Tensor, state: State) -> tuple[tuple[Tensor, ...], State]:
            measured, new_state = self.model.nll(tokens, targets, state)
            return (measured.double(),), new_state

        texts = [str(request.args[0]) for request in requests]
        closed = [text if text.endswith("\n") else f"{text}\n" for text in texts]
        rows = [np.array(self.linguist_tokenizer.encode(text), np.int64) for text in closed]
        return [-float(measured[0].sum()) for measured in self._read(rows, nll)]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Return the continuation of each context up to a stop text."""
        return [self._continuation(*request.args) for request in requests]

    def _continuation(self, context: str, options: dict[str, Any]) -> str:
        stops = options.get("until") or []
        temperature = float(options.get("temperature") or 0.0)
        if temperature > 0 and options.get("do_sample", True):
            chosen = {name: options[name] for name in ("top_k", "top_p") if options.get(name)}
            sampling = Sampling(temperature=temperature, **chosen)
        else:
            sampling = Sampling(greedy=True)
        found = continue_prompt(
            self.model,
            self.linguist_tokenizer,
            context,
            sampling,
            max_tokens=int(options.get("max_gen_toks") or MAX_TOKENS),
            stop=[stops] if isinstance(stops, str) else list(stops),
            seed=0,
        )
        return found[0].new_text

    def _read(self, rows: Sequence[Ids], measure: Measure) -> list[tuple[Tensor, ...]]:
        """Return the measures [N, ...] of each row of ids [N]."""
        reader = RowReader(self.model, self.linguist_tokenizer.eos_id, running=False, batch_tokens=BATCH_TOKENS)
        lengths = [len(row) for row in rows]
        tensors = reader.read(np.concatenate([*rows, np.empty(0, np.int64)]), np.array(lengths, np.int64), measure)
        parts = [torch.split(tensor, lengths) for tensor in tensors]
        return [tuple(part[place] for part in parts) for place in range(len(rows))]

    def _measure(self, tokens: Tensor, targets: Tensor, state: State) -> tuple[tuple[Tensor, ...], State]:
        logits, new_state = self.model(tokens, state)
        nll = F.cross_entropy(logits.flatten(0, 1).double(), targets.flatten(), reduction="none").view_as(targets)
        return (nll, logits.argmax(-1) == targets), new_state


__all__ = ["HarnessModel"]
