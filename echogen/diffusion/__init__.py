"""Painting with a diffusion model: schedule, checkpoint, denoiser, noise, sampler.

Imports point one way: noise schedule, then network, then sampler. Only the schedule and a
checkpoint's description can be read without torch.
"""
