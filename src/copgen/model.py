"""CopGen: a table of modalities, a codec for each and one backbone; any layers in, samples of any others out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

import copgen
from copgen import diffusion, published
from copgen.backbone import UViT
from copgen.codec import Codec, Identity, KLCodec, draw
from copgen.files import sha256
from copgen.modalities import Table
from copgen.scene import Scene
from copgen.store import BACKBONE, ModelRecord, load_backbone, load_codec, load_record

Precision = Literal["auto", "bf16", "fp32"]
Absent = Literal["joint", "noise", "drop"]
Posterior = Literal["mean", "sample"]
Progress = Callable[[int, int, int, int], object]                      # calls done, calls in all, samples done, samples in all

ASSETS = Path(__file__).parent / "assets"
# Samples in a batch. A processor's products round otherwise in another batch, and gain little from one: one at a time is the same to the
# last bit whatever else is drawn.
MOST_AT_ONCE = {"cpu": 1, "cuda": 16}
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


class CopGen:
    """A model ready to draw from. Networks are read when they are first needed, each once.

    device: `auto` takes a GPU where there is one. precision: the backbone's weights; `auto` is bf16 where the processor multiplies
    it natively. Codecs, the solver's state and everything after decoding stay float32.
    """

    def __init__(self, folder: str | Path, *, device: str = "auto", precision: Precision = "auto") -> None:
        self.folder = folder = Path(folder)
        self.record: ModelRecord = load_record(folder)
        self.table: Table = self.record.table(str(folder / "copgen.json"))
        if missing := [row for row in self.table.images if row not in self.record.codecs]:
            raise ValueError(f"{folder}: no codec for {', '.join(missing)}")
        self.device = pick_device(device)
        self.precision = precision
        self._backbones: dict[torch.dtype, UViT] = {}
        self._codecs: dict[str, KLCodec] = {}
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
        dtype = pick_dtype(precision, self.device)
        if dtype not in self._backbones:
            self._backbones[dtype] = load_backbone(self.folder, self.record, self.table, dtype).to(self.device).requires_grad_(False)
        return self._backbones[dtype]

    def codec(self, row: str) -> Codec:
        """The codec of a row, in float32; rows may share one."""
        if not self.table[row].is_image:
            return Identity()
        name = self.record.codecs[row]
        if name not in self._codecs:
            self._codecs[name] = load_codec(self.folder / "vae" / name).to(self.device).requires_grad_(False)
        codec = self._codecs[name]
        has = codec.config.channels, codec.config.stride, codec.config.latent_channels
        needs = self.table[row].channels, self.table.stride, self.table.latent_channels
        if has != needs:                         # of every row: one may fit a codec that another shares and does not
            raise ValueError(f"{self.folder}: codec {name} has {has[0]} channels, stride {has[1]} and {has[2]} latent channels; "
                             f"row {row} needs {needs[0]}, {needs[1]} and {needs[2]}; convert or train the model again")
        return codec

    def weights_sha256(self, rows: Iterable[str] | None = None) -> dict[str, str]:
        """The hash of every weight file that these rows (or all) need, by its path in the model's folder."""
        used = {self.record.codecs[row] for row in (self.table.names if rows is None else rows) if self.table[row].is_image}
        files = [self.folder / BACKBONE, *(self.folder / "vae" / name / "codec.safetensors" for name in sorted(used))]
        self._hashes |= {file: sha256(file) for file in files if file not in self._hashes}
        return {file.relative_to(self.folder).as_posix(): self._hashes[file] for file in files}

    def parameters(self) -> dict[str, int]:
        """How many parameters the backbone and all codecs have, read from the files' headers."""
        from safetensors import safe_open

        def count(path: Path) -> int:
            with safe_open(path, framework="pt") as file:
                return sum(int(np.prod(file.get_slice(key).get_shape())) for key in file.keys())  # noqa: SIM118 - not a dict

        vaes = sum(count(path) for path in (self.folder / "vae").glob("*/codec.safetensors"))
        return {"backbone": count(self.folder / BACKBONE), "codecs": vaes}

    @torch.no_grad()
    def generate(self, given: Scene | None = None, want: str | Iterable[str] | None = None, *, seeds: Sequence[int] = (0,),
                 steps: int | None = None, solver: str = "default", precision: Precision | None = None, absent: Absent = "joint",
                 posterior: Posterior = "mean", max_memory: int | None = None,
                 progress: Progress | None = None) -> list[Scene]:
        """One scene a seed, each with the wanted layers in physical units, over the given scene's ground.

        given: the layers that are known; None or an empty scene draws unconditionally.
        want: rows, products or released keys; None is every row that is not given.
        steps: network calls a sample, a last denoising counted; None is the solver's default.
        absent: what becomes of rows neither given nor wanted. `joint` draws them too and throws them away: a sample does not depend
        on what is wanted. `noise` shows them as noise at the last time, `drop` leaves them out of the sequence: quicker, and the
        sample then depends on the wanted set.
        posterior: the given layers' latents are their codecs' means, or draws of the sample's own seed.
        max_memory: bytes that a batch of samples may take beside the weights; None is half of what is free.

        A sample depends on its seed, the given layers and these settings; not on the other seeds or their order. On a CPU that holds
        to the last bit; a GPU's batches round a little differently (by what benchmarks/seeds.py prints).
        Raises ValueError for rows both given and wanted, unknown rows, and settings out of range.
        """
        given = Scene(table=self.table) if given is None else given
        wanted = self._wanted(given, want)
        check_seeds(seeds)
        check_choice("absent", absent, get_args(Absent))
        check_choice("posterior", posterior, get_args(Posterior))
        steps = default_steps(solver) if steps is None else steps
        backbone = self.backbone_in(precision or self.precision)
        drawn = [row for row in self.table.names if row not in given and (absent == "joint" or row in wanted)]
        unseen = [row for row in self.table.names if row not in given and row not in drawn] if absent == "noise" else []
        encoded = {row: self._moments(row, given[row]) for row in given.layers}
        batch = samples_at_once(self.table, backbone, max_memory, self.device)
        scenes: list[Scene] = []
        for start in range(0, len(seeds), batch):
            some = list(seeds[start : start + batch])
            tick = partial(report_calls, progress, start, len(some), len(seeds)) if progress else None
            latents = diffusion.sample(
                backbone, self._noise(drawn, some), {row: self._given(row, m, some, posterior) for row, m in encoded.items()},
                solver=solver, steps=steps, absent=self._noise(unseen, some), schedule=backbone.config.schedule, progress=tick)
            layers = {row: self._decode(row, latents[row]) for row in wanted}
            for k, seed in enumerate(some):
                notes = {"seed": seed, "model": self.name, "solver": solver, "steps": steps, "absent": absent, "posterior": posterior,
                         "batch": len(some), "precision": NAMES[backbone.dtype], "given": list(given.layers),
                         "copgen": copgen.__version__}
                scenes.append(given.with_layers({row: layers[row][k] for row in wanted}, **notes))
        if progress:
            progress(len(seeds) * steps, len(seeds) * steps, len(seeds), len(seeds))
        return scenes

    @torch.no_grad()
    def encode(self, scene: Scene) -> dict[str, Tensor]:
        """The scaled latents [1, z, h, w] of every layer of a scene, posterior means."""
        return {row: draw(self._moments(row, scene[row]), self.codec(row).scaling_factor) for row in scene.layers}

    @torch.no_grad()
    def reconstruct(self, scene: Scene) -> Scene:
        """Every layer through its codec and back: the floor under every error of this model."""
        return scene.with_layers({row: self._decode(row, latent)[0] for row, latent in self.encode(scene).items()}, model=self.name)

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

    def _moments(self, row: str, layer: np.ndarray) -> Tensor:
        pixels = torch.from_numpy(self.table[row].scale.to_model(layer))
        with full_float32():
            return self.codec(row).moments(pixels.reshape(1, *self.table.pixel_shape(row)).to(self.device)).float()

    def _given(self, row: str, moments: Tensor, seeds: Sequence[int], posterior: str) -> Tensor:
        shape = self.table.latent_shape(row)
        own = gaussian(seeds, f"{row}/posterior", shape).to(self.device) if posterior == "sample" else None
        return draw(moments, self.codec(row).scaling_factor, own).expand(len(seeds), *shape)

    def _noise(self, rows: Iterable[str], seeds: Sequence[int]) -> dict[str, Tensor]:
        return {row: gaussian(seeds, row, self.table.latent_shape(row)).to(self.device) for row in rows}

    def _decode(self, row: str, latents: Tensor) -> np.ndarray:
        codec = self.codec(row)
        with full_float32():                     # one at a time: memory, and no batch effects
            pixels = torch.cat([codec.decode(one) for one in latents.float().split(1)])
        if not pixels.isfinite().all():
            raise ValueError(f"model {self.name}: {row} came out as no number; its weights are damaged or need --precision fp32")
        return self.table[row].scale.to_physical(pixels.float().cpu().numpy())


