"""Callbacks of the long training, one file each; `defaults` puts them in order."""
