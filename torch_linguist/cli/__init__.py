"""The commands: they parse, instantiate and call."""
