"""A training recipe: a table of settings from a TOML preset; unknown keys are refused.

The presets that echogen ships lie in `echogen/training/presets`. `network` and `schedule` are
handed to diffusers' `UNet2DModel` and `DDPMScheduler` unchanged, so they are free tables.
"""

import importlib.resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, ValidationError, field_validator, model_validator

from echogen.config import ImageSide, MoveConfig, Resize
from echogen.diffusion.checkpoint import Conditioning, Name
from echogen.errors import UsageError
from echogen.support.reading import parse_toml, read_toml
from echogen.support.settings import MOST_BYTES, Settings, explain

Prediction = Literal["epsilon", "v_prediction"]
Share = Annotated[float, Field(ge=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Factors = tuple[Positive, Positive]


class OptimiserConfig(Settings):
    """AdamW with warm-up, cosine decay and an exponential moving average of the weights.

    `final_rate` is the share of `learning_rate` that is left at the end. `ema_half_life` counts
    images; it is at most `ema_ramp` times the images seen, so that the average forgets the start.
    """

    batch_size: int = Field(default=256, ge=1)
    learning_rate: Positive = 8e-4
    final_rate: Share = 0.01
    warmup_steps: int = Field(default=500, ge=0)
    weight_decay: NotNegative = 0.01
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.99)
    clip_norm: Positive = 1.0
    dropout: BelowOne = 0.1
    ema_half_life: Positive = 200_000
    ema_ramp: Positive = 0.05


class LossConfig(Settings):
    """Weights of the loss.

    The squared error of v weighs min(SNR, snr_gamma) / (SNR + 1), that of epsilon
    min(SNR, snr_gamma) / SNR, at least `weight_floor`: min-SNR weighting (Hang et al. 2023,
    2303.09556); `snr_gamma` 0 gives every step the weight 1. Where the network learns a variance,
    the variational bound in bits a dimension, summed over all steps, is added with `vlb_weight`
    (lambda of Nichol and Dhariwal 2021, 2102.09672, eq. 17).

    Time steps are uniform, but for a share `low_share` of the images, whose steps lie in the lowest
    `low_until` of the schedule: there seams and speckle are decided.
    """

    snr_gamma: NotNegative = 5.0
    weight_floor: NotNegative = 0.0
    vlb_weight: NotNegative = 0.001
    low_share: Share = 0.0
    low_until: float = Field(default=0.3, gt=0, le=1)


class AugmentConfig(Settings):
    """How frames are varied, each with `probability`, in each way with `each`; see `augment`.

    `zoom` and `lateral` are ranges of factors, `tilt_deg`, `shift` (of the image's side) and
    `gamma` (log of the exponent) are the largest deviation to either side.

    Without conditioning a network is told how each frame was varied, so that it does not paint so.
    With conditioning "known" it is not: what it sees of a frame tells it enough. A share `cut` of
    the varied frames is then cut to the fan that the frame had, the others have a moved fan. An
    image that is hidden as a whole only has its content moved, within its own fan: grown by at most
    `inside` in height and in width.
    """

    probability: Share = 0.0
    each: Share = 1.0
    cut: Share = 0.5
    inside: float = Field(default=1.2, ge=1, le=2)
    zoom: Factors = (1.0, 1.0)
    lateral: Factors = (1.0, 1.0)
    tilt_deg: float = Field(default=0.0, ge=0, le=90)
    shift: float = Field(default=0.0, ge=0, le=0.5)
    gamma: float = Field(default=0.0, ge=0, le=2)

    @field_validator("zoom", "lateral")
    @classmethod
    def _ordered(cls, value: Factors) -> Factors:
        if value[0] > value[1]:
            raise ValueError(f"must be two factors in order, got {value}")
        return value


class HolesConfig(MoveConfig):
    """What is hidden from a network that sees what is known; see `holes`.

    Three shares of the images that add up to 1: `moves` hides what a move of `expand` leaves empty
    of a frame's fan, drawn as there; `shapes` half planes, ellipses, wedges, bands and blobs, so
    that it paints what is missing in fans and scans of another kind; `whole` everything, for
    `echogen sample`. Of the first two kinds holes take between `min_hole` and `max_hole` of the
    fan. A share `border_varied` of the moves has any `border` up to `border_most` (of the height).

    The loss is taken on hidden pixels. One with known pixels around it counts up to
    1 + `border_weight` times, by their share of the 7 x 7 pixels about it.
    """

    moves: Share = 0.7
    shapes: Share = 0.2
    whole: Share = 0.1
    min_hole: Share = 0.02
    max_hole: Share = 0.92
    border_varied: Share = 0.4
    border_most: float = Field(default=8 / 256, ge=0, le=0.25)
    border_weight: NotNegative = 4.0

    @model_validator(mode="after")
    def _adding_up(self) -> Self:
        shares = {"moves": self.moves, "shapes": self.shapes, "whole": self.whole}
        if abs(sum(shares.values()) - 1) > 1e-6:
            said = ", ".join(f"{name} {share:g}" for name, share in shares.items())
            raise ValueError(f"moves, shapes and whole must add up to 1, got {said}")
        if self.min_hole >= self.max_hole:
            raise ValueError(
                f"min_hole must be below max_hole, got {self.min_hole} and {self.max_hole}"
            )
        return self


class Recipe(Settings):
    """Everything that decides which weights a run ends with, apart from its frames and length.

    `conditioning` "known" trains a network that is shown known pixels as they are and a map of
    them, and paints the others; `holes` says which it does not know. "none" trains on whole noisy
    images, and `holes` means nothing.
    """

    name: Name
    image_size: ImageSide
    patch: int = Field(ge=1, le=64)
    network: dict[str, Any]
    schedule: dict[str, Any]
    channels: Literal[1, 3] = 1
    resize: Resize = "stretch"
    conditioning: Conditioning = "none"
    seed: int = Field(default=0, ge=0, lt=2**63)
    optimiser: OptimiserConfig = OptimiserConfig()
    loss: LossConfig = LossConfig()
    augment: AugmentConfig = AugmentConfig()
    holes: HolesConfig = HolesConfig()

    @field_validator("schedule")
    @classmethod
    def _of_a_known_prediction(cls, value: dict[str, Any]) -> dict[str, Any]:
        prediction = value.get("prediction_type", "epsilon")
        if prediction not in get_args(Prediction):
            raise ValueError(
                f"prediction_type must be 'epsilon' or 'v_prediction', got {prediction!r}"
            )
        return value

    @model_validator(mode="after")
    def _in_whole_patches(self) -> Self:
        if self.image_size % self.patch:
            raise ValueError(
                f"image_size must be a multiple of patch {self.patch}, got {self.image_size}"
            )
        return self

    @property
    def keep_channels(self) -> int:
        """Channels of the network's input for the map of what is known."""
        return self.patch**2 if self.conditioning == "known" else 0

    @property
    def prediction(self) -> Prediction:
        """What the network predicts."""
        prediction: Prediction = self.schedule.get("prediction_type", "epsilon")
        return prediction

    @property
    def learns_variance(self) -> bool:
        """Whether the network's second half of channels is a variance (2102.09672, eq. 15)."""
        return self.schedule.get("variance_type") == "learned_range"


def load_recipe(name_or_file: str) -> Recipe:
    """A recipe by the name of a shipped preset, such as "small", or from a TOML file.

    Raises:
        UsageError: no such preset or file, or a key is unknown or missing.
    """
    folder = importlib.resources.files("echogen.training") / "presets"
    shipped = folder / f"{name_or_file}.toml"
    name = f"--preset {name_or_file}"
    try:
        if shipped.is_file():
            table = parse_toml(shipped.read_text(encoding="utf-8"), UsageError, name)
        else:
            table = read_toml(Path(name_or_file), UsageError, name, most=MOST_BYTES)
    except FileNotFoundError as error:
        known = sorted(p.name[:-5] for p in folder.iterdir() if p.name.endswith(".toml"))
        raise UsageError(
            f"{name}: neither a preset ({', '.join(known)}) nor a TOML file ({error.strerror})."
        ) from error
    try:
        return Recipe.model_validate(table)
    except ValidationError as error:
        raise UsageError(f"{name}: {explain(error, Recipe)}") from error
