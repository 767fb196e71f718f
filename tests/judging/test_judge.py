"""What a judge measures, which of its networks judges whom, and what it refuses."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from echogen.diffusion.checkpoint import INFO_FILE, read_info
from echogen.errors import CheckpointError
from echogen.judging.checkpoint import read_judge_info, verify_judge
from echogen.judging.judge import Judge, matching, open_judge
from echogen.judging.measure import unlabelled
from echogen.judging.network import answer
from echogen.types import CAMUS_LABELS, IGNORE
from tests.support.judges import SIDE, weights, write_judge

HEART, NONE = (1, 2, 3), frozenset[int]()


def opened(folder: Path) -> Judge:
    judge = open_judge(folder, CAMUS_LABELS, pytest.fail)
    assert judge is not None
    return judge


def sample(level: int = 255) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A labelled heart, and a painted bright patch apart from it of half its area."""
    image, label = np.zeros((SIDE, SIDE), np.uint8), np.zeros((SIDE, SIDE), np.uint8)
    label[4:12, 4:12] = 1
    image[4:12, 4:12] = 255
    image[20:28, 20:24] = level
    keep = np.ones((SIDE, SIDE), np.bool_)
    keep[16:] = False
    return image, label, keep


@pytest.mark.parametrize("seed", range(3))
def test_the_network_is_monais(seed: int) -> None:
    from monai.networks.nets import UNet

    theirs = UNet(2, 2, 4, (2, 2, 2), (2, 2), num_res_units=0, act="relu", norm=None).eval()
    theirs.load_state_dict(weights(seed))
    x = torch.randn(2, 2, 32, 48, generator=torch.Generator().manual_seed(seed))
    with torch.inference_mode():
        torch.testing.assert_close(answer(weights(seed), x), theirs(x))


def test_only_what_is_painted_called_background_and_apart_counts() -> None:
    label, keep = np.zeros((64, 64), np.uint8), np.zeros((64, 64), np.bool_)
    label[10:30, 10:20] = 1
    label[10:30, 20:24] = 2
    seen = label.copy()
    assert not unlabelled(seen, label, keep, HEART, NONE).any()
    seen[5:25, 40:50] = 1
    seen[40:44, 50:54] = 3
    found = unlabelled(seen, label, keep, HEART, NONE)
    assert found.sum() == 200
    assert found[5:25, 40:50].all()
    ignored = label.copy()
    ignored[5:25, 40:50] = IGNORE
    assert unlabelled(seen, ignored, keep, HEART, NONE).sum() == 16
    keep[:, 40:] = True
    assert not unlabelled(seen, label, keep, HEART, NONE).any()


def test_a_structure_that_was_cut_may_go_on_for_a_while_and_others_may_not() -> None:
    label, keep = np.zeros((64, 64), np.uint8), np.zeros((64, 64), np.bool_)
    label[10:30, 10:20] = 1
    seen = label.copy()
    seen[30:36, 10:20] = 1
    assert unlabelled(seen, label, keep, HEART, frozenset({2})).sum() == 50  # beyond the margin
    assert not unlabelled(seen, label, keep, HEART, frozenset({1, 3})).any()
    seen[30:50, 10:20] = 1
    assert unlabelled(seen, label, keep, HEART, frozenset({1})).sum() == 130
    seen[30:50, 10:20] = 3  # another class is no continuation
    assert unlabelled(seen, label, keep, HEART, frozenset({1})).sum() == 190


def test_the_share_is_of_the_labelled_area(tmp_path: Path) -> None:
    judge = opened(write_judge(tmp_path / "judge"))
    assert judge.look(*sample(), "someone").share == pytest.approx(0.4, abs=0.11)
    assert judge.look(*sample(0), "someone").share == 0
    parts = judge.look(*sample(), "someone").parts
    assert parts == {1: judge.look(*sample(), "someone").share, 2: 0, 3: 0}
    why = judge.look(*sample(), "someone").why_not
    assert "second, unlabelled heart" in why
    assert f"LV cavity {parts[1]:.0%})" in why
    assert judge.look(*sample(0), "someone").why_not == ""
    image, label, keep = sample()
    assert judge.look(image, np.zeros_like(label), keep, "someone").share == 0
    assert judge.look(image, label, np.ones_like(keep), "someone").share == 0


