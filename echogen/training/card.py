"""A model's training record, and its card: what a user of the weights must know, in Markdown."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field, ValidationError

from echogen.diffusion.checkpoint import CheckpointInfo
from echogen.errors import CheckpointError
from echogen.support.settings import Settings, explain
from echogen.training.recipe import Recipe


@dataclass(frozen=True)
class ModelFacts:
    """Facts for a model's card and record that training cannot know.

    Attributes:
        name: a short name for people.
        training_data: what it was trained on, in words.
        licence: terms of the weights.
        citation: what a user of the weights must cite.
        dataset: of the frames, JSON-able: format, root_name, fingerprint, split, selection.
        command: that started the run.
    """

    name: str
    training_data: str = "not stated"
    licence: str = "not stated; the terms of the training data apply"
    citation: str = "none stated"
    dataset: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""

    @property
    def terms(self) -> dict[str, Any]:
        """The fields shared with `CheckpointInfo`."""
        names = ("name", "training_data", "licence", "citation")
        return {name: getattr(self, name) for name in names}


class FrameCounts(Settings):
    """How many frames were trained on, and set aside."""

    trained: int
    held_out: int


class CaseDigests(Settings):
    """{case: digests of its frames}, sorted: what `expand` compares its frames to."""

    trained: dict[str, tuple[str, ...]]
    held_out: dict[str, tuple[str, ...]]


class TrainingRecord(Settings, extra="allow"):
    """How a model was trained, as `echogen.json` records it under "training".

    Attributes:
        config: the recipe.
        data_fingerprint: of the frames.
        held_out_cases: whose frames were set aside.
        dataset, command: as in `ModelFacts`.
        cases, frames: trained on and held out.
        images_seen, step, seconds: of the run when these weights were measured.
        hardware, precision: that it was trained on and in.
        memorisation: `Memorisation.as_dict`, and the sampler; empty until it is measured.
        score: geometric mean of the held-out losses, or of the training losses without any.
        held_out_loss, training_loss: {time step: mean squared error}; with conditioning of hidden
            pixels, with the same holes each time.
        held_out_loss_whole, training_loss_whole: with conditioning, of images hidden as a whole.
        start_from: name and sha256 of the checkpoint whose weights it started from; empty where it
            started from none.
        run: step, images and seconds of the whole run, once it is finished.
    """

    config: Recipe
    data_fingerprint: str
    held_out_cases: tuple[str, ...]
    dataset: dict[str, Any]
    cases: CaseDigests
    frames: FrameCounts
    images_seen: int
    step: int
    seconds: float
    hardware: str
    precision: str
    command: str
    memorisation: dict[str, Any] = Field(default_factory=dict)
    score: float
    held_out_loss: dict[str, float]
    training_loss: dict[str, float]
    held_out_loss_whole: dict[str, float] = Field(default_factory=dict)
    training_loss_whole: dict[str, float] = Field(default_factory=dict)
    start_from: dict[str, str] = Field(default_factory=dict)
    run: dict[str, int | float] = Field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; `run` is left out where it is not known."""
        return self.model_dump(mode="json", exclude=set() if self.run else {"run"})


def training_record(info: CheckpointInfo) -> TrainingRecord:
    """The record of a model that echogen trained.

    Raises:
        CheckpointError: it was not, or the record is damaged.
    """
    try:
        return TrainingRecord.model_validate(info.training)
    except ValidationError as error:
        raise CheckpointError(
            f"{info.name}: not a training record made by echogen: {explain(error, TrainingRecord)}"
        ) from error


def model_card(info: CheckpointInfo, *, has_border: bool) -> str:
    """The card, README.md of a checkpoint; `has_border` tells of its network in `border/`.

    Raises:
        CheckpointError: the checkpoint has no training record.
    """
    record = training_record(info)
    parts = [
        f"# {info.name}",
        "A diffusion model of echocardiograms, trained by echogen without labels: an image prior "
        "for painting (`echogen expand --checkpoint`).",
        f"**Terms.** {info.licence}. Trained on: {info.training_data}. Cite: {info.citation}.",
        "![Generated images](samples.png)",
        _shown(record),
        _what(info, record.config, has_border),
        _how(record),
        _loss(record),
        _memorisation(record.memorisation),
        _LIMITS,
    ]
    return "\n\n".join(parts) + "\n"


_LIMITS = """## What it must not be used for

It is not a medical device. Do not use it, or images painted with it, for diagnosis, treatment, or
any decision about a person, and do not pass its images off as recordings. Painted pixels carry no
clinical information: measure only on pixels that come from a recording. Views, scanners and
patients unlike its training data are outside what it knows. Results on cases that it was trained on
are results on images that it has seen. The terms of the training data apply to the weights too."""


def _shown(record: TrainingRecord) -> str:
    if "held_out" not in record.memorisation:
        return "Generated images, not selected by their distance from training frames."
    return (
        "Generated images. Of the samples that were compared with training frames (below), none "
        "shown here is nearer to one than any held-out frame is, unless all are."
    )


