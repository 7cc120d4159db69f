"""`tl-generate`: continues a prompt, shows the probabilities, or suggests words while a line is typed."""

import dataclasses
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch_linguist.cli.entry import SUCCESS, ArgumentParser, run_command, say
from torch_linguist.cli.option_types import LARGEST_SEED, Option, add_options, number, path, whole_number
from torch_linguist.cli.run_arguments import DEVICE, add_runs, find_model

if TYPE_CHECKING:
    from torch_linguist.data import Tokenizer
    from torch_linguist.generation import Sampling
    from torch_linguist.model import LanguageModel

EXAMPLES = """\
examples:
  tl-generate                                       the newest run under outputs/, from the start of a line
  tl-generate lstm -p "The congress" -n 3           outputs/lstm: three continuations
  tl-generate outputs/lstm/model.jit -p "The"       an exported file
  tl-generate --prompts prompts.txt --greedy        one prompt per line; - reads standard input
  tl-generate -p "We" --top-p 0.9 --temperature 0.8 --seed 1 --stop "." --show-probabilities
  tl-generate -p "We" --beams 5 --max-tokens 10     the five most probable continuations
  tl-generate -i                                    suggests the next word while you type

A single continuation is shown token by token. The model never generates <unk>."""

LARGEST_SHOWN = 1_000
"""Largest number of beams, or of probable tokens shown."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run `tl-generate`."""
    return run_command(_generate, argv)


TOKEN_OPTIONS: Mapping[str, Option] = {
    "--temperature": (number(above=0), 1.0, "X", "below 1: safer; above 1: bolder"),
    "--top-k": (whole_number(0), 0, "K", "sample from the K most probable tokens; 0 for all"),
    "--top-p": (number(above=0, most=1), 1.0, "P", "sample from the most probable tokens with total probability P"),
    "--min-p": (number(0, 1), 0.0, "P", "sample from tokens with at least P times the highest probability"),
    "--typical": (number(above=0, most=1), 1.0, "P", "sample from the most typical tokens with total probability P"),
    "--repetition-penalty": (number(above=0), 1.0, "X", "make repeated tokens less likely; 1 for no penalty"),
    "--beams": (whole_number(1, LARGEST_SHOWN), None, "K", "beam search of width K instead of sampling"),
    "--seed": (whole_number(0, LARGEST_SEED), None, "N", "random seed (default: a new one each time)"),
}

LENGTH_OPTIONS: Mapping[str, Option] = {
    "--max-tokens": (whole_number(1, 1_000_000), 50, "N", "largest number of new tokens"),
    "-n, --samples": (whole_number(1, 10_000), 1, "N", "continuations per prompt"),
}


def _parser() -> ArgumentParser:
    parser = ArgumentParser("tl-generate", "Continues a prompt with the best model of a run.", EXAMPLES)
    add_runs(parser, most=1, also=", or a model.jit")
    add_options(parser, None, {"--device": DEVICE})
    prompts = parser.add_argument_group("prompts")
    prompts.add_argument("-p", "--prompt", action="append", default=[], metavar="TEXT", help="may be repeated")
    prompts.add_argument("--prompts", type=path, metavar="FILE", help="one prompt per line; - for standard input")
    prompts.add_argument("-i", "--interactive", action="store_true", help="suggest the next word while a line is typed")
    add_options(parser, "choosing tokens", TOKEN_OPTIONS, {"--greedy": "always the most probable token"})
    add_options(parser, "length", LENGTH_OPTIONS, {"--stop-at-eos": "end with the line"})
    parser.add_argument("--stop", action="append", default=[], metavar="TEXT", help="end before this text")
    parser.add_argument(
        "--show-probabilities", nargs="?", type=whole_number(0, LARGEST_SHOWN), const=5, default=0, metavar="K",
        help="show each token's probability and the K most probable tokens (5)",
    )  # fmt: skip
    return parser


def _generate(argv: list[str]) -> int:
    parser = _parser()
    arguments = parser.parse_intermixed_args(argv)
    _check(arguments, parser)
    prompts = _prompts(arguments)
    model, tokenizer = find_model(arguments)

    if arguments.interactive:
        from torch_linguist.generation.interactive import interact

        interact(model, tokenizer, say)
        return SUCCESS

    from torch_linguist.generation import Sampling
    from torch_linguist.generation.prompts import unknown_note

    sampling = Sampling(**{field.name: getattr(arguments, field.name) for field in dataclasses.fields(Sampling)})
    for index, prompt in enumerate(prompts):
        if index:
            say()
        if note := unknown_note(tokenizer, prompt):
            say(note, to_stderr=True)
        if arguments.beams:
            _show_beams(model, tokenizer, prompt, arguments)
        else:
            _show_samples(model, tokenizer, prompt, sampling, arguments)
    return SUCCESS


def _check(arguments: Namespace, parser: ArgumentParser) -> None:
    if arguments.beams and (arguments.samples > 1 or arguments.show_probabilities):
        parser.error("--beams: shows that many continuations; it takes neither --samples nor --show-probabilities")
    if "" in arguments.stop:
        parser.error("--stop: the text must not be empty")
    if arguments.interactive and (arguments.prompt or arguments.prompts):
        parser.error("-i: takes no prompts, you type them")


def _prompts(arguments: Namespace) -> list[str]:
    """Return all prompts of the command line; without any, an empty one (the start of a line)."""
    prompts = list(arguments.prompt)
    if arguments.prompts == Path("-"):
        prompts += [line.rstrip("\n").removeprefix("\ufeff") for line in sys.stdin]
    elif arguments.prompts is not None:
        from torch_linguist.generation.prompts import read_prompts

        prompts += read_prompts(arguments.prompts)
    return prompts or [""]


def _show_beams(model: "LanguageModel", tokenizer: "Tokenizer", prompt: str, arguments: Namespace) -> None:
    from torch_linguist.generation.continuing import continue_by_beam

    results = continue_by_beam(
        model,
        tokenizer,
        prompt,
        beams=arguments.beams,
        max_tokens=arguments.max_tokens,
        stop=arguments.stop,
        stop_at_eos=arguments.stop_at_eos,
    )
    for index, result in enumerate(results, start=1):
        say(f"[{index}] log-probability {result.log_probability:.2f}\n{result.text}")


def _show_samples(
    model: "LanguageModel", tokenizer: "Tokenizer", prompt: str, sampling: "Sampling", arguments: Namespace
) -> None:
    from torch_linguist.generation import continue_prompt

    live = arguments.samples == 1 and not arguments.show_probabilities
    if live:
        say(tokenizer.shown_prompt(prompt), end="")
    results = continue_prompt(
        model,
        tokenizer,
        prompt,
        sampling,
        max_tokens=arguments.max_tokens,
        num_samples=arguments.samples,
        seed=arguments.seed,
        stop=arguments.stop,
        stop_at_eos=arguments.stop_at_eos,
        alternatives=arguments.show_probabilities,
        listener=(lambda _, piece: say(piece, end="")) if live else None,
    )
    if live:
        say()
    elif arguments.show_probabilities:
        from torch_linguist.report.console import make_console
        from torch_linguist.report.text_tables import choice_table

        console = make_console()
        for result in results:
            console.print(choice_table(result))
            console.print(result.text, markup=False)
    else:
        for index, result in enumerate(results, start=1):
            say(f"[{index}]\n{result.text}")


if __name__ == "__main__":
    sys.exit(main())
