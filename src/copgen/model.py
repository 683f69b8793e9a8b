"""CopGen: a table of modalities, a codec for each and one backbone; any layers in, samples of any others out."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

import copgen
from copgen import diffusion, published
from copgen.backbone import UViT
from copgen.call import Call, check_reuse
from copgen.codec import Codec, draw
from copgen.codecs import Codecs, Use, native
from copgen.files import sha256
from copgen.inference import kernels
from copgen.inference.linear import lay_out
from copgen.inference.memory import keep_memory
from copgen.memory import Plan, plan
from copgen.modalities import Table
from copgen.scene import Scene
from copgen.store import BACKBONE, ModelRecord, load_backbone, load_record, stored_shapes

Precision = Literal["auto", "bf16", "fp32", "int8"]
Absent = Literal["joint", "noise", "drop"]
Posterior = Literal["mean", "sample"]
Progress = Callable[[int, int, int, int], object]                      # calls done, calls in all, samples done, samples in all

ASSETS = Path(__file__).parent / "assets"
# Samples in a batch. A processor's products round otherwise in another batch, and gain little from one: one at a time is the same to the
# last bit whatever else is drawn.
MOST_AT_ONCE = {"cpu": 1, "cuda": 16}
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32, "int8": torch.bfloat16}            # int8: of all but the blocks' products


class CopGen:
    """A model ready to draw from. Networks are read when they are first needed, each once.

    device: `auto` takes a GPU where there is one. precision: the backbone's weights; `auto` is bf16 where the processor multiplies
    it natively, and int8 rounds what a block's linear layers multiply to 8 bits, the rest being bf16: quicker, on a CPU with AMX and GCC
    only. The solver's state and everything after decoding stay float32, and so do codecs in fp32; else theirs are in 16 bits where
    a row's scale bears it (`copgen.codecs`).
    """

    def __init__(self, folder: str | Path, *, device: str = "auto", precision: Precision = "auto") -> None:
        self.folder = folder = Path(folder)
        self.record: ModelRecord = load_record(folder)
        self.table: Table = self.record.table(str(folder / "copgen.json"))
        if missing := [row for row in self.table.images if row not in self.record.codecs]:
            raise ValueError(f"{folder}: no codec for {', '.join(missing)}")
        self.device = pick_device(device)
        self.precision = precision
        self._backbones: dict[str, UViT] = {}
        self.codecs = Codecs(folder, self.table, self.record.codecs, self.device)
        self._hashes: dict[Path, str] = {}

    @classmethod
    def from_pretrained(cls, name_or_folder: str | Path, *, device: str = "auto", precision: Precision = "auto") -> CopGen:
        """A bundled model (`nano`), a released one (`copgen-base`, fetched and converted once) or a model folder.

        Raises ValueError for a name that is none of these, a folder that is no model, and weights that do not fit.
        """
        return cls(model_folder(name_or_folder), device=device, precision=precision)

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def backbone(self) -> UViT:
        """The backbone in this model's precision."""
        return self.backbone_in(self.precision)

    def backbone_in(self, precision: Precision) -> UViT:
        """The backbone with its weights cast once to a precision."""
        name = pick_precision(precision, self.device)
        if name not in self._backbones:
            backbone = load_backbone(self.folder, self.record, self.table, DTYPES[name]).to(self.device).requires_grad_(False)
            if self.device.type == "cpu":
                keep_memory()
                if name == "int8":
                    for block in backbone.blocks:
                        lay_out(block, integers=True)
                lay_out(backbone)
            self._backbones[name] = backbone
        return self._backbones[name]

    def codec(self, row: str) -> Codec:
        """The codec of a row, in float32; rows may share one."""
        return self.codecs.whole(row)

    def check(self, rows: Iterable[str]) -> None:
        """ValueError where what these rows need is damaged: the backbone is read, of codecs what their files say of themselves."""
        _ = self.backbone
        for row in rows:
            if self.table[row].is_image:
                self.codecs.known(row)

    def weights_sha256(self, rows: Iterable[str] | None = None) -> dict[str, str]:
        """The hash of every weight file that these rows (or all) need, by its path in the model's folder."""
        used = {self.record.codecs[row] for row in (self.table.names if rows is None else rows) if self.table[row].is_image}
        files = [self.folder / BACKBONE, *(self.folder / "vae" / name / "codec.safetensors" for name in sorted(used))]
        self._hashes |= {file: sha256(file) for file in files if file not in self._hashes}
        return {file.relative_to(self.folder).as_posix(): self._hashes[file] for file in files}

    def parameters(self) -> dict[str, int]:
        """How many parameters the backbone and all codecs have, read from the files' headers."""
        def count(path: Path) -> int:
            return sum(math.prod(shape) for shape in stored_shapes(path).values())

        vaes = sum(count(path) for path in (self.folder / "vae").glob("*/codec.safetensors"))
        return {"backbone": count(self.folder / BACKBONE), "codecs": vaes}

    @torch.no_grad()
    def generate(self, given: Scene | None = None, want: str | Iterable[str] | None = None, *, seeds: Sequence[int] = (0,),
                 quality: str = "default", steps: int | None = None, solver: str = "default", precision: Precision | None = None,
                 absent: Absent = "joint", posterior: Posterior = "mean", reuse: int = 1, max_memory: int | None = None,
                 progress: Progress | None = None) -> list[Scene]:
        """One scene a seed, each with the wanted layers in physical units, over the given scene's ground.

        given: the layers that are known; None or an empty scene draws unconditionally.
        want: rows, products or released keys; None is every row that is not given.
        quality: `fast`, `default` or `reference` (`copgen.quality`): a solver and its calls.
        steps: network calls a sample, a last denoising counted; steps and solver choose in place of the default quality.
        absent: what becomes of rows neither given nor wanted. `joint` draws them too and throws them away: a sample does not depend
        on what is wanted. `noise` shows them as noise at the last time, `drop` leaves them out of the sequence: quicker, and the
        sample then depends on the wanted set.
        posterior: the given layers' latents are their codecs' means, or draws of the sample's own seed.
        reuse: in all network calls but every so many only the rows drawn are computed, the others stay as they were: an approximation,
        quicker the more is given (benchmarks/reuse.py); 1 computes everything in every call.
        max_memory: bytes that weights and work may take together, beside Python and its libraries: samples are drawn in smaller batches,
        and codecs read again for every use where they don't fit beside each other. None is half of what is free for a batch of samples.

        A sample depends on its seed, the given layers and these settings; not on the other seeds or their order. On a CPU that holds
        to the last bit; a GPU's batches round a little differently (by what benchmarks/seeds.py prints).
        Raises ValueError for rows both given and wanted, unknown rows, and settings out of range.
        """
        given = Scene(table=self.table) if given is None else given
        wanted = self._wanted(given, want)
        check_seeds(seeds)
        check_choice("absent", absent, get_args(Absent))
        check_choice("posterior", posterior, get_args(Posterior))
        check_reuse(reuse)
        solver, steps = diffusion.way(quality, solver, steps)
        named = pick_precision(precision or self.precision, self.device)
        backbone = self.backbone_in(named)
        drawn = [row for row in self.table.names if row not in given and (absent == "joint" or row in wanted)]
        unseen = [row for row in self.table.names if row not in given and row not in drawn] if absent == "noise" else []
        fits = self._plan(given.layers, wanted, backbone, max_memory, reuse)
        use, batch = Use(backbone.dtype == torch.float32, fits.keep), fits.at_once
        if max_memory is not None:
            self.codecs.make_room(given.layers, wanted, use)
        encoded = {row: self._moments(row, given[row], use) for row in given.layers}
        scenes: list[Scene] = []
        for start in range(0, len(seeds), batch):
            some = list(seeds[start : start + batch])
            tick = partial(report_calls, progress, start, len(some), len(seeds)) if progress else None
            clean = {row: self._given(row, m, some, posterior) for row, (m, _) in encoded.items()}
            noise, schedule = self._noise(unseen, some), backbone.config.schedule
            still = {**{row: (z, 0.0) for row, z in clean.items()}, **{row: (z, float(schedule.steps)) for row, z in noise.items()}}
            with self.codecs.ahead(wanted, use):
                latents = diffusion.sample(Call(backbone, drawn, still, reuse), self._noise(drawn, some), clean, solver=solver, steps=steps,
                                           absent=noise, schedule=schedule, progress=tick)
                layers = {row: self._decode(row, latents[row], use) for row in wanted}
            for k, seed in enumerate(some):
                notes = {"seed": seed, "model": self.name, "quality": diffusion.quality_of(solver, steps), "solver": solver, "steps": steps,
                         "absent": absent, "posterior": posterior, "reuse": reuse, "batch": len(some), "precision": named,
                         "given": list(given.layers), "copgen": copgen.__version__,
                         "codecs": {row: how for row, (_, how) in [*encoded.items(), *((row, layers[row][k]) for row in wanted)] if how}}
                scenes.append(given.with_layers({row: layers[row][k][0] for row in wanted}, **notes))
        if progress:
            progress(len(seeds) * steps, len(seeds) * steps, len(seeds), len(seeds))
        return scenes

    @torch.no_grad()
    def encode(self, scene: Scene) -> dict[str, Tensor]:
        """The scaled latents [1, z, h, w] of every layer of a scene, posterior means, in float32."""
        return {row: draw(self._moments(row, scene[row], Use())[0], self.codecs.scaling_factor(row)) for row in scene.layers}

    @torch.no_grad()
    def reconstruct(self, scene: Scene) -> Scene:
        """Every layer through its codec and back, in float32: the floor under every error of this model."""
        back = {row: self._decode(row, latent, Use())[0] for row, latent in self.encode(scene).items()}
        return scene.with_layers({row: layer for row, (layer, _) in back.items()}, model=self.name)

    def _wanted(self, given: Scene, want: str | Iterable[str] | None) -> tuple[str, ...]:
        if given.table.footprint != self.table.footprint:
            raise ValueError(f"{given.name}: a square of {given.table.footprint} m; model {self.name} sees {self.table.footprint} m")
        if strange := [row for row in given.layers if row not in self.table.by_name]:
            raise ValueError(f"model {self.name} has no row {', '.join(strange)}; it has {', '.join(self.table.names)}")
        wanted = self.table.select(want) if want is not None else tuple(row for row in self.table.names if row not in given)
        if both := [row for row in wanted if row in given]:
            raise ValueError(f"{', '.join(both)}: both given and wanted; leave it out of one of the two")
        if not wanted:
            raise ValueError("nothing is wanted: every row is given; leave out the rows to be generated")
        return wanted

    def _plan(self, given: Iterable[str], wanted: Iterable[str], backbone: UViT, max_memory: int | None,
              reuse: int) -> Plan:
        """How samples fit into memory: the weights of this backbone and of those of other precisions that were used, what a sample keeps
        alive in one network call, and the codecs."""
        use = Use(backbone.dtype == torch.float32)
        codecs = [*(self.codecs.need(row, "encoder", use) for row in given), *(self.codecs.need(row, "decoder", use) for row in wanted)]
        config = backbone.config
        held = config.depth // 2 + 16 + (3 * (config.depth + 1) if reuse > 1 else 0)         # skips, one block's tensors, all that is kept
        numbers = self.table.sequence_length * config.width * held
        weights = sum(tensor.nbytes for one in self._backbones.values() for tensor in (*one.parameters(), *one.buffers()))
        return plan(weights, numbers * backbone.dtype.itemsize, codecs,
                    most=MOST_AT_ONCE.get(self.device.type, 1), max_memory=max_memory, device=self.device)

    def _moments(self, row: str, layer: np.ndarray, use: Use) -> tuple[Tensor, str]:
        pixels = torch.from_numpy(self.table[row].scale.to_model(layer))
        return self.codecs.moments(row, pixels.reshape(1, *self.table.pixel_shape(row)).to(self.device), use)

    def _given(self, row: str, moments: Tensor, seeds: Sequence[int], posterior: str) -> Tensor:
        shape = self.table.latent_shape(row)
        own = gaussian(seeds, f"{row}/posterior", shape).to(self.device) if posterior == "sample" else None
        return draw(moments, self.codecs.scaling_factor(row), own).expand(len(seeds), *shape)

    def _noise(self, rows: Iterable[str], seeds: Sequence[int]) -> dict[str, Tensor]:
        return {row: gaussian(seeds, row, self.table.latent_shape(row)).to(self.device) for row in rows}

    def _decode(self, row: str, latents: Tensor, use: Use) -> list[tuple[np.ndarray, str]]:
        """The layer of each sample and its precision, one at a time: memory, and no batch effects."""
        made = []
        for latent in latents.float().split(1):
            pixels, how = self.codecs.decode(row, latent, use)
            if not pixels.isfinite().all():
                raise ValueError(f"model {self.name}: {row} came out as no number; its weights are damaged or need --precision fp32")
            made.append((self.table[row].scale.to_physical(pixels.float().cpu().numpy())[0], how))
        return made


