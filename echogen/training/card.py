"""A model card from the training record: what a user of the weights must know, in Markdown."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from echogen.diffusion.checkpoint import CheckpointInfo


@dataclass(frozen=True)
class ModelFacts:
    """What a model's card and record say that training cannot know.

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


def model_card(info: CheckpointInfo) -> str:
    """The card, README.md of a checkpoint.

    Args:
        name: of the model.
        info: with a training record as `record` in `echogen.training.evaluation` makes it.
    """
    record = info.training
    parts = [
        f"# {info.name}",
        "A diffusion model of echocardiograms, trained by echogen without labels: an image prior "
        "to paint with (`echogen expand --checkpoint`).",
        f"**Terms.** {info.licence}. Trained on: {info.training_data}. Cite: {info.citation}.",
        "![Generated images](samples.png)",
        _shown(record),
        _what(info),
        _how(record),
        _loss(record),
        _memorisation(record.get("memorisation") or {}),
        _LIMITS,
    ]
    return "\n\n".join(parts) + "\n"


_LIMITS = """## What it must not be used for

It is not a medical device. Do not use it, or images painted with it, for diagnosis, treatment, or
any decision about a person, and do not pass its images off as recordings. Painted pixels carry no
clinical information: measure only on pixels that come from a recording. Views, scanners and
patients unlike its training data are outside what it knows. Results on cases that it was trained on
are results on images that it has seen. The terms of the training data hold for the weights, too."""


def _shown(record: Mapping[str, Any]) -> str:
    found = record.get("memorisation") or {}
    if "held_out" not in found:
        return "Generated images. They were not chosen by how near they lie to training frames."
    return (
        "Generated images. Of the samples that were compared with training frames (below), none of "
        "those shown is nearer to one than any held-out frame is, unless all are."
    )


def _what(info: CheckpointInfo) -> str:
    config = info.training["config"]
    schedule = config["schedule"]
    size, side = info.image_size, info.image_size // info.patch
    grey = "one grey channel" if info.channels == 1 else "grey repeated on 3 channels"
    steps, betas = (
        schedule.get("num_train_timesteps", 1000),
        schedule.get("beta_schedule", "linear"),
    )
    prediction = schedule.get("prediction_type", "epsilon")
    variance = ", learned variance" if schedule.get("variance_type") == "learned_range" else ""
    seen = f"{config['network']['in_channels']} x {side} x {side}"
    return _section(
        "What it is",
        f"- Image: {size} x {size}, {grey}, in [-1, 1]; frames {_RESIZE[info.resize]}.",
        f"- Network: diffusers `UNet2DModel`, fp16 safetensors, on {info.patch} x {info.patch} "
        f"space-to-depth ({seen}).",
        f"- Schedule: {steps} steps, {betas} betas, {prediction}{variance}.",
    )


_RESIZE = {
    "stretch": "stretched to the square",
    "letterbox": "padded to the square",
}


def _how(record: Mapping[str, Any]) -> str:
    frames, cases, run = record["frames"], record["cases"], record.get("run", {})
    told = [f"{k.replace('_', ' ')} {v}" for k, v in record["dataset"].items() if type(v) is str]
    seen = record["images_seen"]
    lines = [
        f"- Data: {frames['trained']} frames of {len(cases['trained'])} cases; "
        f"{frames['held_out']} frames of {len(cases['held_out'])} cases were held out to measure "
        "on. `echogen.json` lists them.",
        f"- Images seen: {seen}, each frame {seen / max(frames['trained'], 1):.0f} times (step "
        f"{record['step']}). These weights are the run's best"
        + (f" of {run['images']} images." if run else "."),
        f"- Hardware: {record['hardware']}, {record['precision']}, {record['seconds']:.0f} s.",
        "- Settings: `echogen.json` holds the whole recipe.",
    ]
    if told:
        lines.insert(1, f"- Dataset: {', '.join(told)}.")
    if record.get("command"):
        lines += ["- Command:", "", f"      {record['command']}"]
    return _section("How it was trained", *lines)


def _loss(record: Mapping[str, Any]) -> str:
    held_out, known = record["held_out_loss"], record["training_loss"]
    what = record["config"]["schedule"].get("prediction_type", "epsilon")
    rows = [
        f"| {step} | {_figure(held_out.get(step))} | {_figure(known.get(step))} |" for step in known
    ]
    name = "held-out" if held_out else "training"
    note = (
        ""
        if held_out
        else "\n\nNo case was held out: these weights were chosen by their loss on frames that "
        "they were trained on, so nothing here tells overfitting."
    )
    return "\n".join(
        [
            "## Held-out loss",
            "",
            f"Mean squared error of {what} at some time steps, the same noise each time.",
            "",
            "| step | held-out frames | training frames |",
            "| --- | --- | --- |",
            *rows,
            "",
            f"Geometric mean over {name} frames: {record['score']:.5f}.{note}",
        ]
    )


def _memorisation(found: Mapping[str, Any]) -> str:
    if not found:
        return "## Memorisation\n\nNot measured yet."
    names = {
        "samples": "samples",
        "held_out": "held-out frames, of cases never seen",
        "training": "training frames, themselves left out",
    }
    rows = [
        f"| {found[key]['count']} {name} | "
        + " | ".join(f"{found[key]['rms'][q]:.1f}" for q in ("least", "p05", "median"))
        + " | "
        + " | ".join(f"{found[key]['correlation'][q]:.2f}" for q in ("median", "p95", "greatest"))
        + " |"
        for key, name in names.items()
        if key in found
    ]
    return "\n".join(
        [
            "## Memorisation",
            "",
            "![Cumulative distances to the nearest training frame](memorisation.png)",
            "",
            f"Nearest training frame, at {found['at']}: root mean square difference in grey levels "
            "of 255, and correlation within the fan after subtracting the mean training frame.",
            "",
            "| images | least RMS | 5% | median | median correlation | 95% | greatest |",
            "| --- | --- | --- | --- | --- | --- | --- |",
            *rows,
            "",
            found["verdict"],
        ]
    )


def _section(title: str, *lines: str) -> str:
    return "\n".join([f"## {title}", "", *lines])


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
