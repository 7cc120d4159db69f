"""Composing configurations, checking them against the classes they name, and building the objects of a run."""
