"""Tiny datasets in every layout that is read, and with settings; each function fills a folder."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.support.hearts import FAN, SHAPE, SPACING, fan_frame, write_dataset, write_nifti

SPECKLED = [fan_frame(seed, 88.0 - seed) for seed in range(4)]


def camus(root: Path) -> None:
    from tests.support.chambers import write_volume

    write_dataset(root / "data", 2)
    folder = root / "data" / "patient0001"
    for tail, part in (("", 0), ("_gt", 1)):
        planes = np.stack([frame[part] for frame in SPECKLED])
        write_volume(folder / f"patient0001_4CH_half_sequence{tail}.nii.gz", planes)
    (folder / "Info_4CH.cfg").write_text("ED: 1\nES: 4\nNbFrame: 4\nSex: F\nAge: 56\nEF: 52\n")
    splits = root / "data" / "database_split"
    splits.mkdir()
    (splits / "subgroup_training.txt").write_text("patient0001\n")
    (splits / "subgroup_testing.txt").write_text("patient0002\n")


def metaimages(root: Path) -> None:
    import SimpleITK

    folder = root / "data" / "patient0001"
    folder.mkdir(parents=True)
    for name, seed in (("ED", 0), ("ES", 1)):
        for tail, plane in zip(("", "_gt"), SPECKLED[seed], strict=True):
            image = SimpleITK.GetImageFromArray(plane)
            image.SetSpacing((SPACING[1], SPACING[0]))
            path = folder / f"patient0001_4CH_{name}{tail}.mhd"
            SimpleITK.WriteImage(image, str(path), useCompression=name == "ED")


def folder_of(image_ending: str, label_ending: str) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        import SimpleITK
        from PIL import Image

        for number in range(2):
            for kind, ending, array in zip(
                ("images", "labels"), (image_ending, label_ending), SPECKLED[number], strict=True
            ):
                path = root / "data" / kind / f"heart{number}{ending}"
                path.parent.mkdir(parents=True, exist_ok=True)
                if ending in (".nii", ".nii.gz", ".mha"):
                    image = SimpleITK.GetImageFromArray(array)
                    image.SetSpacing((0.9, 1.0))
                    SimpleITK.WriteImage(image, str(path))
                else:
                    Image.fromarray(array).save(path)
        (root / "data" / "classes.csv").write_text(
            "class_id,name\n0,background\n1,LV cavity\n2,myocardium\n3,left atrium\n"
        )
        (root / "data" / "cases.csv").write_text(
            "frame,case,view,phase,split,recording,spacing_mm\n"
            "heart0,one,4CH,ED,train,r1,0.9\nheart1,two,4CH,ED,test,r2,0.9\n"
        )

    return make


def labelme(root: Path) -> None:
    from tests.support.pictures import corners, save, save_json

    for number in range(2):
        name = f"heart{number}_4CH_ED"
        save(root / "data" / f"{name}.png", SPECKLED[number][0])
        shapes = [
            {"label": "LV cavity", "points": corners(28, 40, 76, 60), "shape_type": "polygon"},
            {"label": "left atrium", "points": corners(80, 40, 90, 60), "shape_type": "polygon"},
        ]
        save_json(
            root / "data" / f"{name}.json",
            {"version": "5.0", "imagePath": f"{name}.png", "imageData": None,
             "imageHeight": SHAPE[0], "imageWidth": SHAPE[1], "shapes": shapes},
        )  # fmt: skip


def coco(root: Path) -> None:
    from tests.support.pictures import corners, save, save_json

    names = [f"heart{number}_4CH_ED.png" for number in range(2)]
    for number, name in enumerate(names):
        save(root / "data" / "images" / name, SPECKLED[number][0])
    polygon = [value for corner in corners(28, 40, 76, 60) for value in corner]
    save_json(
        root / "data" / "annotations.json",
        {
            "images": [
                {"id": i, "file_name": name, "height": SHAPE[0], "width": SHAPE[1]}
                for i, name in enumerate(names)
            ],
            "categories": [{"id": 1, "name": "LV cavity"}, {"id": 2, "name": "left atrium"}],
            "annotations": [
                {"id": i, "image_id": i, "category_id": 1, "segmentation": [polygon], "iscrowd": 0}
                for i in range(2)
            ],
        },
    )


def nnunet(root: Path) -> None:
    data = root / "data"
    names = [f"patient000{number}_4CH_ED" for number in (1, 2)]
    for folder in ("imagesTr", "labelsTr"):
        (data / folder).mkdir(parents=True)
    for number, name in enumerate(names):
        write_nifti(data / "imagesTr" / f"{name}_0000.nii.gz", SPECKLED[number][0])
        write_nifti(data / "labelsTr" / f"{name}.nii.gz", SPECKLED[number][1])
    labels = {"background": 0, "LV cavity": 1, "myocardium": 2, "left atrium": 3}
    (data / "dataset.json").write_text(json.dumps({
        "channel_names": {"0": "ultrasound"}, "labels": labels, "numTraining": 2,
        "file_ending": ".nii.gz", "name": "hearts", "licence": "own",
    }))  # fmt: skip
    splits = [{"train": [names[0]], "val": [names[1]]}, {"train": [names[1]], "val": [names[0]]}]
    (data / "splits_final.json").write_text(json.dumps(splits))


def echonet(root: Path) -> None:
    from tests.support.echonet import (
        AT,
        PHASES,
        listed,
        phantom,
        pictures,
        traced,
        write_table,
        write_video,
    )

    videos = {"0X1A": 1, "0X2B": 1}
    for video, index in videos.items():
        write_video(root / "data" / "Videos" / f"{video}.avi", pictures(index))
    write_table(root / "data" / "FileList.csv", [listed(video) for video in videos])
    rows = [
        row
        for video, index in videos.items()
        for phase in PHASES
        for row in traced(video, phantom(index, phase)[1], AT[phase])
    ]
    write_table(root / "data" / "VolumeTracings.csv", rows)


def pediatric(root: Path) -> None:
    from tests.datasets.test_pediatric import write_pediatric

    write_pediatric(root / "data")


def cardiacuda(root: Path) -> None:
    from tests.support.chambers import write_videos

    write_videos(root / "data", 2, 4, (1, 2))


def dicom(root: Path) -> None:
    from PIL import Image

    from tests.support.dicoms import a_region, a_segmentation, an_ultrasound, as_jpeg, save

    data = root / "data"
    clip, labels = (np.stack(arrays) for arrays in zip(*SPECKLED, strict=True))
    region = [a_region((0, 0, SHAPE[0] - 1, SHAPE[1] - 1))]
    save(an_ultrasound(clip[:1], regions=region, instance="1.1"), data / "still.dcm")
    save(an_ultrasound(clip, regions=region, instance="1.2", patient="12"), data / "clip.dcm")
    colours = np.repeat(clip[:1, ..., None], 3, axis=3)
    packed = as_jpeg(an_ultrasound(colours, "RGB", regions=region, instance="1.3"), colours)
    save(packed, data / "jpeg.dcm")
    for name in ("still", "jpeg"):
        Image.fromarray(labels[0]).save(data / f"{name}.png")
    masks = [(labels[0] == one).astype(np.uint8) for one in (1, 2, 3)]
    of = [(number, "1.2", 1) for number in (1, 2, 3)]
    save(a_segmentation(masks, of), data / "seg.dcm")
    (data / "salt.txt").write_text("a secret of more than sixteen letters\n")


def with_fans(root: Path) -> None:
    write_dataset(root / "data", 2)
    head = ("recording,rows,cols,apex_row,apex_col,angle_left_deg,angle_right_deg,radius_near,"
            "radius_far,confidence,how,reason\n")  # fmt: skip
    values = f"{FAN.apex_row - 0.5},{FAN.apex_col / 0.9 - 0.5},-35.5,37.8,3,114,0.9,fitted,"
    (root / "fans.csv").write_text(
        head + "".join(f"patient000{n}/4CH,{SHAPE[0]},{SHAPE[1]},{values}\n" for n in (1, 2))
    )


def settings(root: Path) -> None:
    write_dataset(root / "data", 1)
    (root / "settings.toml").write_text(
        'copies = 1\nseed = 3\njudge = "none"\n\n[dataset]\nformat = "camus"\nviews = ["4CH"]\n'
        "spacing_mm = [1.0, 0.9]\nwindow = [0, 255]\n\n[transforms]\ndepth = [0.9, 1.1]\n"
        'tilt_deg = [-5, 5]\nlabels_on_paint = "keep"\n\n[sampler]\nname = "dpm"\nsteps = 2\n\n'
        '[engine]\ndevice = "cpu"\nprecision = "fp32"\nbatch_size = 2\nworkers = 1\n\n'
        "[store]\nshard_size = 4\n"
    )


def flags(root: Path) -> None:
    write_dataset(root / "data", 1)
    (root / "set.txt").write_text(
        "copies=1\nseed=3\nsampler.name=dpm\nsampler.steps=2\nengine.workers=1\n"
        "engine.device=cpu\nengine.precision=fp32\ntransforms.depth=[0.9,1.1]\n"
        "dataset.spacing_mm=0.5\nstore.shard_size=2\n"
    )
    (root / "data.txt").write_text(
        "dataset.spacing_mm=[1.0,0.9]\ndataset.window=[0,255]\ndataset.flip=none\n"
    )
    (root / "recipe.txt").write_text("optimiser.learning_rate=1e-3\naugment.zoom=[0.9,1.1]\n")
