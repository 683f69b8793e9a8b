"""From the hub or a synthetic Earth to shards for training: `synthesize`, `encode`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from copgen.console import counting


def synthesize(
    out: Annotated[Path, typer.Option(help="Folder for the worlds.")],
    seed: Annotated[int, typer.Option(help="Seed of the first world; world k has this seed + k.")] = 0,
    worlds: Annotated[int, typer.Option(help="How many.")] = 1,
    shards: Annotated[bool, typer.Option("--shards", help="Write shards for training rather than GeoTIFFs.")] = False,
    recipe: Annotated[Path | None, typer.Option(help="The recipe whose table the shards are for.")] = None,
    workers: Annotated[int, typer.Option(help="Processes.")] = 1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace GeoTIFFs that this run writes.")] = False,
) -> None:
    """Worlds of a synthetic Earth, all twelve layers each: an instrument and a teaching world, not the Earth."""
    from copgen.modalities import TABLE

    if worlds < 1:
        raise ValueError(f"--worlds {worlds}: at least 1 is needed")
    if not shards:
        from copgen.synthetic import world
        from copgen.writing import save_scene

        for number in range(seed, seed + worlds):
            scene = world(number)
            save_scene(scene, out / scene.name, overwrite=overwrite)
            print(out / scene.name)
        return
    from copgen.shards import write_shards
    from copgen.training.recipe import read_recipe
    from copgen.training.sources import Worlds, meta_of, packed_layers

    table = read_recipe(recipe).modalities if recipe else TABLE
    source = Worlds(seed, seed + worlds, table, workers)
    with counting("worlds") as tick:
        write_shards(out, worlds, lambda numbers: packed_layers(source, table, numbers), per_shard=64,
                     meta=meta_of(source, table), progress=tick)
    print(f"shards: {out}")


def encode(
    recipe: Annotated[Path, typer.Option(help="The recipe of the model.")],
    vaes: Annotated[Path, typer.Option(help="The folder with one trained codec a row: VAES/<row>/codec.safetensors.")],
    data: Annotated[str, typer.Option(help="synthetic:FIRST..LAST, or a folder of layer shards.")],
    out: Annotated[Path, typer.Option(help="Folder for the shards of moments; shards that exist are kept.")],
    workers: Annotated[int, typer.Option(help="Processes that make worlds.")] = 1,
) -> None:
    """Encode samples once for the training of the backbone."""
    from copgen.store import load_codec
    from copgen.training.encode import encode as encode_all
    from copgen.training.recipe import read_recipe
    from copgen.training.sources import open_source

    table = read_recipe(recipe).modalities
    codecs = {row: load_codec(vaes / row) for row in table.images}
    with counting("samples") as tick:
        encode_all(open_source(data, table, workers), codecs, table, out, codec_folder=vaes, progress=tick)
    print(f"latents: {out}")
