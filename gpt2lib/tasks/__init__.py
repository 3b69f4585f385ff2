"""What a task is made of: prompts, heads, the file it is handed in as, its floors and its scores.

Notebooks, studies and benchmarks call it.
"""
