"""The training step, compiled by torch.compile: fewer and larger kernels, for a wait before the first update.

What is compiled is the model's path from the tokens to the hidden vectors, forward and backward. The loss stays as it
is: it is fused by hand, in chunks whose number hangs on the batch, and writes into memory of its own, of which a
compiler makes nothing better. The compiled code belongs to the training, not to the model, which is copied, scripted
and saved as ever; validation, scores and export run the plain model.

Compiled sums differ from plain ones in their last digits, and dropout draws other masks from the same seed.

Shape legend: B batch, T time, H hidden.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Literal, cast

import torch
from torch import Tensor

from torch_linguist.distributed import processes
from torch_linguist.model import LanguageModel, State, device_of
from torch_linguist.model.precision import autocast
from torch_linguist.trainer.callback import Callback
from torch_linguist.trainer.context import TrainingContext, make_batches
from torch_linguist.trainer.loop import Nll
from torch_linguist.trainer.randomness import own_randomness

Forward = Callable[[Tensor, State], tuple[Tensor, State]]


def is_worth_compiling(model: LanguageModel, device: torch.device) -> bool:
    """What `trainer.compile=auto` means: a model with a bounded context on CUDA.

    On a CPU the default Transformer gains a twentieth of its step in float32 and nothing in bfloat16, after a wait of
    20 to 110 seconds. The recurrent families spend their time in fused kernels that the compiler does not take.

    Args:
        model: any.
        device: that it is trained on.
    """
    return device.type == "cuda" and model.context_length > 0


class CompiledStep:
    """Stands for `model.nll` in training; where compiling fails, it is `model.nll` from then on.

    A batch of another shape is compiled once more, with that dimension left open, so that a training compiles two or
    three times at most.

    Args:
        model: whose weights are trained; nothing is put on it.
        observer: is told of a failure, once.

    Attributes:
        compiled: whether compiling has not failed so far.
    """

    def __init__(self, model: LanguageModel, observer: Callback) -> None:
        self._model, self._observer = model, observer
        self.compiled = True
        # In one graph or not at all: torch.compile would otherwise leave out what it cannot take without a word, of the
        # recurrent families everything.
        if model.has_hidden:
            hidden = cast(Forward, torch.compile(model.hidden, fullgraph=True))
            self._nll: Nll = partial(_nll_of_hidden, model, hidden)
        else:  # A loss of its own is compiled with the rest.
            self._nll = cast(Nll, torch.compile(model.nll, fullgraph=True))

    def __call__(self, tokens: Tensor, targets: Tensor, state: State) -> tuple[Tensor, State]:
        """The nll [B, T] of targets [B, T] after tokens [B, T], and the new state."""
        if self.compiled:
            try:
                return self._nll(tokens, targets, state)
            except _compile_errors() as error:
                self.give_up(error)
        return self._model.nll(tokens, targets, state)

    def give_up(self, error: Exception) -> None:
        """Goes on without compiling, and says why."""
        self.compiled = False
        self._observer.noted(
            f"trainer.compile: this model cannot be compiled here ({_reason(error)}); its training "
            "goes on without, as with trainer.compile=false"
        )


def _nll_of_hidden(
    model: LanguageModel, hidden_of: Forward, tokens: Tensor, targets: Tensor, state: State
) -> tuple[Tensor, State]:
    hidden, new_state = hidden_of(tokens, state)
    return model.hidden_nll(hidden, targets), new_state


def _compile_errors() -> tuple[type[Exception], ...]:
    """What compiling fails with; importing it takes a second, which is for those who compile."""
    from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

    return TorchDynamoException, FailOnRecompileLimitHit


def compiled_step(model: LanguageModel, context: TrainingContext, observer: Callback) -> CompiledStep | None:
    """The compiled training step, if the settings want one; compiling is done when this returns.

    It runs a batch forward and backward before the training's clock starts, and leaves weights, gradients and random
    states as they were.

    Args:
        model: to be trained.
        context: corpus and settings.
        observer: is told how long it took, or why it could not be.

    Returns:
        The step; None where the plain model is trained.
    """
    choice: bool | Literal["auto"] = context.settings.compile
    device = device_of(model)
    if not (is_worth_compiling(model, device) if choice == "auto" else choice):
        return None
    begin = time.perf_counter()
    step = CompiledStep(model, observer)
    try:
        _try(step, model, context)
    except _compile_errors() as error:  # Of the backward pass.
        step.give_up(error)
    if not step.compiled:
        return None
    observer.noted(f"trainer.compile: the training step was compiled in {time.perf_counter() - begin:.1f} s")
    return step


def _try(step: CompiledStep, model: LanguageModel, context: TrainingContext) -> None:
    """One batch forward and backward, without a trace in the model."""
    settings, device, mode = context.settings, device_of(model), model.training
    batch = make_batches(context.corpus.train, settings, bool(model.context_length), context.seed).next()
    own = processes.local_rows(len(batch.tokens))
    tokens, targets = batch.tokens[own].to(device), batch.targets[own].to(device)
    try:
        with own_randomness(context.seed):
            model.train()
            with autocast(device, settings.precision):
                nll, _ = step(tokens, targets, model.initial_state(len(tokens)))
            (nll.sum() / nll.numel()).backward()  # type: ignore[no-untyped-call]
    finally:
        model.zero_grad(set_to_none=True)
        model.train(mode)


def _reason(error: BaseException) -> str:
    """The cause in one line: the compiler's own messages run over pages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__


__all__ = ["CompiledStep", "compiled_step", "is_worth_compiling"]
