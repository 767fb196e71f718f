"""What a model of guided diffusion may be, as far as its shapes leave it open."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from echogen.errors import CheckpointError, UsageError
from echogen.models.guided.architecture import (
    GuidedArchitecture,
    GuidedOptions,
    NoiseSchedule,
    head_width,
)

HEADS: tuple[tuple[int | None, int | None], ...] = (
    (None, 1),
    (1, None),
    (32, None),
    (64, None),
    (None, 4),
)
"""Channels per head, or the number of heads."""
SCHEDULES: tuple[NoiseSchedule, ...] = ("linear", "cosine")
STEPS = (1000, 4000)
ANY_SCHEDULE: Mapping[str, Any] = {"noise_schedule": "linear", "steps": 1000}


@dataclass(frozen=True)
class KnownOptions:
    """What need not be found out; None is open. See `GuidedOptions`."""

    noise_schedule: NoiseSchedule | None = None
    steps: int | None = None
    num_head_channels: int | None = None
    num_heads: int | None = None
    new_attention_order: bool | None = None


def candidates(architecture: GuidedArchitecture, known: KnownOptions) -> list[GuidedOptions]:
    """What the options may be: schedules, steps and head layouts that differ for these shapes."""
    given = known.num_head_channels is not None or known.num_heads is not None
    choices = ((known.num_head_channels, known.num_heads),) if given else HEADS
    layouts: dict[tuple[int | None, bool], GuidedOptions] = {}
    for channels, heads in choices:
        first = GuidedOptions(**ANY_SCHEDULE, num_head_channels=channels, num_heads=heads)
        try:
            width = head_width(architecture, first)
        except CheckpointError:
            if given:
                raise
            continue
        one_head = width is None or {width} == set(architecture.attended)
        orders = [False, True] if known.new_attention_order is None else [known.new_attention_order]
        for order in orders[:1] if one_head else orders:
            layout = first.model_copy(update={"new_attention_order": order})
            layouts.setdefault((width, order), layout)
    return [
        layout.model_copy(update={"noise_schedule": schedule, "steps": steps})
        for layout in layouts.values()
        for schedule in ([known.noise_schedule] if known.noise_schedule else SCHEDULES)
        for steps in ([known.steps] if known.steps else STEPS)
    ]


def layout_of(options: GuidedOptions) -> GuidedOptions:
    """Candidates that only differ in their schedule have the same one, and share a network."""
    return options.model_copy(update=ANY_SCHEDULE)


def describe(options: GuidedOptions) -> str:
    """A candidate in a few words."""
    heads, order = words(options)
    parts = [options.noise_schedule, f"{options.steps} steps", heads]
    return ", ".join(parts if options.num_heads == 1 else [*parts, f"{order} order"])


def words(options: GuidedOptions) -> tuple[str, str]:
    """The heads of a candidate and the order of attention, which one head does not have."""
    if options.num_heads == 1:
        return "one head", ""
    order = "new" if options.new_attention_order else "legacy"
    if options.num_heads is not None:
        return f"{options.num_heads} heads", order
    plural = "" if options.num_head_channels == 1 else "s"
    return f"{options.num_head_channels} channel{plural} per head", order


def complete(known: KnownOptions) -> GuidedOptions:
    """The options where nothing is open; the order of attention is the legacy one unless given.

    Raises:
        UsageError: something is open; it is named.
    """
    heads = known.num_heads or known.num_head_channels
    given = {
        "--noise-schedule": known.noise_schedule,
        "--steps": known.steps,
        "--num-heads or --num-head-channels": heads,
    }
    if missing := [flag for flag, value in given.items() if value is None]:
        raise UsageError(
            f"{', '.join(missing)} missing: the shapes of the weights do not determine the noise "
            "schedule and the heads; give them, or use --probe DATASET to measure them on its "
            "frames."
        )
    options = {name: value for name, value in asdict(known).items() if value is not None}
    return GuidedOptions.model_validate(options)
