"""Recipes: all that one model's training can vary, as one TOML file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

from copgen.backbone import BackboneConfig
from copgen.codec import CodecConfig
from copgen.config import load
from copgen.modalities import TABLES, Table
from copgen.store import is_plain
from copgen.training.loop import Optimisation

STRICT: dict[str, str] = {"extra": "forbid"}
SIZES = ("footprint", "stride", "patch", "latent_channels")


@dataclass(frozen=True)
class Geometry:
    """A table and its numbers that a recipe may choose; 0: the table's own."""

    __pydantic_config__: ClassVar = STRICT
    of: str = "copgen"                           # a key of TABLES
    footprint: int = 0
    stride: int = 0
    patch: int = 0
    latent_channels: int = 0
    rows: tuple[str, ...] = ()                   # modalities or rows; none named: all

    def __post_init__(self) -> None:
        if self.of not in TABLES:
            raise ValueError(f"of = {self.of!r}: no table is called that; there are {', '.join(TABLES)}")
        if wrong := next((size for size in SIZES if getattr(self, size) < 0), None):
            raise ValueError(f"{wrong} = {getattr(self, wrong)}: is above 0, or left out for the table's own")
        for size in SIZES:                       # settled here, so that a run's record says them all
            object.__setattr__(self, size, getattr(self, size) or getattr(TABLES[self.of], size))

    @property
    def table(self) -> Table:
        whole = TABLES[self.of]
        return replace(whole.subset(whole.select(self.rows)) if self.rows else whole, **{size: getattr(self, size) for size in SIZES})


@dataclass(frozen=True)
class CodecSizes:
    """A CodecConfig less what the row settles: its channels and latent channels."""

    __pydantic_config__: ClassVar = STRICT
    width: int = 128
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    blocks: int = 2
    stem: int = 1
    groups: int = 32
    attention: bool = True
    shortcut: bool = False


PublishedFault = Literal["halved_losses", "lpips_dropout", "magnified_classes"]


@dataclass(frozen=True)
class CodecTraining:
    """The paper's section 3.2.1; its perceptual and adversarial terms are off unless a recipe asks for them."""

    __pydantic_config__: ClassVar = STRICT
    how: Optimisation = field(default_factory=lambda: Optimisation(
        steps=500_000, batch=16, learning_rate=5e-6, final_learning_rate=1e-6, decay_power=0.95, warm_up=0, weight_decay=0.01,
        betas=(0.9, 0.999), clip=1.0, ema=0.995))
    kl_weight: float = 1e-6
    crop: int | None = None                      # pixels along a side of the random crops; None: whole squares
    encoder: Literal["trained", "kept"] = "trained"      # kept: only the decoder moves, so that latents stay what they are
    orientations: Literal["eight", "mirrored", "one"] = "eight"    # that a crop is turned into; the published training mirrors only
    reconstruction: Literal["regression", "cross_entropy"] = "regression"          # of class rows; others are always regressed
    perceptual: str = "off"                      # where LPIPS's weights are: a folder or a file
    perceptual_weight: float = 1.0
    adversarial_from: int | None = None          # the first step, counted from 0, with a discriminator; None: never
    adversarial_weight: float = 0.5              # times the adaptive weight
    published: tuple[PublishedFault, ...] = ()   # faults of the published training that are wanted all the same

    def __post_init__(self) -> None:
        if "lpips_dropout" in self.published and self.perceptual == "off":
            raise ValueError("published = lpips_dropout with perceptual = off: there is no LPIPS to drop features of; "
                             "name its weights in perceptual, or leave lpips_dropout out")


RowWeights = Literal["uniform", "per_token", "learned"] | Mapping[str, float]


