"""Adaptation to the text being scored: continuous cache and dynamic evaluation."""
