"""The `config.yaml` of a run folder, read as data that may be a stranger's."""

from pathlib import Path

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from torch_linguist.config.checking.targets import ALLOWED_TARGETS, check_targets
from torch_linguist.config.plain import to_plain
from torch_linguist.config.renamed import with_new_names
from torch_linguist.errors import ConfigError

DEPTH_LIMIT = 32
"""Deepest nesting of a configuration."""


def read_run_config(folder: Path, trusted: tuple[str, ...] = ()) -> tuple[DictConfig, dict[str, str]]:
    """Read the `config.yaml` of a run folder. Nothing in it is executed or resolved.

    Args:
        folder: run folder.
        trusted: prefixes of further modules whose classes the configuration may name.

    Returns:
        The configuration with today's keys and classes, and the choice of each group.

    Raises:
        ConfigError: the file cannot be read, names a class that is not allowed, or holds a tag, a reference or an
            interpolation, which `tl-train` never writes.
        LinguistError: a link leads out of the folder.
    """
    from torch_linguist.runs.safe_reading import check_contained, read_small_text

    check_contained(folder)
    path = folder / "config.yaml"
    text = read_small_text(path)
    try:
        _check_plain(path, text)
        config = OmegaConf.create(text)
    except (OmegaConfBaseException, yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())[:200]})") from error
    if not isinstance(config, DictConfig) or not isinstance(config.get("choices"), DictConfig):
        raise ConfigError(f"{path}: is not the configuration of a run, as tl-train writes it")
    choices = {str(group): str(choice) for group, choice in config.pop("choices").items()}
    plain = with_new_names(to_plain(config))
    check_targets(plain, allowed=(*ALLOWED_TARGETS, *trusted))
    return OmegaConf.create(plain), choices


def _check_plain(path: Path, text: str) -> None:
    """Refuse what `to_yaml` never writes, before anything is built from it.

    References let a few lines grow without bound (each a list of the one before), tags name Python objects, and
    interpolations read the environment.
    """
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if depth == 0 and isinstance(event, yaml.ScalarEvent | yaml.SequenceStartEvent):
            raise ConfigError(f"{path}: is not the configuration of a run, as tl-train writes it")
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ConfigError(f"{path}, line {line}: holds a reference; a run's configuration spells everything out")
        if tag := getattr(event, "tag", None):
            raise ConfigError(f"{path}, line {line}: holds the tag {tag[:60]}; a run's configuration has none")
        if isinstance(event, yaml.ScalarEvent) and "${" in event.value:
            raise ConfigError(
                f"{path}, line {line}: {event.value[:60]} is an interpolation; a run's configuration holds their values"
            )
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEPTH_LIMIT:
            raise ConfigError(f"{path}, line {line}: is nested more than {DEPTH_LIMIT} levels deep")
