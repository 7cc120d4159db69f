"""Run folders: files written whole, CSV tables, the lock, and links that are refused."""
