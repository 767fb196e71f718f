"""What the benchmarks on real frames paint with: networks with samplers, by name.

`fast`, `balanced` and `high` are the presets of `echogen expand` for the checkpoint in question;
`langevin-fast` and so on what they are for a network that is shown no known pixels, with the one in
`checkpoints/unconditional`, which also paints the reference.
"""

import json
from collections.abc import Mapping
from typing import Any

from hidden import UNCONDITIONAL, Painter
from pydantic import TypeAdapter, ValidationError

from echogen.config import AugmentationConfig, RepaintConfig, SamplerConfig
from echogen.diffusion.checkpoint import read_info
from echogen.diffusion.schedule import sampler_nfe
from echogen.errors import UsageError
from echogen.models.resolve import load_with_model

NAMES = ("fast", "balanced", "high")
DEFAULT = (*NAMES, *(f"langevin-{name}" for name in NAMES))
REFERENCE = Painter(UNCONDITIONAL, RepaintConfig())
SCHEDULES = {"repaint-10-1-1": (10, 1, 1), "repaint-25-5-3": (25, 5, 3)}


def preset(name: str, checkpoint: str) -> Painter:
    """A preset of `echogen expand` for a checkpoint."""
    config, *_ = load_with_model(AugmentationConfig, {"checkpoint": checkpoint}, preset=name)
    return Painter(checkpoint, config.sampler)


def sampler_of(settings: Mapping[str, Any]) -> SamplerConfig:
    """Settings of a sampler, checked.

    Raises:
        UsageError: names the setting.
    """
    try:
        return TypeAdapter(SamplerConfig).validate_python(settings)
    except ValidationError as error:
        found = error.errors()[0]
        raise UsageError(f"sampler {dict(settings)}: {found['loc']}: {found['msg']}") from error


def read_painters(text: str, checkpoint: str) -> dict[str, Painter]:
    """Painters by name, from names and free settings separated by ';'.

    Args:
        text: of each a name, or a sampler's name and its settings: "dpm steps=25 rho=5".
        checkpoint: with which presets and free settings paint.

    Raises:
        UsageError: no such name or setting.
    """
    return {
        " ".join(part.split()): _painter(part.split(), checkpoint)
        for part in text.split(";")
        if part.strip()
    }


def _painter(words: list[str], checkpoint: str) -> Painter:
    name, *settings = words
    if not settings and name in NAMES:
        return preset(name, checkpoint)
    if not settings and name in DEFAULT:
        return preset(name.removeprefix("langevin-"), UNCONDITIONAL)
    if not settings and name in SCHEDULES:
        steps, jump_length, resamplings = SCHEDULES[name]
        schedule = RepaintConfig(steps=steps, jump_length=jump_length, resamplings=resamplings)
        return Painter(UNCONDITIONAL, schedule)
    if name not in ("dpm", "langevin", "repaint"):
        known = ", ".join([*DEFAULT, *SCHEDULES])
        raise UsageError(
            f"--samplers: expected {known}, or dpm, langevin or repaint with settings such as "
            f"steps=25; got {name!r}"
        )
    pairs = (word.partition("=") for word in settings)
    try:
        values = {key: json.loads(value) for key, _, value in pairs}
    except json.JSONDecodeError as error:
        raise UsageError(f"--samplers: {' '.join(words)!r}: {error}") from error
    return Painter(checkpoint, sampler_of({"name": name, **values}))


def described(painter: Painter) -> dict[str, Any]:
    """A painter as results record it."""
    info = read_info(painter.checkpoint)
    return {
        "checkpoint": info.name,
        "sha256": info.sha256,
        "settings": painter.settings,
        "nfe": sampler_nfe(painter.sampler),
    }
