"""Folders that `transformers` loads: their files, and how they are read back for comparison."""
