"""Labelled frames from disk: one reader a layout, one `Dataset` from all of them.

`open_dataset` lists a folder without reading a pixel; `Dataset.read` gives one checked frame, or
one line of reason. Nothing here imports SimpleITK until a frame is read.
"""

from echogen.datasets.base import Dataset, fingerprint_files
from echogen.datasets.detect import open_chosen, open_dataset, open_frames
from echogen.datasets.pixels import image_digest
from echogen.datasets.selection import select

__all__ = [
    "Dataset",
    "fingerprint_files",
    "image_digest",
    "open_chosen",
    "open_dataset",
    "open_frames",
    "select",
]
