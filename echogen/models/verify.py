"""Whether a checkpoint is intact, states its terms, and denoises.

Simulated frames x_0 with noise of a known level, y = x_0 + sigma n, are given to the network, and
its x_0 must be nearer to the truth than the best that needs no model: one grey level, or y blurred
by the Gaussian that suits that level best. A network that is shown what is known must come nearer
to what is hidden with it than without.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from echogen.config import Resize
from echogen.diffusion.checkpoint import (
    CheckpointInfo,
    checkpoint_folder,
    read_info,
    verify_checkpoint,
)
from echogen.diffusion.network import load_checkpoint
from echogen.errors import EXIT_DONE, CheckpointError, EngineError
from echogen.judging.checkpoint import JudgeInfo, is_judge, read_judge_info
from echogen.judging.judge import open_judge
from echogen.models.describe import describe
from echogen.report import CommandReport

if TYPE_CHECKING:
    from echogen.diffusion.denoiser import Denoiser

Images = npt.NDArray[np.float32]

SIGMAS = (0.1, 0.3, 0.6)
BLURS = (0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
HIGHEST_RATIO = 0.95
HIDDEN_SIGMA = 8.0
STRIPES = 32  # side by side over an image's width, every other one hidden
FRAMES = 3
VERIFIED_ON = 256
LEAST_HEART = 0.03


@dataclass(frozen=True)
class Level:
    """Root mean square errors over grey levels in [-1, 1] at one noise level, of whole images.

    Attributes:
        sigma: of the noise, in the same units.
        error: of the model.
        baseline: of the best blur or grey level; `ratio` is the error over it.
    """

    sigma: float
    error: float
    baseline: float
    ratio: float


@dataclass(frozen=True)
class Check:
    """One thing that was verified, whether it holds, and what was found."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True)
class Verification(CommandReport):
    """All checks of a checkpoint, in order; those after one that ends the matter are left out."""

    name: str
    folder: str
    checks: tuple[Check, ...]
    denoising: tuple[Level, ...]
    derived = ("ok",)

    @property
    def ok(self) -> bool:
        """Whether every check holds."""
        return all(check.ok for check in self.checks)

    @property
    def exit_code(self) -> int:
        """0, or that of a wrong checkpoint."""
        return EXIT_DONE if self.ok else CheckpointError.exit_code


def verify(path_or_name: str | Path) -> Verification:
    """Check a checkpoint: its hashes, its terms, its network, and that it denoises.

    Takes some seconds on a CPU for the built-in model.

    Args:
        path_or_name: as `resolve_checkpoint` gives it.

    Raises:
        CheckpointError: there is no checkpoint whose description can be read.
    """
    if is_judge(path_or_name):
        return _verify_judge(path_or_name)
    info, folder = read_info(path_or_name), checkpoint_folder(path_or_name)
    checks: list[Check] = []
    levels: tuple[Level, ...] = ()
    try:
        verify_checkpoint(folder)
        checks.append(Check("hashes", True, f"{len(info.files)} files as recorded"))
    except CheckpointError as error:
        checks.append(Check("hashes", False, str(error)))
    checks.append(_check_licence(info, folder))
    if checks[0].ok:
        try:
            denoiser = load_checkpoint(folder, "cpu", "fp32")
            checks.append(Check("network", True, f"{describe(folder).parameters:,} parameters"))
        except (CheckpointError, EngineError) as error:
            checks.append(Check("network", False, str(error)))
        else:
            images = phantom_images(info)
            levels = denoising(denoiser, images)
            checks.append(_check_levels(levels))
            if info.conditioning == "known":
                checks.append(_check_known(*hidden_errors(denoiser, images)))
    return Verification(info.name, str(folder), tuple(checks), levels)


def _verify_judge(folder: str | Path) -> Verification:
    """A judge: its hashes, its terms, and that it finds the hearts of simulated frames."""
    info = read_judge_info(folder)
    try:
        judge = open_judge(folder, info.labels, lambda line: None)
        checks = [Check("hashes", True, f"{len(info.files)} files as recorded")]
    except CheckpointError as error:
        judge, checks = None, [Check("hashes", False, str(error))]
    checks.append(_check_licence(info, Path(folder)))
    if judge is not None:
        seen = [judge.heart(image) for image in phantom_frames(VERIFIED_ON, "stretch")]
        least = min(seen)
        detail = f"sees a heart on {least:.0%} to {max(seen):.0%} of simulated frames' pixels"
        wanted = "" if least >= LEAST_HEART else f"; expected {LEAST_HEART:.0%} or more"
        checks.append(Check("sees hearts", not wanted, detail + wanted))
    return Verification(info.name, str(folder), tuple(checks), ())


def phantom_images(info: CheckpointInfo) -> Images:
    """(3, S, S) simulated frames on the model's grid, in [-1, 1]."""
    from echogen.types import to_model_range

    return to_model_range(phantom_frames(info.image_size, info.resize))


