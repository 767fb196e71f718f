"""Labelled frames from disk: readers behind one small protocol.

`open_dataset` lists a folder without reading a pixel; `Dataset.read` gives one checked frame, or
one line of reason. Nothing here imports SimpleITK until a frame is read.
"""

from echogen.datasets.base import Dataset, Listing, fingerprint_files, select
from echogen.datasets.detect import open_chosen, open_dataset
from echogen.datasets.pixels import image_digest

__all__ = [
    "Dataset",
    "Listing",
    "fingerprint_files",
    "image_digest",
    "open_chosen",
    "open_dataset",
    "select",
]
