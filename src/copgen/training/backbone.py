"""Training of the backbone on stored moments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from copgen.backbone import UViT
from copgen.codec import KLCodec
from copgen.config import dump
from copgen.modalities import Table
from copgen.shards import Mixed, Shards
from copgen.training.denoising import Denoising
from copgen.training.launch import ONE, Devices, is_first_process
from copgen.training.loop import Player, Report, train
from copgen.training.preview import backbone_of, preview_of
from copgen.training.recipe import Recipe
from copgen.training.run_folder import start_run


def train_backbone(recipe: Recipe, shards: Shards | Mixed, codecs: Mapping[str, KLCodec], folder: Path, *, init: UViT | None = None,
                   devices: Devices = ONE, workers: int = 0, resume: bool = False, stop: int | None = None, report: Report | None = None,
                   say: Callable[[str], object] = lambda _: None) -> UViT:
    """Train the backbone as the paper's section 3.3 does: independent times, noise prediction, squared errors summed over rows.

    codecs: of every row with a grid, those that made the moments. Moments are drawn from afresh at every step.
    init: a backbone to go on from; what this recipe's has more starts as if there were no init, and `say` is told of it.
    workers: processes that read ahead, on each device; the run is the same for any number.
    """
    table, how = recipe.modalities, recipe.train.how
    check_moments(shards, table)
    torch.manual_seed(how.seed)
    network = UViT(table, recipe.backbone)
    if init is not None:
        new = start_from(network, init)
        if is_first_process():
            say(told(network, new))
    network.activation_checkpointing = recipe.train.activation_checkpointing
    objective = Denoising(network, recipe.train, shards, codecs)
    size = {"samples": len(shards), "shards": len(shards.counts)}        # the order of samples depends on them
    start_run(folder, resume, {"data": {**shards.meta, **size}, **dump(recipe)}, defaults={"data": size, **dump(Recipe(""))})
    average = train({"backbone": Player(objective)}, shards.counts, how, folder, devices=devices, workers=workers, resume=resume, stop=stop,
                    report=report, preview=preview_of(table, recipe.backbone, codecs))
    return backbone_of(table, recipe.backbone, average)


def start_from(network: UViT, init: UViT) -> list[str]:
    """Copy the weights of another backbone; the names of those that stay new.

    Rows that only one of the two has are left as they are, or out. ValueError for a backbone of another size or kind.
    """
    for name in ("heads", "prediction"):         # the weights' sizes don't tell them, their meaning depends on them
        theirs, ours = getattr(init.config, name), getattr(network.config, name)
        if theirs != ours:
            raise ValueError(f"--init: its backbone has {name} = {theirs!r}, the recipe's {ours!r}; use a recipe with the same")
    fresh, given = network.state_dict(), init.state_dict()
    if network.canvas is not None and init.canvas is not None:      # its map between rows is one matrix of all
        mix = network.canvas.straight.mix_from(init.canvas.straight)
        given |= {f"canvas.straight.mix.{name}": tensor for name, tensor in mix.items()}
    others = set(init.table.names) - set(network.table.names)
    kept = {name: tensor for name, tensor in given.items() if not others & set(name.split("."))}
    if unfit := [name for name, tensor in kept.items() if name not in fresh or fresh[name].shape != tensor.shape]:
        raise ValueError(f"--init: {unfit[0]} does not fit this recipe's backbone; use a recipe of the same sizes")
    network.load_state_dict({**fresh, **kept})
    return [name for name in fresh if name not in kept]


def told(network: UViT, new: Sequence[str]) -> str:
    """What starts anew, in words: rows by name, then other parts."""
    rows = [row for row in network.table.names if f"position.{row}" in new]
    others = {name.split(".")[0] for name in new if not set(rows) & set(name.split("."))}
    return "init: new rows " + (", ".join(rows) or "none") + (f"; new parts {', '.join(sorted(others))}" if others else "")


def check_moments(shards: Shards | Mixed, table: Table) -> None:
    """ValueError for shards of something else, or of latents of another size."""
    for part in shards.parts:
        for row, array in part.read(table.names, np.array([0])).items():
            z, height, width = table.latent_shape(row)
            expected = (2 * z, height, width) if table[row].is_image else (z, height, width)
            if array.shape[1:] != expected:
                raise ValueError(f"{part.folder}: {row} has moments {list(array.shape[1:])}, the recipe's table {list(expected)}; "
                                 "encode with this recipe's codecs first (copgen encode)")
