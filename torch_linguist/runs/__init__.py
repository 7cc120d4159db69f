"""Run folders: files written as a whole, CSV tables, the lock, and safe reading."""
