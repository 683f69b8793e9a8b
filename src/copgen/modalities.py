"""The tables of modalities: COP-GEN's, and COP-GEN-Beta's of thumbnails. Everything else derives from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from copgen.scaling import DayOfYear, Decibel, EightBit, Legend, Linear, LogHeight, Scaling, UnitVector
from copgen.thumbnails import Drawing, FalseColour, Hillshade, TrueColour


@dataclass(frozen=True)
class Modality:
    """One row: what a layer holds, in which unit, and at how many metres a pixel."""

    name: str                                    # our key
    product: str                                 # what a user asks for; several rows may belong to one
    bands: tuple[str, ...]                       # in channel order
    scale: Scaling                               # physical units <-> [-1, 1]
    resolution: int | None = None                # metres per pixel; None: no grid (place, date)
    unit: str = ""
    released_as: str = ""                        # its key in the released weights, accepted wherever a name is
    rgb: tuple[str, str, str] | None = None      # a natural or customary colour composite
    source: Modality | None = None               # of a thumbnail: the layer that it is a picture of
    drawing: Drawing | None = None               # of a thumbnail: how it is made of that layer

    @property
    def is_image(self) -> bool:
        return self.resolution is not None

    @property
    def legend(self) -> Legend | None:
        """The classes of a class layer, None for a continuous one."""
        return self.scale if isinstance(self.scale, Legend) else None

    @property
    def channels(self) -> int:
        """Channels of the model's pixels: one a band, or one a class."""
        if not self.is_image:
            return 1
        return self.legend.classes if self.legend else len(self.bands)


LULC_LEGEND = Legend(                            # ESRI / Impact Observatory annual land cover
    codes=(0, 1, 2, 4, 5, 7, 8, 9, 10, 11),
    names=("no data", "water", "trees", "flooded vegetation", "crops", "built-up", "bare ground", "snow/ice", "clouds", "rangeland"),
    colours=((0, 0, 0), (26, 91, 171), (53, 130, 33), (135, 209, 158), (255, 219, 92), (237, 2, 42), (227, 226, 195),
             (168, 235, 255), (97, 97, 97), (165, 155, 143)),
)
CLOUD_LEGEND = Legend(
    codes=(0, 1, 2, 3),
    names=("clear", "thick cloud", "thin cloud", "cloud shadow"),
    colours=((38, 70, 52), (255, 255, 255), (176, 196, 214), (80, 72, 104)),
)
REFLECTANCE = Linear(full_scale=10_000)
RADAR = Decibel(low=-55.787186, high=40.2258, floor=2.6380407689430285e-06)
HEIGHT = LogHeight(low=6e-6, high=9.088, floor=5.899129519093549e-06)

DN = "DN (reflectance x 10000)"
B10M = ("B04", "B03", "B02", "B08")              # the released weights' channel order, not the order of their names
B20M = ("B05", "B06", "B07", "B8A", "B11", "B12")
TRUE_COLOUR = ("B04", "B03", "B02")

TILE = 10_680                                    # metres, the side of Major TOM's images: patches part them, thumbnails show them whole

ROWS = (
    Modality("place", "place", ("lat", "lon"), UnitVector(), None, "degrees", "3d_cartesian_lat_lon"),
    Modality("date", "date", ("date",), DayOfYear(), None, "day", "mean_timestamps"),
    Modality("dem", "DEM", ("DEM",), HEIGHT, 30, "m", "DEM_DEM"),
    Modality("lulc", "LULC", ("LULC",), LULC_LEGEND, 10, "class", "LULC_LULC"),
    Modality("cloud_mask", "cloud_mask", ("cloud_mask",), CLOUD_LEGEND, 10, "class", "S2L1C_cloud_mask"),
    Modality("s1rtc", "S1RTC", ("vv", "vh"), RADAR, 10, "gamma0 (linear power)", "S1RTC_vh_vv"),
    Modality("s2l1c_10m", "S2L1C", B10M, REFLECTANCE, 10, DN, "S2L1C_B02_B03_B04_B08", TRUE_COLOUR),
    Modality("s2l1c_20m", "S2L1C", B20M, REFLECTANCE, 20, DN, "S2L1C_B05_B06_B07_B11_B12_B8A"),
    Modality("s2l1c_60m", "S2L1C", ("B01", "B09", "B10"), REFLECTANCE, 60, DN, "S2L1C_B01_B09_B10"),
    Modality("s2l2a_10m", "S2L2A", B10M, REFLECTANCE, 10, DN, "S2L2A_B02_B03_B04_B08", TRUE_COLOUR),
    Modality("s2l2a_20m", "S2L2A", B20M, REFLECTANCE, 20, DN, "S2L2A_B05_B06_B07_B11_B12_B8A"),
    Modality("s2l2a_60m", "S2L2A", ("B01", "B09"), REFLECTANCE, 60, DN, "S2L2A_B01_B09"),
)


