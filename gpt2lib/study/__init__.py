"""Batches of notebook runs: what a file plans, who executes it, what a run leaves, and the tables made of that.

Only the command line and the last cells of notebooks (which write records) call it.
"""
