"""The errors that a user can mend: each names the field, the value and the way out."""


class LinguistError(ValueError):
    """Something a user can mend. The message is one line: what is wrong, where, and the way out."""


class ConfigError(LinguistError):
    """A key, value or choice of the configuration is wrong; the commands end with exit code 2."""


class DataError(LinguistError):
    """A corpus, a tokenizer or a token cache cannot be read or is too small."""


class TrainingError(LinguistError):
    """Training cannot go on: the loss is not finite, a limit is missing, a checkpoint does not fit."""
