"""ARPA: the text format that KenLM, SRILM and other n-gram toolkits read."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch_linguist.export.export_format import ExportFormat, ExportReport, check_difference

if TYPE_CHECKING:
    from torch_linguist.data import Tokenizer
    from torch_linguist.model import LanguageModel


class ArpaFile(ExportFormat):
    """An n-gram model as text, written and read back as a stream; gzipped if the name ends in `.gz`.

    Models built on disk are read back with the same memory limit.
    """

    name = "arpa"
    file_name = "model.arpa"
    help = "ARPA for KenLM and other n-gram toolkits (.gz compresses); model=ngram"
    description = 'ARPA: `kenlm.Model(FILE).score(TEXT, bos=False, eos=False)`; lines end in the word "<eos>"'
    takes_path = True

    def write(
        self, model: "LanguageModel", tokenizer: "Tokenizer", path: Path, settings: Mapping[str, Any] | None = None
    ) -> ExportReport:
        from torch_linguist.export.comparison import compare
        from torch_linguist.model import evaluating
        from torch_linguist.model.ngram import read_arpa, write_arpa

        found: list[tuple[LanguageModel, float]] = []

        def check(written: Path) -> None:
            read, _ = read_arpa(written, tokenizer.tokens, memory_limit_mib=model.arguments["memory_limit_mib"])
            found.append((read.eval(), check_difference(path, compare(model, read))))

        with evaluating(model):
            write_arpa(model, tokenizer.tokens, path, check)
        ((read, difference),) = found
        return ExportReport(path, difference, path.stat().st_size / 2**20, read)