def phantom_frames(image_size: int, resize: Resize) -> npt.NDArray[np.uint8]:
    """(3, S, S) simulated frames on a model's grid, S = `image_size`."""
    from echogen.geometry.field import field_of
    from echogen.geometry.render import render_original
    from echogen.geometry.transforms import model_grid
    from echogen.phantom import PHASES, VIEWS, make_frame

    shown = [(view, phase) for view in VIEWS for phase in PHASES][:FRAMES]
    images = []
    for index, (view, phase) in enumerate(shown, 1):
        phantom = make_frame(index, view, phase, 0)
        field = field_of(phantom.frame, phantom.sector).frame
        grid = model_grid(field.label.shape, field.unit_spacing, image_size, resize)
        images.append(render_original(field, grid).image)
    return np.stack(images)


def denoising(denoiser: "Denoiser", images: Images) -> tuple[Level, ...]:
    """How well a model takes noise away, against blurring, at each of `SIGMAS`.

    Args:
        denoiser: of the checkpoint.
        images: (N, S, S) in [-1, 1]; a colour model sees them grey, and its colours' mean counts.
    """
    import torch

    rng = np.random.Generator(np.random.PCG64(0))
    levels = []
    for wanted in SIGMAS:
        t = round(float(denoiser.schedule.timestep_at(wanted)))
        sigma = float(denoiser.schedule.sigma_at(t))
        noise = rng.standard_normal((len(images), denoiser.channels, *images.shape[1:]))
        noisy = (images[:, None] + sigma * noise).astype(np.float32)
        x = torch.from_numpy(noisy / math.sqrt(1.0 + sigma**2)).float().to(denoiser.device)
        with torch.inference_mode():
            parts = [denoiser.predict(image, t).x0.mean(dim=1) for image in torch.split(x, 1)]
        error = _rms(torch.cat(parts).cpu().numpy() - images)
        baseline = _best_without_a_model(noisy.mean(axis=1), images)
        levels.append(Level(sigma, error, baseline, error / baseline))
    return tuple(levels)


def hidden_errors(denoiser: "Denoiser", images: Images) -> tuple[float, float]:
    """Errors in hidden stripes of images, seen through noise of `HIDDEN_SIGMA`.

    Args:
        denoiser: of a checkpoint with conditioning.
        images: (N, S, S) in [-1, 1].

    Returns:
        Root mean square errors with the other stripes known, and with nothing known.
    """
    import torch

    from echogen.diffusion.border import Known

    t = round(float(denoiser.schedule.timestep_at(HIDDEN_SIGMA)))
    sigma = float(denoiser.schedule.sigma_at(t))
    side = images.shape[-1]
    truth = torch.from_numpy(images)[:, None].expand(-1, denoiser.channels, -1, -1)
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    noisy = (truth + sigma * noise) / math.sqrt(1.0 + sigma**2)
    hidden = torch.arange(side) * STRIPES // side % 2 == 1
    keep = (~hidden).expand(len(truth), 1, side, side)
    with torch.inference_mode():
        x = noisy.to(denoiser.device)
        known = Known(truth.to(denoiser.device), keep.to(denoiser.device))
        found = [denoiser.predict(x, t, what).x0.cpu() for what in (known, None)]
    wrong, blind = (_rms((each - truth)[..., hidden].numpy()) for each in found)
    return wrong, blind


def _best_without_a_model(noisy: Images, images: Images) -> float:
    from scipy.ndimage import gaussian_filter

    guesses = [np.full_like(images, images.mean())]
    guesses += [gaussian_filter(noisy, (0, width, width)).clip(-1, 1) for width in BLURS]
    return min(_rms(guess - images) for guess in guesses)


def _rms(difference: npt.NDArray[Any]) -> float:
    return float(np.sqrt(np.mean(np.square(difference, dtype=np.float64))))


def _check_licence(info: CheckpointInfo | JudgeInfo, folder: Path) -> Check:
    known = bool(info.licence.strip()) and not info.licence.lower().startswith("unknown")
    if known:
        return Check("licence", True, info.licence)
    found = info.licence or "none given"
    return Check("licence", False, f"{found}; add the terms to {folder}'s echogen.json")


def _check_levels(levels: tuple[Level, ...]) -> Check:
    figures = ", ".join(
        f"sigma {level.sigma:.2g}: error {level.error:.3f} against {level.baseline:.3f} for the "
        f"best blur (ratio {level.ratio:.2f})"
        for level in levels
    )
    ok = all(level.ratio <= HIGHEST_RATIO for level in levels)  # NaN is not
    wanted = "" if ok else f"; expected {HIGHEST_RATIO} or less at each level: it does not denoise"
    return Check("denoising", ok, figures + wanted)


def _check_known(wrong: float, blind: float) -> Check:
    figures = (
        f"error {wrong:.3f} in hidden stripes with the others known, {blind:.3f} with nothing known"
    )
    ok = wrong <= HIGHEST_RATIO * blind
    wanted = (
        "" if ok else f"; expected {HIGHEST_RATIO:.0%} of it or less: what is known is not used"
    )
    return Check("known pixels", ok, figures + wanted)
