"""Generative augmentation of echocardiography datasets: real pixels moved, the rest painted."""

__version__ = "0.1.0"
