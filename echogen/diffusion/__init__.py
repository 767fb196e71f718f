"""Painting with a diffusion model: checkpoint, network, schedule, denoiser, noise, samplers.

It knows no file format but the checkpoint's, and no dataset, frame or store. Schedules and a
checkpoint's description can be read without torch.
"""
