"""Checkpoints: known models, downloads, foreign weights, and what a checkpoint contains.

The folder format itself is `echogen.diffusion.checkpoint`; here are the ways into it. A module that
only names and lists models (`registry`, `resolve`) loads neither torch nor the network's libraries.
"""
