"""DICOM ultrasound files and segmentations of small hearts, as scanners write them."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    SegmentationStorage,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
)

ROOT = "1.2.826.0.1.3680043.8.498."
CM = 3
BASELINE = "1.2.840.10008.1.2.4.50"


def a_region(
    corners: tuple[int, int, int, int],
    delta_cm: tuple[float, float] = (0.1, 0.09),
    spatial: int = 1,
    kind: int = 1,
    units: int = CM,
    flags: int = 0,
) -> Dataset:
    """Corners are the first row and column and the last ones; deltas are (row, col)."""
    item = Dataset()
    item.RegionSpatialFormat, item.RegionDataType, item.RegionFlags = spatial, kind, flags
    item.RegionLocationMinY0, item.RegionLocationMinX0 = corners[:2]
    item.RegionLocationMaxY1, item.RegionLocationMaxX1 = corners[2:]
    item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = units
    item.PhysicalDeltaY, item.PhysicalDeltaX = delta_cm
    return item


def an_ultrasound(
    pixels: np.ndarray,
    photometric: str = "MONOCHROME2",
    *,
    instance: str = "1.1",
    patient: str = "4711",
    regions: Sequence[Dataset] = (),
    syntax: str = ExplicitVRLittleEndian,
    **more: Any,
) -> Dataset:
    """A file of (N, H, W) or (N, H, W, 3) pixels; one picture where N is 1."""
    found = Dataset()
    found.file_meta = FileMetaDataset()
    found.file_meta.TransferSyntaxUID = UID(syntax)
    found.SOPClassUID = UltrasoundImageStorage if len(pixels) == 1 else (
        UltrasoundMultiFrameImageStorage
    )  # fmt: skip
    found.SOPInstanceUID = ROOT + instance
    found.StudyInstanceUID = f"{ROOT}7.{patient or 0}"
    found.PatientID, found.PatientName = patient, "Smith^Jane"
    found.Modality, found.Manufacturer = "US", "Acme"
    found.Rows, found.Columns = pixels.shape[1:3]
    if len(pixels) > 1:
        found.NumberOfFrames, found.FrameTime = len(pixels), 20.0
    found.SamplesPerPixel = 3 if pixels.ndim == 4 else 1
    found.PhotometricInterpretation = photometric
    bits = 8 * pixels.dtype.itemsize
    found.BitsAllocated, found.BitsStored, found.HighBit = bits, bits, bits - 1
    found.PixelRepresentation = int(pixels.dtype.kind == "i")
    if pixels.ndim == 4:
        found.PlanarConfiguration = 0
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    found.PixelData = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    found["PixelData"].VR = "OW" if bits > 8 else "OB"
    if len(regions):
        found.SequenceOfUltrasoundRegions = list(regions)
    for name, value in more.items():
        setattr(found, name, value)
    return found


def save(found: Dataset, path: Path, *, preamble: bool = True) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not preamble:
        del found.file_meta
        found.save_as(path, implicit_vr=True, little_endian=True, enforce_file_format=False)
        return path
    found.save_as(path, enforce_file_format=True)
    return path


def as_jpeg(found: Dataset, pixels: np.ndarray, *, ybr: bool = True, **options: Any) -> Dataset:
    """The file with its pictures as JPEG, baseline, of (N, H, W) or (N, H, W, 3) RGB."""
    held = []
    for picture in pixels:
        stream = BytesIO()
        Image.fromarray(picture).save(stream, "JPEG", quality=95, **options)
        held.append(stream.getvalue())
    found.file_meta.TransferSyntaxUID = UID(BASELINE)
    if pixels.ndim == 4:
        found.PhotometricInterpretation = "YBR_FULL_422" if ybr else "RGB"
    found.PixelData = encapsulate(held)
    found["PixelData"].VR = "OB"
    return found


def a_segmentation(
    masks: Sequence[np.ndarray],
    of: Sequence[tuple[int, str, int | None]],
    names: Sequence[str] = ("LV cavity", "myocardium", "left atrium"),
    *,
    kind: str = "BINARY",
) -> Dataset:
    """A DICOM SEG; `of` is (segment, instance, number of the picture from 1) of each mask."""
    found = Dataset()
    found.file_meta = FileMetaDataset()
    found.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    found.SOPClassUID, found.SOPInstanceUID = SegmentationStorage, f"{ROOT}99.{len(masks)}"
    found.StudyInstanceUID, found.PatientID = f"{ROOT}7.4711", "4711"
    found.Modality, found.SegmentationType = "SEG", kind
    found.Rows, found.Columns = masks[0].shape
    found.NumberOfFrames, found.SamplesPerPixel = len(masks), 1
    found.PhotometricInterpretation, found.PixelRepresentation = "MONOCHROME2", 0
    bits = 1 if kind == "BINARY" else 8
    found.BitsAllocated, found.BitsStored, found.HighBit = bits, bits, bits - 1
    if kind == "FRACTIONAL":
        found.MaximumFractionalValue = 200
    stacked = np.stack(masks)
    found.PixelData = (
        np.packbits(stacked.ravel(), bitorder="little").tobytes()
        if bits == 1
        else stacked.tobytes()
    )
    if len(found.PixelData) % 2:
        found.PixelData += b"\0"
    found["PixelData"].VR = "OB"
    found.SegmentSequence = []
    for number, name in enumerate(names, 1):
        segment = Dataset()
        segment.SegmentNumber, segment.SegmentLabel = number, name
        found.SegmentSequence.append(segment)
    found.PerFrameFunctionalGroupsSequence = []
    for number, instance, picture in of:
        group, who, derived, source = Dataset(), Dataset(), Dataset(), Dataset()
        who.ReferencedSegmentNumber = number
        source.ReferencedSOPInstanceUID = ROOT + instance
        if picture is not None:
            source.ReferencedFrameNumber = picture
        derived.SourceImageSequence = [source]
        group.SegmentIdentificationSequence = [who]
        group.DerivationImageSequence = [derived]
        found.PerFrameFunctionalGroupsSequence.append(group)
    return found
