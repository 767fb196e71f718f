"""Checkpoints of guided-diffusion, read without its code: names, network, conversion, probing."""
