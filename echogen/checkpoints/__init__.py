"""Checkpoints by name: known models, fetching them, and bringing those of other programs.

The format of a checkpoint's folder is `echogen.diffusion.checkpoint`'s.
"""
