"""Checkpoints as things: known models, downloads, foreign weights, what is in them.

The folder format itself is `echogen.diffusion.checkpoint`; here are the ways into it. A module that
only names and lists models (`registry`, `resolve`) loads neither torch nor the network's libraries.
"""