def _what(info: CheckpointInfo, recipe: Recipe, has_border: bool) -> str:
    size, side = info.image_size, info.image_size // info.patch
    grey = "one grey channel" if info.channels == 1 else "grey repeated on 3 channels"
    steps = recipe.schedule.get("num_train_timesteps", 1000)
    betas = recipe.schedule.get("beta_schedule", "linear")
    variance = ", learned variance" if recipe.learns_variance else ""
    picture = info.channels * info.patch**2
    seen = f"{picture} x {side} x {side}"
    shown = "the noisy picture alone"
    if info.conditioning == "known":
        shown = (
            "the picture, its known pixels as they are and the others noisy, and in "
            f"{info.keep_channels} more channels which are known (1) and which are to be painted "
            "(0). With nothing known it is an unconditional model"
        )
    border = (
        "- Border: a small network in `border/`, which echogen alone applies, corrects what is "
        "predicted of the two hidden pixels next to known ones."
    )
    return _section(
        "What it is",
        f"- Image: {size} x {size}, {grey}, in [-1, 1]; frames {_RESIZE[info.resize]}.",
        f"- Network: diffusers `UNet2DModel`, fp16 safetensors, on {info.patch} x {info.patch} "
        f"space-to-depth ({seen}).",
        f"- It is shown {shown}.",
        f"- Schedule: {steps} steps, {betas} betas, {recipe.prediction}{variance}.",
        *([border] if has_border else []),
    )


_RESIZE = {
    "stretch": "stretched to the square",
    "letterbox": "padded to the square",
}


def _how(record: TrainingRecord) -> str:
    frames, cases, seen = record.frames, record.cases, record.images_seen
    words = [f"{k.replace('_', ' ')} {v}" for k, v in record.dataset.items() if type(v) is str]
    lines = [
        f"- Data: {frames.trained} frames of {len(cases.trained)} cases; {frames.held_out} frames "
        f"of {len(cases.held_out)} cases were held out for evaluation. `echogen.json` lists them.",
        f"- Images seen: {seen}, each frame {seen / max(frames.trained, 1):.0f} times (step "
        f"{record.step}). These weights are the run's best"
        + (f" of {record.run['images']} images." if record.run else "."),
        f"- Hardware: {record.hardware}, {record.precision}, {record.seconds:.0f} s.",
        "- Settings: `echogen.json` holds the whole recipe.",
    ]
    if words:
        lines.insert(1, f"- Dataset: {', '.join(words)}.")
    if record.start_from:
        started = f"{record.start_from['name']}, sha256 {record.start_from['sha256'][:12]}"
        lines.append(f"- Started from the weights of {started}.")
    if record.command:
        lines += ["- Command:", "", f"      {record.command}"]
    return _section("How it was trained", *lines)


def _loss(record: TrainingRecord) -> str:
    name, note = "held-out", ""
    if not record.held_out_loss:
        name, note = (
            "training",
            (
                "\n\nNo case was held out: these weights were chosen by their loss on frames that "
                "they were trained on, so nothing here shows overfitting."
            ),
        )
    holes = ", on pixels hidden by the same holes" if record.training_loss_whole else ""
    lines = [
        f"Mean squared error of {record.config.prediction} at selected time steps, with the same "
        f"noise each time{holes}.",
        "",
        *_table(record.held_out_loss, record.training_loss),
        "",
        f"Geometric mean over {name} frames: {record.score:.5f}.{note}",
    ]
    if record.training_loss_whole:
        whole = _table(record.held_out_loss_whole, record.training_loss_whole)
        lines += ["", "With the whole image hidden:", "", *whole]
    return _section("Held-out loss", *lines)


def _table(held_out: Mapping[str, float], known: Mapping[str, float]) -> list[str]:
    return [
        "| step | held-out frames | training frames |",
        "| --- | --- | --- |",
        *(
            f"| {step} | {_figure(held_out.get(step))} | {_figure(known.get(step))} |"
            for step in known
        ),
    ]


def _memorisation(nearest: Mapping[str, Any]) -> str:
    if not nearest:
        return "## Memorisation\n\nNot measured yet."
    names = {
        "samples": "samples",
        "held_out": "held-out frames, of unseen cases",
        "training": "training frames, each without itself",
    }
    rows = [
        f"| {nearest[key]['count']} {name} | "
        + " | ".join(f"{nearest[key]['rms'][q]:.1f}" for q in ("least", "p05", "median"))
        + " | "
        + " | ".join(f"{nearest[key]['correlation'][q]:.2f}" for q in ("median", "p95", "greatest"))
        + " |"
        for key, name in names.items()
        if key in nearest
    ]
    return _section(
        "Memorisation",
        "![Cumulative distances to the nearest training frame](memorisation.png)",
        "",
        f"Nearest training frame, at {nearest['at']}: root mean square difference in grey levels "
        "of 255, and correlation within the fan after subtracting the mean training frame.",
        "",
        "| images | least RMS | 5% | median | median correlation | 95% | greatest |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *rows,
        "",
        nearest["verdict"],
    )


def _section(title: str, *lines: str) -> str:
    return "\n".join([f"## {title}", "", *lines])


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
