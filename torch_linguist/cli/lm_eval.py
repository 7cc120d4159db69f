"""`python -m torch_linguist.cli.lm_eval`: the command of lm-evaluation-harness, with the model `torch_linguist`."""

import sys

from torch_linguist.cli.entry import run_command


def main() -> int:
    """Run the harness on the arguments of the process, which are those of `lm_eval`.

    Returns:
        The exit code.
    """
    return run_command(_evaluate, sys.argv[1:])


def _evaluate(argv: list[str]) -> int:
    from torch_linguist.errors import LinguistError

    try:
        from lm_eval.__main__ import cli_evaluate
    except ImportError as error:
        raise LinguistError(
            f'lm_eval: needs the package {error.name}; run pip install "torch-linguist[lm-eval]"'
        ) from error
    import torch_linguist.generation.evaluation_harness  # noqa: F401 - registers the model

    cli_evaluate()
    return 0


if __name__ == "__main__":
    sys.exit(main())