@dataclass(frozen=True)
class Table:
    """The rows of one model with its geometry: the square it sees, and how latents and tokens divide it.

    `footprint` is the side of the square in metres, `stride` the codec's pixels per latent, `patch` the latents per token (each along
    one side), `latent_channels` the z of an image row's [z, h, w] latent. `cut` is the side of the middle of Major TOM's images that
    patches part; None: they part the whole image, and the last are flush with its far edge.
    """

    rows: tuple[Modality, ...] = ROWS
    footprint: int = 1920
    stride: int = 8
    patch: int = 2
    latent_channels: int = 8
    cut: int | None = None

    @cached_property
    def by_name(self) -> Mapping[str, Modality]:
        return {row.name: row for row in self.rows}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(row.name for row in self.rows)

    @property
    def images(self) -> tuple[str, ...]:
        """The rows that have a grid, in the table's order."""
        return tuple(row.name for row in self.rows if row.is_image)

    @property
    def products(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row.product for row in self.rows))

    def __getitem__(self, name: str) -> Modality:
        return self.by_name[name]

    def side(self, name: str) -> int:
        """Pixels along one side of the model's square; ValueError for a row without a grid, or whose pixels don't fill it exactly."""
        resolution = self[name].resolution
        if resolution is None:
            raise ValueError(f"{name} has no grid")
        if self.footprint % resolution:
            raise ValueError(f"{name}: its pixels of {resolution} m don't fill a footprint of {self.footprint} m; "
                             f"choose a multiple of {resolution} m")
        return self.footprint // resolution

    def layer_shape(self, name: str) -> tuple[int, ...]:
        """The shape of a layer in physical units: [bands, H, W]; [2] for place, [1] for date."""
        row = self[name]
        return (len(row.bands), self.side(name), self.side(name)) if row.is_image else (len(row.bands),)

    def pixel_shape(self, name: str) -> tuple[int, int, int]:
        """The shape of the model's pixels: [C, H, W] with classes one-hot; [1, 1, 3] for place and date."""
        row = self[name]
        return (row.channels, self.side(name), self.side(name)) if row.is_image else (1, 1, 3)

    def latent_shape(self, name: str) -> tuple[int, int, int]:
        """The shape of a row's latent: [z, h, w]; [1, 1, 3] for place and date."""
        if not self[name].is_image:
            return (1, 1, 3)
        side = self.side(name) // self.stride
        return (self.latent_channels, side, side)

    def patch_of(self, name: str) -> int:
        """Latents along one side of a token: the table's patch, 1 for place and date."""
        return self.patch if self[name].is_image else 1

    def tokens(self, name: str) -> int:
        _, height, width = self.latent_shape(name)
        patch = self.patch_of(name)
        return (height // patch) * (width // patch)

    @property
    def sequence_length(self) -> int:
        """All tokens of the backbone: one time token a row, then the rows' own."""
        return len(self.rows) + sum(self.tokens(name) for name in self.names)

    def select(self, names: str | Iterable[str]) -> tuple[str, ...]:
        """Row names in the table's order, from rows, products or released keys; commas separate names in one string.

        Raises ValueError for a name that is none of them.
        """
        words = names.split(",") if isinstance(names, str) else [str(name) for name in names]
        chosen = {row for word in words if word.strip() for row in self._rows_called(word.strip())}
        return tuple(name for name in self.names if name in chosen)

    def called(self, word: str) -> tuple[str, ...]:
        """The rows that one word means: a row's name, a product or a released key, in any case; empty for any other word."""
        low = word.lower()
        return tuple(row.name for row in self.rows if low in (row.name, row.product.lower(), row.released_as.lower()))

    def _rows_called(self, word: str) -> tuple[str, ...]:
        found = self.called(word)
        if not found:
            raise ValueError(
                f"no modality or product is called {word!r}; there are the products {', '.join(self.products)} "
                f"and the rows {', '.join(self.names)}"
            )
        return found

    @cached_property
    def sources(self) -> Table:
        """The table of what is measured: of a thumbnail the layer behind it, every other row itself; one side, other pixels."""
        return replace(self, rows=tuple(row.source or row for row in self.rows))

    def subset(self, names: Iterable[str]) -> Table:
        """The same geometry with only these rows, in the table's order."""
        keep = set(names)
        return replace(self, rows=tuple(row for row in self.rows if row.name in keep))


COLOURS = ("red", "green", "blue")


def thumbnail(source: Modality, released_as: str, drawing: Drawing, bands: tuple[str, ...]) -> Modality:
    """The row of a layer's thumbnail at 10 m a pixel: `s2l2a_thumbnail` of `s2l2a_10m`, of the same product."""
    return Modality(f"{source.product.lower()}_thumbnail", source.product, COLOURS, EightBit(), 10, "8-bit", released_as, COLOURS,
                    source=replace(source, bands=bands, rgb=None), drawing=drawing)


TABLE = Table()                                  # COP-GEN's, of the released models: 1920 m, stride 8, patch 2: 834 tokens
THUMBNAILS = Table(                              # COP-GEN-Beta's: pictures of 2560 m, 256 x 256 pixels: 1028 tokens
    rows=(
        thumbnail(TABLE["dem"], "dem", Hillshade(), ("DEM",)),
        thumbnail(TABLE["s1rtc"], "s1_rtc", FalseColour(), ("vv", "vh")),
        thumbnail(TABLE["s2l1c_10m"], "s2_l1c", TrueColour(), TRUE_COLOUR),
        thumbnail(TABLE["s2l2a_10m"], "s2_l2a", TrueColour(), TRUE_COLOUR),
    ),
    footprint=2560, latent_channels=4, cut=10_240,
)
TABLES = {"copgen": TABLE, "thumbnails": THUMBNAILS}


def table_with(names: Iterable[str]) -> Table:
    """The table that has these rows; ValueError for a row that none has, or rows of several tables."""
    wanted = list(names)
    for table in TABLES.values():
        if set(wanted) <= set(table.names):
            return table
    known = {row for table in TABLES.values() for row in table.names}
    if strange := [name for name in wanted if name not in known]:
        rows = "; ".join(f"{name}: {', '.join(table.names)}" for name, table in TABLES.items())
        raise ValueError(f"row {strange[0]!r} is not in this version's tables ({rows})")
    raise ValueError(f"rows {', '.join(wanted)} are of different tables; take those of one")
