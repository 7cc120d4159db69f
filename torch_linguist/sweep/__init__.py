"""Sweeps: many runs, each a process and a folder of its own, a row a run; searches, launchers, and a page at the end.

The modules are imported one by one, so that reading a command line needs neither torch nor pandas.
"""
