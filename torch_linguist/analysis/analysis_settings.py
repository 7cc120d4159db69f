"""What a person can set of an analysis."""

from dataclasses import dataclass

from torch_linguist.errors import ConfigError

PARTS = ("slices", "surprisal", "sensitivity", "heatmaps", "embeddings", "calibration", "comparison")
"""The parts of the page, in their order."""


@dataclass(frozen=True)
class AnalysisSettings:
    """Which parts are made, and from how large samples.

    Attributes:
        parts: some of `PARTS`.
        seed: of every sample.
        probes: places at which the context is cut short and damaged.
        damage_width: tokens of the context that is damaged.
        changed_probes: places at which single words are changed.
        passages: texts colored by surprisal.
        examples: predictions that heatmaps are drawn for.
        predictions: for the calibration.
        map_words: words of the map.
        text: a text of one's own for heatmaps and surprisal, beside those of the split.

    Raises:
        ConfigError: a value is out of its range.
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
                raise ConfigError(f"--parts {part}: there is no such part; choices: {', '.join(PARTS)}")
        least = {"probes": 2, "damage_width": 2, "changed_probes": 1, "passages": 0, "examples": 0, "predictions": 1}
        for name, smallest in (least | {"map_words": 3, "seed": 0}).items():
            if getattr(self, name) < smallest:
                raise ConfigError(f"{name}={getattr(self, name)}: must be at least {smallest}")
        if self.text is not None and not self.text.strip():
            raise ConfigError("--text: the text is empty; give some words")
