"""Settings of an analysis."""

from dataclasses import dataclass

from torch_linguist.errors import ConfigError

PARTS = ("slices", "surprisal", "sensitivity", "heatmaps", "embeddings", "calibration", "comparison")
"""Parts of the page, in order."""

MINIMUM = {
    "probes": 2,
    "damage_width": 2,
    "changed_probes": 1,
    "passages": 0,
    "examples": 0,
    "predictions": 1,
    "map_words": 3,
    "seed": 0,
}


@dataclass(frozen=True)
class AnalysisSettings:
    """Parts to make, and sample sizes.

    Attributes:
        parts: a subset of `PARTS`.
        seed: random seed of all samples.
        probes: positions at which the context is shortened and damaged.
        damage_width: length of the damaged context, in tokens.
        changed_probes: positions at which single words are replaced.
        passages: texts colored by surprisal.
        examples: predictions explained by heatmaps.
        predictions: predictions used for the calibration.
        map_words: words on the map of embeddings.
        text: a text of the user's own for heatmaps and surprisal, in addition to the split; None for none.

    Raises:
        ConfigError: a value is out of range.

    Example:
        >>> AnalysisSettings(parts=("slices",), probes=50).passages
        3
    """

    parts: tuple[str, ...] = PARTS
    seed: int = 1
    probes: int = 200
    damage_width: int = 128
    changed_probes: int = 24
    passages: int = 3
    examples: int = 4
    predictions: int = 8000
    map_words: int = 250
    text: str | None = None

    def __post_init__(self) -> None:
        for part in self.parts:
            if part not in PARTS:
                raise ConfigError(f"--parts {part}: unknown part; choose from {', '.join(PARTS)}")
        for name, smallest in MINIMUM.items():
            if getattr(self, name) < smallest:
                raise ConfigError(f"{name}={getattr(self, name)}: must be at least {smallest}")
        if self.text is not None and not self.text.strip():
            raise ConfigError("--text: the text is empty; give some words")
