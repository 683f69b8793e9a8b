"""How is a codec trained? On crops of the layers it is for, against the paper's loss, with a discriminator that joins later."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from copgen.codec import KLCodec, draw
from copgen.config import dump
from copgen.drawing import INK, PAPER, TILE, Canvas
from copgen.modalities import Modality
from copgen.pictures import Relief, render
from copgen.scaling import LogHeight
from copgen.shards import Numbers, sought, starts_of
from copgen.store import save_codec
from copgen.training.adversarial import SMALLEST_SIDE, PatchGAN
from copgen.training.codec_loss import CodecObjective, DiscriminatorObjective, Draw
from copgen.training.codec_report import errors, reconstructed, unit_of
from copgen.training.launch import ONE, Devices
from copgen.training.loop import Player, Preview, Report, train
from copgen.training.lpips import Perceptual, load_perceptual
from copgen.training.recipe import CodecTraining, Recipe
from copgen.training.run_folder import start_run
from copgen.training.sources import Source, counts_of, having

Pixels = Callable[[Numbers], Tensor]            # sample numbers -> pixels [B, C, H, W] in [-1, 1]
FIRST = 256                                      # samples whose principal components a codec with a shortcut starts as
SHOWN = 6                                        # samples of a preview
MAGNIFIED = 1068                                 # pixels that the published land-cover training made of a crop before cropping again


@dataclass(frozen=True)
class Coded:
    """The samples that a codec is trained on: one row's after another's, of each those that have it."""

    rows: Sequence[Modality]                     # their pixels are of one kind
    source: Source

    @cached_property
    def there(self) -> list[Numbers]:
        return [having(self.source, row.name) for row in self.rows]

    @cached_property
    def starts(self) -> Numbers:
        """The number of each row's first sample, and at the end that of all."""
        return starts_of([len(numbers) for numbers in self.there])

    @property
    def counts(self) -> Numbers:
        """How many lie together, stretch by stretch."""
        return np.concatenate([counts_of(self.source, numbers) for numbers in self.there])

    def first(self, count: int) -> Numbers:
        """The numbers of the first samples of each row, the rows sharing a count."""
        each = max(count // len(self.rows), 1)
        return np.concatenate([np.arange(start, min(start + each, end)) for start, end in pairwise(self.starts)])

    def pixels(self, numbers: Numbers) -> Tensor:
        """Samples by number -> pixels [B, C, H, W] in [-1, 1]."""
        which = sought(self.starts, numbers)
        parts = {k: self._of(k, numbers[which == k] - self.starts[k]) for k in np.unique(which).tolist()}
        out = np.empty((len(numbers), *next(iter(parts.values())).shape[1:]), np.float32)
        for k, pixels in parts.items():
            out[which == k] = pixels
        return torch.from_numpy(out)

    def _of(self, k: int, numbers: Numbers) -> NDArray[np.floating]:
        row = self.rows[k]
        return row.scale.to_model(self.source.layers([row.name], self.there[k][numbers].tolist())[row.name])


def train_vae(name: str, recipe: Recipe, source: Source, folder: Path, *, init: KLCodec | None = None, devices: Devices = ONE,
              workers: int = 0, resume: bool = False, report: Report | None = None) -> KLCodec:
    """Train a codec and leave it in `folder` (codec.json, codec.safetensors), its scaling factor measured.

    name: a row with a grid, or the recipe's shared codec, which sees all rows' samples alike. source: the samples; each is cropped and
    turned at random, as a codec knows no north. init: a codec to go on from; with `encoder = "kept"` its latents stay as they are, and so
    do the backbones trained on them. workers: processes that read ahead.
    Raises ValueError for a name that is no codec's, LPIPS weights that aren't there, crops that are too small for the discriminator, and
    as `loop.train` does.
    """
    table, plan = recipe.modalities, recipe.train_vae
    if not (rows := [table[row] for row in recipe.coded_by(name)]):
        raise ValueError(f"{name} needs no codec; those that do are {', '.join(dict.fromkeys(map(recipe.codec_name, table.images)))}")
    if plan.encoder == "kept" and init is None:
        raise ValueError('encoder = "kept" needs a codec to keep it from: name its folder with --init')
    row, samples = rows[0], Coded(rows, source)
    check_crops(name, table.side(row.name), plan)
    perceptual = None if plan.perceptual == "off" else load_perceptual(Path(plan.perceptual))
    torch.manual_seed(plan.how.seed)
    codec = KLCodec(recipe.codec_config(row.name))
    if init is not None:
        start_from(codec, init, plan)
    elif codec.config.shortcut:
        codec.start_from_principal_components(samples.pixels(samples.first(FIRST)))
    players = players_of(row, codec, crops(samples.pixels, plan, classes=row.legend is not None), plan, perceptual)
    start_run(folder, resume, {"row": name, "data": source.name, **dump(recipe)}, defaults=dump(Recipe("")))
    average = train(players, samples.counts, plan.how, folder, devices=devices, workers=workers, resume=resume, report=report,
                    preview=preview_of(codec, samples))
    codec = averaged(codec, average)
    if plan.encoder == "trained":
        codec.scaling_factor = measured_scaling_factor(codec, samples.pixels, int(samples.starts[-1]), seed=plan.how.seed)
    save_codec(codec, folder)
    return codec


def start_from(codec: KLCodec, init: KLCodec, plan: CodecTraining) -> None:
    """Take another codec's weights and scaling factor; ValueError for one of other sizes."""
    if init.config != codec.config:
        raise ValueError(f"--init: a codec of {init.config}, and the recipe has {codec.config}; use a recipe of the same sizes")
    codec.load_state_dict(init.state_dict())
    codec.scaling_factor = init.scaling_factor
    if plan.encoder == "kept":
        for part in (codec.encoder, codec.quant_conv, codec.analysis):
            if part is not None:
                part.requires_grad_(False)


def check_crops(row: str, side: int, plan: CodecTraining) -> None:
    """ValueError for crops that are too small for the discriminator."""
    if plan.adversarial_from is not None and (seen := min(side, plan.crop or side)) < SMALLEST_SIDE:
        raise ValueError(f"{row}: crops of {seen} pixels have no patch for the discriminator to judge, {SMALLEST_SIDE} have; "
                         "choose a larger train_vae.crop, or leave train_vae.adversarial_from out")


def players_of(row: Modality, codec: KLCodec, draw_pixels: Draw, plan: CodecTraining, perceptual: Perceptual | None) -> dict[str, Player]:
    """The codec and, where the recipe has one, the discriminator, which joins at its step."""
    classes = row.legend is not None
    if plan.adversarial_from is None:
        return {"codec": Player(CodecObjective(codec, draw_pixels, plan, classes=classes, perceptual=perceptual))}
    judge = PatchGAN(codec.config.channels)
    return {"codec": Player(CodecObjective(codec, draw_pixels, plan, classes=classes, perceptual=perceptual, discriminator=judge)),
            "discriminator": Player(DiscriminatorObjective(judge, codec, draw_pixels, plan, classes=classes), starts=plan.adversarial_from)}


def crops(pixels: Pixels, plan: CodecTraining, *, classes: bool) -> Draw:
    """What the codec is shown of samples: random windows in random orientations."""

    def drawn(numbers: NDArray[np.int64], generator: torch.Generator) -> Tensor:
        x = cropped(pixels(numbers), plan.crop, generator)
        if classes and "magnified_classes" in plan.published:
            x = magnified(x, generator)
        return x if plan.orientations == "one" else turned(x, generator, mirrored_only=plan.orientations == "mirrored")

    return drawn


def cropped(x: Tensor, side: int | None, generator: torch.Generator) -> Tensor:
    """A random window of `side` pixels of each sample, the whole where that is smaller."""
    if side is None or side >= x.shape[-1]:
        return x
    starts = torch.randint(0, x.shape[-1] - side + 1, (len(x), 2), generator=generator).tolist()
    return torch.stack([sample[:, top : top + side, left : left + side] for sample, (top, left) in zip(x, starts, strict=True)])


def turned(x: Tensor, generator: torch.Generator, *, mirrored_only: bool = False) -> Tensor:
    """Each sample in one of the eight orientations of a square, or as it is or mirrored."""
    ways = torch.randint(0, 2 if mirrored_only else 8, (len(x),), generator=generator).tolist()
    ways = [4 * way for way in ways] if mirrored_only else ways
    oriented = [torch.rot90(sample, way % 4, (-2, -1)) for sample, way in zip(x, ways, strict=True)]
    return torch.stack([sample.flip(-1) if way >= 4 else sample for sample, way in zip(oriented, ways, strict=True)])


def magnified(x: Tensor, generator: torch.Generator) -> Tensor:
    """As the published training shows land cover: blown up to 1068 pixels with soft edges, and cropped to its size again."""
    side = x.shape[-1]
    large = (F.interpolate(sample[None], (MAGNIFIED, MAGNIFIED), mode="bilinear", antialias=True) for sample in x)
    return torch.cat([cropped(one, side, generator) for one in large])


def preview_of(codec: KLCodec, samples: Coded) -> Preview:
    """The picture of a checkpoint: a few samples above what the averaged codec makes of them."""

    def picture(step: int, average: Mapping[str, Tensor]) -> bytes:
        shown, each = averaged(codec, average), max(SHOWN // len(samples.rows), 1)
        seen, words = [], []
        for row, there in zip(samples.rows, samples.there, strict=True):
            layers = samples.source.layers([row.name], there[:each].tolist())[row.name]
            made = reconstructed(shown, row, layers)
            seen += [(row, *both) for both in zip(layers, made, strict=True)]
            words.append(f"{row.name} " + ", ".join(f"{name} {value:.3g}" for name, value in list(errors(row, layers, made).items())[:2]))
        return pairs(seen, f"step {step}, samples of the training: {'; '.join(words)} ({unit_of(samples.rows[0])})")

    return picture


def averaged(codec: KLCodec, average: Mapping[str, Tensor]) -> KLCodec:
    """A codec of the averaged weights beside the one in training, whose own may lie in shards over the devices."""
    shown = KLCodec(codec.config, codec.scaling_factor).eval()
    shown.load_state_dict({name.removeprefix("codec."): tensor for name, tensor in average.items()})
    last = codec.decoder.conv_out.weight
    return shown.to(last.device, last.dtype)


def pairs(seen: Sequence[tuple[Modality, NDArray, NDArray]], title: str) -> bytes:
    """A PNG of layers [bands, H, W] above their reconstructions, both with the same colours for the same values."""
    margin, line = 8, 20
    canvas = Canvas(Image.new("RGB", (margin + (TILE + margin) * len(seen), 2 * (TILE + line) + line + margin), PAPER), 1)
    canvas.text(margin, 4, title, 12, INK)
    for k, (row, truth, copy) in enumerate(seen):
        relief = Relief.of([truth, copy], row.resolution or 1) if isinstance(row.scale, LogHeight) else None
        for top, words, layer in ((line, "original", truth), (2 * line + TILE, "reconstruction", copy)):
            canvas.text(margin + k * (TILE + margin), top + 5, words)
            canvas.paste(render(row, layer, relief), margin + k * (TILE + margin), top + line)
    buffer = io.BytesIO()
    canvas.image.save(buffer, "PNG")
    return buffer.getvalue()


@torch.no_grad()
def measured_scaling_factor(codec: KLCodec, pixels: Pixels, samples: int, seed: int = 0, count: int = 500) -> float:
    """One over the standard deviation of posterior draws, all elements pooled, over `count` samples (as published)."""
    generator = torch.Generator().manual_seed(seed)
    numbers = np.random.default_rng([seed, 2]).permutation(samples)[:count]
    latents = []
    for part in np.array_split(numbers, max(len(numbers) // 16, 1)):
        moments = codec.moments(pixels(part).to(codec.quant_conv.weight)).cpu()
        latents.append(draw(moments, 1.0, torch.randn(moments.chunk(2, 1)[0].shape, generator=generator)))
    return float(1 / torch.cat(latents).std())
