"""Settings of an exploration."""

from dataclasses import dataclass

from torch_linguist.errors import ConfigError


@dataclass(frozen=True)
class ExploreSettings:
    """How much of a corpus to explore, and how much to show.

    Attributes:
        sample_mebibytes: text of each split to keep in memory, in MiB of characters; a longer split is sampled.
        scan_mebibytes: text of each split to read for the sample; None reads all of it.
        samples: excerpts of each split.
        top: words and n-grams to show; the tables have ten times as many.
        max_order: longest n-grams to count.
        max_min_frequency: largest `tokenizer.min_frequency` whose out-of-vocabulary rate is shown.
        word_cloud: whether to draw a word cloud if the library `wordcloud` is installed.

    Raises:
        ConfigError: a value is out of its range.

    Example:
        >>> ExploreSettings(samples=2, word_cloud=False).top
        25
    """

    sample_mebibytes: float = 32.0
    scan_mebibytes: float | None = 1024.0
    samples: int = 4
    top: int = 25
    max_order: int = 3
    max_min_frequency: int = 20
    word_cloud: bool = True

    def __post_init__(self) -> None:
        if not self.sample_mebibytes > 0:
            raise ConfigError(f"explore.sample_mebibytes={self.sample_mebibytes}: must be greater than 0")
        if self.scan_mebibytes is not None and not self.scan_mebibytes > 0:
            raise ConfigError(f"explore.scan_mebibytes={self.scan_mebibytes}: must be greater than 0, or null")
        for name, least in (("samples", 0), ("top", 1), ("max_order", 1), ("max_min_frequency", 1)):
            value = getattr(self, name)
            if value < least:
                raise ConfigError(f"explore.{name}={value}: must be at least {least}")
        if self.max_order > 6:
            raise ConfigError(f"explore.max_order={self.max_order}: must be at most 6")