def report_calls(progress: Progress, before: int, batch: int, samples: int, calls: int, of: int) -> None:
    """From calls of one batch to calls of the whole job."""
    progress(before * of + calls * batch, samples * of, before, samples)


def full_float32() -> AbstractContextManager[None]:
    """Convolutions on a GPU with all of float32's digits: TF32's ten bits are metres of height."""
    return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)


def gaussian(seeds: Sequence[int], stream: str, shape: tuple[int, ...]) -> Tensor:
    """Standard normal float32 [len(seeds), *shape], each from its seed and the stream's name alone (NumPy's Philox and ziggurat)."""

    def one(seed: int) -> np.ndarray:
        key = hashlib.sha256(f"{int(seed)}/{stream}".encode()).digest()[:16]
        generator = np.random.Generator(np.random.Philox(key=np.frombuffer(key, "<u8")))
        return generator.standard_normal(shape, dtype=np.float32)

    return torch.from_numpy(np.stack([one(seed) for seed in seeds]))


def default_steps(solver: str) -> int:
    """The network calls that a solver takes when nobody says how many; ValueError for a solver that isn't there."""
    if solver not in diffusion.SOLVERS:
        raise ValueError(f"no solver is called {solver!r}; there are: {', '.join(diffusion.SOLVERS)}")
    return diffusion.SOLVERS[solver].steps


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


