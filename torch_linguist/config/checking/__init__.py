"""Checks of a configuration against the signatures of the classes that it names."""
