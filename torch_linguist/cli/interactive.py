"""`tl-generate -i`: suggestions for the next word while a person types a line.

On a terminal `prompt_toolkit` shows them as a menu under the line; without it, or without a terminal, they come as a
line of text after each line that is entered.
"""

import math
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch_linguist.data import Tokenizer
    from torch_linguist.generation import Suggester
    from torch_linguist.model import LanguageModel

COUNT = 6
"""Suggestions at a time."""

LONGEST_CONTEXT = 4000
"""Characters of the lines before."""

WELCOME = "type a line; Tab or the arrows choose a suggestion, Enter tells how surprising the line was, Ctrl-D ends"


def interact(model: "LanguageModel", tokenizer: "Tokenizer") -> None:
    """Reads lines until there are no more; each one that is entered becomes the context of the next.

    Args:
        model: any model.
        tokenizer: the one it was trained with.
    """
    from torch_linguist.generation import Suggester

    suggester = Suggester(model, tokenizer)
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    context = _Context()
    for line in _typed_lines(suggester, context) if terminal else _plain_lines(suggester, context):
        print(_verdict(model, tokenizer, context.text, line), flush=True)
        context.add(line)


class _Context:
    """The lines that were entered, as far back as a suggestion looks."""

    text = ""

    def add(self, line: str) -> None:
        self.text = f"{self.text}{line}\n"[-LONGEST_CONTEXT:]


def _plain_lines(suggester: "Suggester", context: _Context) -> Iterator[str]:
    for entered in sys.stdin:
        line = entered.rstrip("\n")
        found = suggester.suggest(context.text + line, COUNT)
        yield line
        print("  next: " + (", ".join(f"{one.word} {one.probability:.3f}" for one in found) or "nothing"), flush=True)


def _typed_lines(suggester: "Suggester", context: _Context) -> Iterator[str]:
    try:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import Completer, Completion
    except ImportError:
        print('suggestions while typing need: pip install "torch-linguist[interactive]"; here they follow each line')
        yield from _plain_lines(suggester, context)
        return

    class Words(Completer):
        """The suggestions of a model as completions of the line."""

        def get_completions(self, document: Any, complete_event: Any) -> Iterable[Completion]:
            del complete_event
            for one in suggester.suggest(context.text + document.text_before_cursor, COUNT):
                yield Completion(one.completion, display=one.word, display_meta=f"{one.probability:.1%}")

    session: PromptSession[str] = PromptSession(
        completer=Words(), complete_while_typing=True, complete_in_thread=True, reserve_space_for_menu=COUNT + 1
    )
    print(WELCOME)
    while True:
        try:
            yield session.prompt("> ")
        except EOFError:
            return


def _verdict(model: "LanguageModel", tokenizer: "Tokenizer", context: str, line: str) -> str:
    """How surprising a line was, as a whole and at its least expected token."""
    import torch

    from torch_linguist.generation.continuing import prompt_tokens

    before = prompt_tokens(tokenizer, context)
    ids = tokenizer.encode(line)
    if not ids:
        return "  (an empty line)"
    with torch.inference_mode():
        every = torch.tensor([[*before, *ids]])
        nll = model.nll(every[:, :-1], every[:, 1:], model.initial_state(1))[0][0, -len(ids) :].double()
    worst = int(nll.argmax())
    return (
        f"  perplexity {math.exp(min(float(nll.mean()), 700)):,.1f} over {len(ids)} tokens; least expected: "
        f"{tokenizer.surface(ids[worst]).strip() or 'a blank'} ({float(torch.exp(-nll[worst])):.1e})"
    )


__all__ = ["interact"]
