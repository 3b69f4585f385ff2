"""The model: its shape, its layers, decoding, and its weights on disk. It knows no task and no training.

Everything but `common` and `data` may call it.
"""
