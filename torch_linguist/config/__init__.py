"""Configurations: composed with Hydra, checked against the classes that they name, and turned into a plan."""