def pick_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    if precision == "auto":
        native = torch.cuda.is_bf16_supported(including_emulation=False) if device.type == "cuda" else native_bf16_on_cpu()
        return torch.bfloat16 if native else torch.float32
    check_choice("precision", precision, get_args(Precision))
    return DTYPES[precision]


def native_bf16_on_cpu() -> bool:
    """Whether the processor multiplies bf16 itself; oneDNN also accepts it where it must be emulated."""
    return any(getattr(torch.cpu, test, lambda: False)() for test in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))


def samples_at_once(table: Table, backbone: UViT, max_memory: int | None, device: torch.device) -> int:
    """How many samples a batch may hold: what a sample keeps alive in one network call, against the memory allowed."""
    free = max_memory if max_memory is not None else free_memory(device) // 2
    numbers = table.sequence_length * backbone.config.width * (backbone.config.depth // 2 + 16)    # skips, then one block's tensors
    largest = max(table.side(row) ** 2 for row in table.images) * 4 * 4 * 128                      # one decoder's widest layers, float32
    each = numbers * backbone.dtype.itemsize
    if max_memory is not None and max_memory < each + largest:
        raise ValueError(f"max memory {max_memory / 2**20:.0f} MiB: one sample needs about {(each + largest) / 2**20:.0f} MiB")
    return int(min(max((free - largest) // each, 1), MOST_AT_ONCE.get(device.type, 1)))


def free_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return min(available_memory(), memory_limit())


def available_memory() -> int:
    """What the system could give without swapping; 4 GiB where it doesn't say."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 4 * 2**30


def memory_limit() -> int:
    """What a container leaves this process, where there is one."""
    try:
        return int(Path("/sys/fs/cgroup/memory.max").read_text()) - int(Path("/sys/fs/cgroup/memory.current").read_text())
    except (OSError, ValueError):                # no container, or "max"
        return 2**63


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