def report_calls(progress: Progress, before: int, batch: int, samples: int, calls: int, of: int) -> None:
    """From calls of one batch to calls of the whole job."""
    progress(before * of + calls * batch, samples * of, before, samples)


def gaussian(seeds: Sequence[int], stream: str, shape: tuple[int, ...]) -> Tensor:
    """Standard normal float32 [len(seeds), *shape], each from its seed and the stream's name alone (NumPy's Philox and ziggurat)."""

    def one(seed: int) -> np.ndarray:
        key = hashlib.sha256(f"{int(seed)}/{stream}".encode()).digest()[:16]
        generator = np.random.Generator(np.random.Philox(key=np.frombuffer(key, "<u8")))
        return generator.standard_normal(shape, dtype=np.float32)

    return torch.from_numpy(np.stack([one(seed) for seed in seeds]))


def check_seeds(seeds: Sequence[int]) -> None:
    if len(seeds) < 1:
        raise ValueError("0 samples: at least one seed is needed")
    if wrong := [seed for seed in seeds if not isinstance(seed, int | np.integer) or seed < 0]:
        raise ValueError(f"seed {wrong[0]!r}: seeds are whole numbers, 0 or larger")


def check_choice(what: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{what} {value!r}: choose {', '.join(choices[:-1])} or {choices[-1]}")


def pick_device(device: str) -> torch.device:
    if device not in ("auto", "cpu", "cuda") and not device.startswith("cuda:"):
        raise ValueError(f"device {device!r}: choose auto, cpu or cuda")
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device {device!r}: this torch sees no GPU; use cpu or auto")
    return torch.device(device)


def pick_precision(precision: Precision, device: torch.device) -> Precision:
    """The precision that `auto` stands for; ValueError for one that is not known, or that this device can't compute in."""
    if precision == "auto":
        own = torch.cuda.is_bf16_supported(including_emulation=False) if device.type == "cuda" else native(torch.bfloat16)
        return "bf16" if own else "fp32"
    check_choice("precision", precision, get_args(Precision))
    if precision == "int8" and (device.type != "cpu" or kernels.library() is None):
        raise ValueError("precision int8: is for a CPU with AMX and GCC beside it, which this is not; use auto, bf16 or fp32")
    return precision


def bundled() -> dict[str, Path]:
    """The models in the package, by name."""
    return {folder.parent.name: folder.parent for folder in sorted(ASSETS.glob("*/copgen.json"))}


def model_folder(name_or_folder: str | Path) -> Path:
    """Where a model lies: bundled, a folder, or a released one (fetched and converted on first use)."""
    text = str(name_or_folder)
    if text in bundled():
        return bundled()[text]
    if text in published.MODELS:
        return published.fetch(text)
    if Path(text).is_dir():
        return Path(text)
    names: list[Any] = [*bundled(), *published.MODELS]
    raise ValueError(f"no model is called {text!r} and there is no such folder; there are {', '.join(names)}, or a folder with copgen.json")