@dataclass(frozen=True)
class BackboneTraining:
    """The paper's section 3.3, and what goes beyond it: all of that is off unless a recipe asks for it."""

    __pydantic_config__: ClassVar = STRICT
    how: Optimisation = field(default_factory=Optimisation)
    activation_checkpointing: bool = False       # less memory for a third more operations
    modality_dropout: float = 0.0                # chance that a random set of modalities is left out of a chunk's sequence
    clean_conditions: float = 0.0                # chance that a random set of a sample's modalities is given clean, as in sampling
    shared_times: float = 0.0                    # chance that a sample's noised rows share one time, as in sampling
    weights: RowWeights = "uniform"              # of the rows' errors; in a table, modalities that it does not name have 1
    weighting: Literal["noise", "velocity"] = "noise"    # whose squared error: the noise's, or that over alpha squared, the velocity's
    # of a latent's channels: all alike, or by the size of their part in the pixels, so that what shows most is learnt first
    channels: Literal["uniform", "natural"] = "uniform"

    def __post_init__(self) -> None:
        for name in ("modality_dropout", "clean_conditions", "shared_times"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} {getattr(self, name)}: is a chance, from 0 to 1")
        if isinstance(self.weights, Mapping) and min(self.weights.values(), default=0.0) < 0:
            raise ValueError(f"weights {dict(self.weights)}: none may be negative")


@dataclass(frozen=True)
class Recipe:
    """One model: its table's geometry, its networks' sizes, and how each is trained."""

    __pydantic_config__: ClassVar = STRICT
    name: str
    table: Geometry = field(default_factory=Geometry)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    codec: CodecSizes = field(default_factory=CodecSizes)
    codec_of: Mapping[str, CodecSizes] = field(default_factory=dict)               # rows whose codec has other sizes
    shared_codec: str = ""                       # the name of the one codec that all rows with a grid share; none: each has its own
    train_vae: CodecTraining = field(default_factory=CodecTraining)
    train: BackboneTraining = field(default_factory=BackboneTraining)

    @property
    def modalities(self) -> Table:
        return self.table.table

    def codec_name(self, row: str) -> str:
        """What the codec of a row is called: its folder's name, and `copgen train-vae`'s for it."""
        return self.shared_codec or row

    def coded_by(self, codec: str) -> tuple[str, ...]:
        """The rows that the codec of this name is of, in the table's order; none for a name that is no codec's."""
        return tuple(row for row in self.modalities.images if self.codec_name(row) == codec)

    def codec_config(self, row: str) -> CodecConfig:
        """The sizes of one row's codec; ValueError where its stride is not the table's."""
        called = (name for name in self.codec_of if row in self.modalities.select(name))
        sizes = self.codec_of.get(row) or self.codec_of.get(next(called, ""), self.codec)
        config = CodecConfig(self.modalities[row].channels, self.table.latent_channels, **vars(sizes))
        if config.stride != self.table.stride:
            raise ValueError(f"recipe {self.name}: the codec of {row} has stride {config.stride}, the table {self.table.stride}")
        return config


def read_recipe(path: Path, overrides: tuple[str, ...] = ()) -> Recipe:
    """A recipe from TOML; ValueError with file, key, value and rule."""
    recipe = load(Recipe, path, overrides)
    recipe.modalities.select(recipe.codec_of)    # refuses unknown rows
    if isinstance(recipe.train.weights, Mapping):
        recipe.modalities.select(recipe.train.weights)
    for row in recipe.modalities.images:
        recipe.codec_config(row)                 # refuses sizes that don't fit
    check_shared_codec(recipe)
    return recipe


def check_shared_codec(recipe: Recipe) -> None:
    """ValueError for a codec that not all rows can share, or whose name can't be a folder's."""
    name, table = recipe.shared_codec, recipe.modalities
    if not name:
        return
    if not is_plain(name):
        raise ValueError(f"recipe {recipe.name}: shared_codec = {name!r} becomes a folder's name; choose letters, digits, - and _")
    if recipe.codec_of:
        raise ValueError(f"recipe {recipe.name}: codec_of.{next(iter(recipe.codec_of))} and shared_codec = {name!r}: a codec that all rows "
                         "share has one size; leave out one of the two")
    kinds = {row: (table[row].scale, table.pixel_shape(row)) for row in table.images}
    if other := [row for row in kinds if kinds[row] != kinds[table.images[0]]]:
        raise ValueError(f"recipe {recipe.name}: shared_codec = {name!r}, and the pixels of {other[0]} are not of the kind of "
                         f"{table.images[0]}'s; leave shared_codec out, or choose rows of one kind")
