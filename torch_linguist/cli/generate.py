"""`tl-generate`: continues a prompt, shows the probabilities on the way, or suggests words to a person who types."""

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch_linguist.cli.entry import SUCCESS, ArgumentParser, run_command
from torch_linguist.errors import ConfigError, LinguistError

if TYPE_CHECKING:
    from torch_linguist.cli.models import FoundModel
    from torch_linguist.generation import Continuation, Sampling

EXAMPLES = """\
examples:
  tl-generate                                       the newest run under outputs/, from the start of a line
  tl-generate outputs/lstm -p "The congress" -n 3   three continuations, drawn side by side
  tl-generate outputs/lstm/model.jit -p "The"       from an exported file alone
  tl-generate --prompts prompts.txt --greedy        a prompt a line; - reads standard input
  tl-generate -p "We" --top-p 0.9 --temperature 0.8 --seed 1 --stop "." --show-probabilities
  tl-generate -p "We" --beams 5 --max-tokens 10     the five most probable continuations as wholes
  tl-generate -i                                    suggests the next word while you type

A single continuation is shown while it comes. The model never says <unk>.

exit codes: 0 done; 1 failed; 2 wrong usage; 130 interrupted"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `tl-generate`.

    Args:
        argv: the arguments; None for those of the process.

    Returns:
        The exit code.
    """
    return run_command(_generate, argv)


def _parser() -> ArgumentParser:
    parser = ArgumentParser("tl-generate", "Continues a prompt by the best model of a run.", EXAMPLES)
    parser.add_argument(
        "source", nargs="?", type=Path, metavar="RUN", help="a run folder or a model.jit (default: the newest run)"
    )
    asked = parser.add_argument_group("prompts")
    asked.add_argument("-p", "--prompt", action="append", default=[], metavar="TEXT", help="may be given several times")
    asked.add_argument("--prompts", metavar="FILE", help="a file with a prompt a line; - for standard input")
    asked.add_argument("-i", "--interactive", action="store_true", help="suggest the next word while a line is typed")
    chosen = parser.add_argument_group("choosing each token")
    chosen.add_argument("--temperature", type=float, default=1.0, metavar="X", help="below 1 safer, above bolder (1)")
    chosen.add_argument("--top-k", type=int, default=0, metavar="K", help="only the K most probable tokens (0: all)")
    chosen.add_argument("--top-p", type=float, default=1.0, metavar="P", help="only the likeliest with mass P (1: all)")
    chosen.add_argument("--min-p", type=float, default=0.0, metavar="P", help="only those of P times the best (0: all)")
    chosen.add_argument("--typical", type=float, default=1.0, metavar="P", help="the most typical of mass P (1: all)")
    chosen.add_argument(
        "--repetition-penalty", type=float, default=1.0, metavar="X", help="makes what was said less likely (1: no)"
    )
    chosen.add_argument("--greedy", action="store_true", help="the most probable token, no draw")
    chosen.add_argument("--beams", type=int, metavar="K", help="beam search of that width instead of drawing")
    chosen.add_argument("--seed", type=int, metavar="N", help="of the draws (default: a fresh one)")
    length = parser.add_argument_group("how much")
    length.add_argument("--max-tokens", type=int, default=50, metavar="N", help="tokens added at most (50)")
    length.add_argument("-n", "--samples", type=int, default=1, metavar="N", help="continuations a prompt (1)")
    length.add_argument("--stop", action="append", default=[], metavar="TEXT", help="end before this text")
    length.add_argument("--stop-at-eos", action="store_true", help="end with the line")
    shown = parser.add_argument_group("what is shown")
    shown.add_argument(
        "--show-probabilities",
        nargs="?",
        type=int,
        const=5,
        default=0,
        metavar="K",
        help="each token's probability and the K most probable ones (5)",
    )
    parser.add_argument(
        "--output-dir", type=Path, default=Path("outputs"), metavar="DIR", help="where the newest run is looked for"
    )
    return parser


def _generate(argv: list[str]) -> int:
    parser = _parser()
    arguments = parser.parse_intermixed_args(argv)
    _check(arguments, parser)
    prompts = _prompts(arguments)

    from torch_linguist.cli.models import find_model
    from torch_linguist.generation import Sampling

    sampling = Sampling(
        arguments.temperature,
        arguments.top_k,
        arguments.top_p,
        arguments.min_p,
        arguments.typical,
        arguments.repetition_penalty,
        arguments.greedy,
    )
    found = find_model(arguments.source, arguments.output_dir)
    if arguments.source is None:
        print(f"run: {found.source} (the newest)", file=sys.stderr)
    if arguments.interactive:
        from torch_linguist.cli.interactive import interact

        interact(found.model, found.tokenizer)
        return SUCCESS
    for number, prompt in enumerate(prompts):
        if number:
            print()
        _warn_of_unknown_words(found, prompt)
        _continue(found, prompt, sampling, arguments)
    return SUCCESS


