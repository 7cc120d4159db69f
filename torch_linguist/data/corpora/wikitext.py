"""WikiText, the standard benchmark (Merity et al. 2016, "Pointer Sentinel Mixture Models"): a folder or the hub."""

import re
from collections.abc import Iterator, Mapping
from itertools import chain, pairwise
from pathlib import Path

from torch_linguist.data.corpora.corpus import SPLITS, Corpus, Document, checked_counts, digest
from torch_linguist.data.corpora.hub import hub_fingerprint, hub_rows
from torch_linguist.data.corpora.reading import files_fingerprint, read_lines
from torch_linguist.data.corpora.source_files import below_here, find_source_files, table_suffix
from torch_linguist.errors import DataError

_TITLE = re.compile(r" = ([^=].*[^=]|[^=]) = \Z")
_HUB_SPLITS = {"train": "train", "valid": "validation", "test": "test"}


class WikiTextCorpus(Corpus):
    """Wikipedia articles, tokenized, with rare words already ``<unk>``; a document is an article.

    Every line is kept as it is, the empty ones too: on WikiText-2 the splits hold 2,088,628, 217,646 and 245,569
    tokens, ``<eos>`` included, of 33,278 types.

    Example:
        >>> WikiTextCorpus().name  # From the hub, once it is read; path="FOLDER" reads a local copy.
        'wikitext2'
    """

    tokenized = True
    blank_lines = "keep"

    def __init__(
        self,
        path: str | None = None,
        hub_id: str = "Salesforce/wikitext",
        hub_config: str = "wikitext-2-v1",
        revision: str | None = "b08601e04326c79dfdd32d625aee71d232d685c3",
        name: str = "wikitext2",
        expected: Mapping[str, Mapping[str, int]] | None = None,
    ) -> None:
        """Names the source; reads nothing yet.

        Args:
            path: folder with `train.txt`, `valid.txt`, `test.txt`, or `wiki.train.tokens` and so on; None for the hub.
            hub_id: data set on the Hugging Face hub.
            hub_config: its configuration.
            revision: its commit.
            name: of the corpus, in headers and folders.
            expected: published counts by split, such as `{train: {words_and_lines: 2088628}}`, checked after loading.

        Raises:
            DataError: the folder lacks a split.
        """
        self.name = name
        self.hub_id = hub_id
        self.hub_config = hub_config
        self.revision = revision
        self.files = None if path is None else _local_files(Path(path).expanduser())
        self.own_copy = path is not None
        self.expected = checked_counts(expected)

    def documents(self, split: str) -> Iterator[Document]:
        self.check_split(split)
        lines = self._hub_lines(split) if self.files is None else read_lines(self.files[split])
        for title, article in articles(lines):
            yield Document("\n".join([*article, ""]), {"article": title})

    def fingerprint(self) -> str:
        if self.files is None:
            return hub_fingerprint(self.hub_id, self.hub_config, self.revision)
        return digest("wikitext", files_fingerprint([self.files[split] for split in SPLITS]))

    def sources(self) -> dict[str, str]:
        if self.files is None:
            return {"hub": f"{self.hub_id} {self.hub_config}"}
        return {split: file.name for split, file in self.files.items()}

    def _hub_lines(self, split: str) -> Iterator[str]:
        """The hub's rows are the lines, newline included; of an empty line, which is one blank, it kept nothing."""
        for row in hub_rows(self.hub_id, self.hub_config, self.revision, _HUB_SPLITS[split]):
            if "text" not in row:
                raise DataError(f"data.hub_id={self.hub_id}: has no column text, only {', '.join(row)}")
            yield row["text"].removesuffix("\n") or " "


def articles(lines: Iterator[str]) -> Iterator[tuple[str, list[str]]]:
    """Cuts lines into articles: an article begins at the empty line before a first-level heading.

    Such a heading stands between empty lines; WikiText-2 then has 600, 60 and 60 articles, as published.

    Yields:
        The title, and the lines; together they are all lines in their order.
    """
    title = ""
    article: list[str] = []
    for line, following in pairwise(chain(lines, [""])):
        heading = _TITLE.match(line)
        if heading and not following.strip() and (not article or not article[-1].strip()):
            opening = article[-1:]
            if article[:-1]:
                yield title, article[:-1]
            title, article = heading.group(1), opening
        article.append(line)
    if article:
        yield title, article


def _local_files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(
            f"data.path={folder}: no such folder{below_here(folder)}; give the folder that holds the files of WikiText"
        )
    try:
        files = find_source_files(folder, ready_splits=True).splits or {}
    except DataError:
        files = {}
    if files.keys() != set(SPLITS) or any(len(own) > 1 or table_suffix(own[0]) for own in files.values()):
        raise DataError(
            f"data.path={folder}: must hold train.txt, valid.txt and test.txt, or wiki.train.tokens, "
            "wiki.valid.tokens and wiki.test.tokens"
        )
    return {split: own[0] for split, own in files.items()}
