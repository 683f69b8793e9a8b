"""What is in a picture file? A PNG, WebP or JPEG as 8-bit red, green and blue; it has no place on Earth, whatever lies beside it.

Files are opened by their first bytes and never by another format's reader. What can't be taken as it is, is refused rather than guessed: a
rotation that a camera noted, because north is up here, whatever a viewer does; transparency; more than 8 bits. Colour profiles and gammas
are ignored: the numbers are the picture. JPEG and lossy WebP are taken as they decode, their colours at half the resolution of their
brightness.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from copgen.modalities import TILE, Modality

Colours = NDArray[np.uint8]

MOST_SIDE = 4096                                 # pixels; a tile of Major TOM's has 1068
PLAIN = {"RGB", "L", "P"}                        # Pillow's modes of 8 bits, without and with transparency
CLEAR = {"RGBA", "LA", "PA"}
ORIENTATION = 0x0112                             # EXIF's tag; 1 is upright
BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, MemoryError, struct.error, zlib.error,
          Image.DecompressionBombError)          # what Pillow raises on files that are no good


@dataclass(frozen=True)
class Picture:
    """A picture file's description; no pixels are held."""

    path: Path
    format: str                                  # PNG, WEBP or JPEG
    width: int
    height: int


def first_bytes(path: Path, count: int = 4) -> bytes:
    """The beginning of a file; ValueError if it can't be opened."""
    try:
        with path.open("rb") as file:
            return file.read(count)
    except FileNotFoundError as error:
        raise ValueError(f"{path}: there is no such file; check the path") from error
    except OSError as error:
        raise ValueError(f"{path}: can't be opened ({error.strerror}); check what it is and its permissions") from error


def format_of(path: Path) -> str | None:
    """PNG, WEBP or JPEG by a file's first bytes; None for any other."""
    head = first_bytes(path, 12)
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    return "WEBP" if head.startswith(b"RIFF") and head[8:12] == b"WEBP" else None


def is_picture(path: Path) -> bool:
    """Whether a file says that it is a picture; ValueError if it can't be opened."""
    return format_of(path) is not None


def describe_picture(path: Path) -> Picture:
    """Its format and size; ValueError, in one sentence, for what is no picture or can't be taken. Its pixels may still be damaged."""
    with opened(path) as image:
        return Picture(path, str(image.format), *image.size)


def read_picture(path: Path) -> Colours:
    """Red, green and blue [3, H, W]; one channel of grey becomes three. ValueError as `describe_picture`, and for damaged pixels."""
    with opened(path) as image:
        image.load()
        if int(image.getexif().get(ORIENTATION, 1)) not in (0, 1):
            raise Refused("is marked as to be turned or mirrored (EXIF orientation), and north must be up in the pixels themselves; save "
                          "it upright without the mark")
        if image.mode in CLEAR or "transparency" in image.info:
            image = image.convert("RGBA")
            if np.asarray(image)[..., 3].min() < 255:
                raise Refused("is transparent in places, and every pixel must have a colour; save it without an alpha channel")
        return np.ascontiguousarray(np.moveaxis(np.asarray(image.convert("RGB")), -1, 0))


class Refused(Exception):
    """Why a picture is not taken, without its name."""


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """The open picture, its size and kind checked and no pixel read; whatever goes wrong in it, also later, is a ValueError."""
    form = format_of(path)
    if form is None:
        raise ValueError(f"{path}: is no PNG, WebP or JPEG by its first bytes; convert it to a PNG")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")      # Pillow's, about sizes and tags
            with Image.open(path, formats=(form,)) as image:
                if reason := reason_against(path, image):
                    raise Refused(reason)
                yield image
    except Refused as error:
        raise ValueError(f"{path}: {error}") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path}: {too_large('more pixels than can be')}") from error
    except BROKEN as error:
        raise ValueError(f"{path}: is a truncated or damaged {form}; copy or download it again") from error