def test_a_case_is_judged_by_networks_that_have_not_seen_it(tmp_path: Path) -> None:
    # of a grey between their two levels, the first says heart and the second does not
    judge = opened(write_judge(tmp_path / "judge", seen=(("a", "c"), ("b", "c"))))
    between = round(255 * (0.35 + 1) / 2)
    assert judge.look(*sample(between), "b").share > 0.3
    assert judge.look(*sample(between), "a").share == 0
    names = [[member.file[8:13] for member in judge.info.members_for(case)] for case in "abcd"]
    assert names == [["fold1"], ["fold0"], ["fold0", "fold1"], ["fold0", "fold1"]]


def test_a_judge_goes_to_other_processes_without_its_weights(tmp_path: Path) -> None:
    judge = opened(write_judge(tmp_path / "judge"))
    before = len(pickle.dumps(judge))
    found = judge.look(*sample(), "someone").share
    assert len(pickle.dumps(judge)) == before
    assert pickle.loads(pickle.dumps(judge)).look(*sample(), "someone").share == found


def test_classes_are_matched_by_their_names() -> None:
    judged = {1: "LV cavity", 2: "myocardium", 3: "left atrium"}
    assert matching(judged, CAMUS_LABELS) == {1: 1, 2: 2, 3: 3}
    assert matching(judged, {3: "LV", 1: "MYO", 7: "LA", 9: "RV"}) == {3: 1, 1: 2, 7: 3}
    assert matching(judged, {str(k): name for k, name in CAMUS_LABELS.items()}) == {
        1: 1,
        2: 2,
        3: 3,
    }
    assert matching(judged, {0: "background", 1: "LV cavity"}) is None


def test_where_it_does_not_apply_it_says_so_once_and_judges_nothing(tmp_path: Path) -> None:
    told: list[str] = []
    folder = write_judge(tmp_path / "judge")
    assert open_judge(folder, {1: "LV cavity"}, told.append) is None
    assert told == [
        "no sample is judged: tiny-judge needs labels of LV cavity, myocardium, left atrium; "
        "found LV cavity"
    ]
    assert open_judge("none", CAMUS_LABELS, pytest.fail) is None


def test_other_ids_of_the_dataset_and_other_classes_are_understood(tmp_path: Path) -> None:
    folder = write_judge(tmp_path / "judge")
    judge = open_judge(folder, {5: "LV", 1: "MYO", 7: "LA", 9: "RV"}, pytest.fail)
    assert judge is not None
    image, label, keep = sample()
    label[label == 1] = 5
    assert (
        judge.look(image, label, keep, "x").share == opened(folder).look(*sample(), "x").share > 0
    )
    label[20:28, 20:24] = 9  # labelled as something else is labelled
    assert judge.look(image, label, keep, "x").share == 0


def test_neither_kind_of_folder_is_taken_for_the_other(tmp_path: Path, checkpoint: Path) -> None:
    folder = write_judge(tmp_path / "judge")
    with pytest.raises(CheckpointError, match="a judge, which paints nothing; give it to --judge"):
        read_info(folder)
    with pytest.raises(CheckpointError, match=r"expected kind 'judge', found 'no kind'"):
        read_judge_info(checkpoint)
    with pytest.raises(CheckpointError, match=r"nowhere: no such judge"):
        read_judge_info(tmp_path / "nowhere")


def test_a_damaged_judge_is_refused(tmp_path: Path) -> None:
    folder = write_judge(tmp_path / "judge")
    (folder / "network" / "fold1.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"damaged or modified: network/fold1.safetensors"):
        verify_judge(folder)
    (folder / "network" / "fold1.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"fold1\.safetensors is missing"):
        verify_judge(folder)
    record = json.loads((folder / INFO_FILE).read_text())
    (folder / INFO_FILE).write_text(json.dumps({**record, "threshold": 0}))
    with pytest.raises(CheckpointError, match="threshold"):
        read_judge_info(folder)


def test_what_decides_enters_the_hash(tmp_path: Path) -> None:
    one, same, other, unseen = (
        read_judge_info(write_judge(tmp_path / name, threshold, seen))
        for name, threshold, seen in (
            ("a", 0.1, (("x", "y"), ())), ("b", 0.1, (("y", "x"), ())),
            ("c", 0.2, (("x", "y"), ())), ("d", 0.1, ((), ())),
        )
    )  # fmt: skip
    assert one.sha256 == same.sha256
    assert len({one.sha256, other.sha256, unseen.sha256}) == 3
