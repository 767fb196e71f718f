"""Pictures for people: grids of images, tiles with contours, pages of tiles with captions."""

from echogen.pictures.files import save_gif, save_png
from echogen.pictures.grids import (
    COLOURS,
    GAP,
    MISSING,
    OTHER,
    SHEET_GREY,
    Colour,
    Rgb,
    grey,
    image_sheet,
    join,
)

__all__ = [
    "COLOURS",
    "GAP",
    "MISSING",
    "OTHER",
    "SHEET_GREY",
    "Colour",
    "Rgb",
    "grey",
    "image_sheet",
    "join",
    "save_gif",
    "save_png",
]