def reason_against(path: Path, image: Image.Image) -> str | None:
    """Why a picture is not taken, by its header alone; None if it is."""
    width, height = image.size
    if max(width, height) > MOST_SIDE:
        return too_large(f"{width} x {height} pixels")
    if getattr(image, "n_frames", 1) > 1:
        return "holds several pictures or an animation; save one of them alone"
    bits = first_bytes(path, 25)[24] if image.format == "PNG" else 8         # Pillow drops the lower half of 16 bits unasked
    if bits == 16 or image.mode not in PLAIN | CLEAR:
        kind = "16 bits a channel" if bits == 16 else f"pixels of the kind {image.mode}"
        return f"has {kind}, and a thumbnail has 8-bit red, green and blue, or grey; convert it to 8-bit RGB"
    return None


def too_large(size: str) -> str:
    return f"has {size}, and a picture has at most {MOST_SIDE} x {MOST_SIDE}; cut it"


@dataclass(frozen=True)
class Bare:
    """A picture without a place, that a row is given by; `times` as many pixels a side make its pixels the row's."""

    row: Modality
    picture: Picture
    times: int = 1

    @property
    def rows(self) -> tuple[Modality, ...]:
        return (self.row,)

    def corners(self, side: int) -> dict[tuple[int, int], tuple[int, int]]:
        """Top and left of its tiles, by row and column."""
        down, across = (starts(size * self.times, side) for size in (self.picture.height, self.picture.width))
        return {(i, j): (top, left) for i, top in enumerate(down) for j, left in enumerate(across)}

    def corner(self, side: int, tile: tuple[int, int] | None) -> tuple[int, int]:
        """Top and left of one tile, or of the one in the middle."""
        tall, wide = self.picture.height * self.times, self.picture.width * self.times
        corners = self.corners(side)
        if not corners:
            raise ValueError(f"{self.picture.path}: has {wide} x {tall} pixels, and {side} x {side} of {self.row.resolution} m are needed; "
                             f"give a larger picture, or the layer itself as a GeoTIFF")
        if tile is None:
            return middle(tall, side), middle(wide, side)
        if tile not in corners:
            raise ValueError(f"{no_tile(self.picture.path, tile, corners)}")
        return corners[tile]

    def layer(self, side: int, tile: tuple[int, int] | None) -> NDArray[np.uint8]:
        top, left = self.corner(side, tile)
        return enlarged(read_picture(self.picture.path), self.times)[:, top:top + side, left:left + side]


def starts(size: int, side: int) -> list[int]:
    """Where the tiles of a picture begin along one side: as many as fit, in the middle, rounded as torchvision's CenterCrop does."""
    count = size // side
    first = round((size - count * side) / 2)
    return [first + k * side for k in range(count)]


def middle(size: int, side: int) -> int:
    """Where the tile in the middle begins along one side."""
    return round((size - side) / 2)


def enlarged(colours: Colours, times: int) -> Colours:
    """Each side `times` as long, bilinear by Pillow, as the published preparation brings heights of 30 m to 10 m."""
    if times == 1:
        return colours
    _, height, width = colours.shape
    image = Image.fromarray(np.moveaxis(colours, 0, -1)).resize((width * times, height * times), Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.moveaxis(np.asarray(image), -1, 0))


def times_of(picture: Picture, row: Modality) -> int:
    """How many of the row's pixels a picture's are long: one, but in a tile of Major TOM's at the larger pixels of the layer behind."""
    if row.source is None or row.source.resolution is None or row.resolution is None:
        return 1
    whole = TILE // row.source.resolution
    return row.source.resolution // row.resolution if picture.width == picture.height == whole else 1


def no_tile(path: Path, tile: tuple[int, int], there: Collection[tuple[int, int]]) -> str:
    down, across = (max((place[k] for place in there), default=-1) + 1 for k in (0, 1))
    return f"{path}: has no tile {tile[0]},{tile[1]}; there are {down} x {across}, ROW,COL from 0,0 in the north-west"
