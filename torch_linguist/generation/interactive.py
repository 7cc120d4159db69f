"""Interactive suggestions for the next word while a line is typed.

On a terminal `prompt_toolkit` shows them as a menu below the line. Without it, or without a terminal, they follow each
line that is entered.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch_linguist.data import Tokenizer
from torch_linguist.generation.prompts import line_surprise
from torch_linguist.generation.suggestions import Suggester
from torch_linguist.model import LanguageModel
from torch_linguist.runs.visible_text import visible

Say = Callable[[str], None]

COUNT = 6
"""Number of suggestions at a time."""

LONGEST_CONTEXT = 4000
"""Characters of the previous lines that are kept as context."""

WELCOME = "type a line; Tab or arrows choose a suggestion, Enter shows how surprising the line was, Ctrl-D ends"


def interact(model: LanguageModel, tokenizer: Tokenizer, say: Say) -> None:
    """Read lines from standard input until it ends; each entered line becomes context of the next.

    Args:
        model: any model.
        tokenizer: tokenizer that the model was trained with.
        say: called with each line of output.
    """
    suggester, context = Suggester(model, tokenizer), _Context()
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    for line in _typed_lines(suggester, context, say) if terminal else _plain_lines(suggester, context, say):
        found = line_surprise(model, tokenizer, context.text, line)
        if found is None:
            say("  (an empty line)")
        else:
            token = found.least_expected.strip() or "a blank"
            say(
                f"  perplexity {found.perplexity:,.1f} over {found.tokens} tokens; "
                f"least expected: {token} ({found.probability:.1e})"
            )
        context.add(line)


class _Context:
    text = ""

    def add(self, line: str) -> None:
        self.text = f"{self.text}{line}\n"[-LONGEST_CONTEXT:]


def _plain_lines(suggester: Suggester, context: _Context, say: Say) -> Iterator[str]:
    for entered in sys.stdin:
        line = entered.rstrip("\n")
        found = suggester.suggest(context.text + line, COUNT)
        yield line
        say("  next: " + (", ".join(f"{one.word} {one.probability:.3f}" for one in found) or "nothing"))


def _typed_lines(suggester: Suggester, context: _Context, say: Say) -> Iterator[str]:
    try:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import Completer, Completion
    except ImportError:
        say('suggestions while typing need pip install "torch-linguist[interactive]"; here they follow each line')
        yield from _plain_lines(suggester, context, say)
        return

    class Words(Completer):
        """The suggestions of a model as completions of the line."""

        def get_completions(self, document: Any, complete_event: Any) -> Iterable[Completion]:
            del complete_event
            for one in suggester.suggest(context.text + document.text_before_cursor, COUNT):
                yield Completion(one.completion, display=visible(one.word), display_meta=f"{one.probability:.1%}")

    session: PromptSession[str] = PromptSession(
        completer=Words(), complete_while_typing=True, complete_in_thread=True, reserve_space_for_menu=COUNT + 1
    )
    say(WELCOME)
    while True:
        try:
            yield session.prompt("> ")
        except EOFError:
            return