def _check(arguments: Namespace, parser: ArgumentParser) -> None:
    for name in ("max_tokens", "samples"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name.replace('_', '-')}={getattr(arguments, name)}: must be at least 1")
    if arguments.beams is not None and arguments.beams < 1:
        parser.error(f"--beams={arguments.beams}: must be at least 1")
    if arguments.beams and (arguments.samples > 1 or arguments.show_probabilities):
        parser.error("--beams: shows that many continuations; it takes neither --samples nor --show-probabilities")
    if arguments.show_probabilities < 0:
        parser.error(f"--show-probabilities={arguments.show_probabilities}: must be at least 0")
    if "" in arguments.stop:
        parser.error("--stop: the text must not be empty")
    if arguments.interactive and (arguments.prompt or arguments.prompts):
        parser.error("-i: takes no prompts, you type them")


def _prompts(arguments: Namespace) -> list[str]:
    """All that are given; one empty prompt, the start of a line, where there is none."""
    prompts = list(arguments.prompt)
    if arguments.prompts == "-":
        prompts += [line.rstrip("\n") for line in sys.stdin]
    elif arguments.prompts is not None:
        try:
            text = Path(arguments.prompts).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise LinguistError(f"--prompts={arguments.prompts}: is not UTF-8 text ({error.reason})") from error
        except OSError as error:
            raise LinguistError(f"--prompts={arguments.prompts}: cannot be read ({error.strerror})") from error
        prompts += text.removesuffix("\n").split("\n")
    if arguments.prompts is not None and not any(prompts):
        raise ConfigError(f"--prompts={arguments.prompts}: holds no prompt; give a line of text each")
    return prompts or [""]


def _warn_of_unknown_words(found: "FoundModel", prompt: str) -> None:
    """Says which words of a prompt the model reads as <unk>."""
    tokenizer = found.tokenizer
    unknown = [word for word in dict.fromkeys(prompt.split()) if tokenizer.unk_id in tokenizer.encode(word)]
    unknown = [word for word in unknown if word != "<unk>"]
    if unknown:
        more = f" and {len(unknown) - 8} more" if len(unknown) > 8 else ""
        print(f"note: not in the vocabulary, read as <unk>: {', '.join(unknown[:8])}{more}", file=sys.stderr)


def _continue(found: "FoundModel", prompt: str, sampling: "Sampling", arguments: Namespace) -> None:
    from torch_linguist.generation import continue_prompt
    from torch_linguist.generation.continuing import continue_by_beam

    if arguments.beams:
        results = continue_by_beam(
            found.model,
            found.tokenizer,
            prompt,
            beams=arguments.beams,
            max_tokens=arguments.max_tokens,
            stop=arguments.stop,
            stop_at_eos=arguments.stop_at_eos,
        )
        _print_all(results, [f"log-probability {one.log_probability:.2f}" for one in results])
        return
    live = arguments.samples == 1 and not arguments.show_probabilities
    if live:
        _show(found.tokenizer.shown_prompt(prompt))
    results = continue_prompt(
        found.model,
        found.tokenizer,
        prompt,
        sampling,
        max_tokens=arguments.max_tokens,
        num_samples=arguments.samples,
        seed=arguments.seed,
        stop=arguments.stop,
        stop_at_eos=arguments.stop_at_eos,
        alternatives=arguments.show_probabilities,
        listener=(lambda _, piece: _show(piece)) if live else None,
    )
    if live:
        print(flush=True)
    elif arguments.show_probabilities:
        _print_choices(results)
    else:
        _print_all(results, ["" for _ in results])


def _show(piece: str) -> None:
    """Writes a piece of text at once, so that a person sees each token as it comes."""
    print(piece, end="", flush=True)


def _print_all(results: "Sequence[Continuation]", remarks: Sequence[str]) -> None:
    for number, (result, remark) in enumerate(zip(results, remarks, strict=True), start=1):
        if len(results) > 1 or remark:
            print(f"[{number}]{' ' if remark else ''}{remark}")
        print(result.text)


def _print_choices(results: "Sequence[Continuation]") -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    for result in results:
        table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        table.add_column("token", style="bold", no_wrap=True)
        table.add_column("probability", justify="right", no_wrap=True)
        table.add_column("most probable")
        for choice in result.choices:
            others = "  ".join(f"{_visible(token)} {share:.3f}" for token, share in choice.alternatives)
            table.add_row(Text(_visible(choice.token)), f"{choice.probability:.4f}", Text(others))
        console.print(table)
        console.print(result.text, markup=False)


def _visible(token: str) -> str:
    """A token whose blanks and control characters can be seen."""
    plain = token.replace(" ", "␣")
    return plain if plain.isprintable() else repr(plain)[1:-1]


if __name__ == "__main__":
    sys.exit(main())
