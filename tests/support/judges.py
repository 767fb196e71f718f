"""A small judge: sees a heart where the picture is bright, by networks whose weights are set."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from echogen.diffusion.checkpoint import FORMAT, INFO_FILE, JUDGE, file_sha256
from echogen.judging.checkpoint import NETWORK_CONFIG

SIDE, WIDTHS = 32, (2, 2, 2)


def weights(seed: int = 0, classes: int = 4) -> dict[str, torch.Tensor]:
    """Random ones, by MONAI's names."""
    from monai.networks.nets import UNet

    torch.manual_seed(seed)
    network = UNet(2, 2, classes, WIDTHS, (2, 2), num_res_units=0, act="relu", norm=None)
    return dict(network.state_dict())


def bright(level: float) -> dict[str, torch.Tensor]:
    """Says left ventricle where the 2 x 2 pixels around are brighter than `level`, in [-1, 1]."""
    made = {name: torch.zeros_like(value) for name, value in weights().items()}
    made["model.0.conv.weight"][0, 0, 1, 1] = 1
    made["model.0.conv.bias"][0] = 1  # above 0 in all the range
    made["model.2.conv.weight"][0, 1] = torch.tensor([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 4.0
    made["model.2.conv.bias"][1] = -1 - level
    made["model.2.conv.bias"][2:] = -9
    return made


def write_judge(
    folder: Path, threshold: float = 0.1, seen: tuple[tuple[str, ...], ...] = ((), ())
) -> Path:
    """A judge with a network for each of `seen`; the k-th takes for heart what is brighter than
    0.2 + 0.3 k."""
    (folder / "network").mkdir(parents=True)
    (folder / NETWORK_CONFIG).write_text("{}")
    members = []
    for number, cases in enumerate(seen):
        file = f"network/fold{number}.safetensors"
        save_file(bright(0.2 + 0.3 * number), folder / file)
        members.append({"file": file, "seen": list(cases)})
    files = [NETWORK_CONFIG, *(str(member["file"]) for member in members)]
    record = {
        "format": FORMAT,
        "kind": JUDGE,
        "name": "tiny-judge",
        "image_size": SIDE,
        "labels": {"1": "LV cavity", "2": "myocardium", "3": "left atrium"},
        "networks": members,
        "threshold": threshold,
        "training_data": "none",
        "licence": "CC0-1.0",
        "citation": "none",
        "files": {name: file_sha256(folder / name) for name in files},
    }
    (folder / INFO_FILE).write_text(json.dumps(record))
    return folder
