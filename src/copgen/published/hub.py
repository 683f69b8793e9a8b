"""Where is a released model on this machine? In the cache; what isn't there yet is fetched from the Hugging Face hub and converted once."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from copgen.files import cache_folder
from copgen.published.conversion import convert
from copgen.published.released import MODELS, Released

PATIENCE = 10                                    # seconds to wait for the hub's first answer


def fetch(name: str, *, endpoint: str | None = None) -> Path:
    """The folder of a released model: fetched from the hub and converted on first use, then read from the cache.

    Raises ValueError that says which files to put where when the hub cannot be reached.
    """
    folder = cache_folder() / name
    if (folder / "copgen.json").is_file():
        return folder
    if folder.exists():
        raise ValueError(f"{folder}: exists and is no model (it has no copgen.json); remove it, or choose another cache with COPGEN_CACHE")
    released = MODELS[name]
    if released.repository is None:
        raise ValueError(f"{name}: no public repository is known that holds it; with its {released.file} and the VAEs of "
                         f"{released.system.source} on this machine run: {command(released, folder)}")
    try:
        weights, vaes, revisions = download(released.repository, released, endpoint)
    except Exception as error:                   # no network, a proxy, a renamed repository: the way out is the same
        raise ValueError(by_hand(name, released, folder, error)) from error
    try:
        return convert(weights, vaes, folder, name=name, notes={"revisions": revisions})
    except ValueError:
        if (folder / "copgen.json").is_file():   # another process was quicker
            return folder
        raise


def download(source: str, released: Released, endpoint: str | None) -> tuple[Path, Path, dict[str, str]]:
    """The backbone's file, the folder of its VAEs and each repository's revision; the hub's own cache is used."""
    from huggingface_hub import HfApi, hf_hub_download

    vaes_from = released.system.repository
    hub = HfApi(endpoint=endpoint)
    found = {repository: hub.model_info(repository, revision=revision, timeout=PATIENCE)
             for repository, revision in ((source, released.revision), (vaes_from, "main"))}
    revisions = {repository: str(info.sha) for repository, info in found.items()}
    there = {file.rfilename for file in found[vaes_from].siblings or ()}

    def file(repository: str, name: str) -> Path:
        return Path(hf_hub_download(repository, name, revision=revisions[repository], endpoint=endpoint))

    folder = Path()
    for vae in released.system.vaes.values():
        name = next((name for name in vae.files if name in there), vae.files[0])
        beside = str(PurePosixPath(name).with_name("config.json"))                 # says more of it where there is one
        for wanted in [name, *({beside} & there)]:
            folder = file(vaes_from, wanted).parents[len(PurePosixPath(wanted).parts) - 1]
    return file(source, released.file), folder, revisions


def by_hand(name: str, released: Released, folder: Path, error: Exception) -> str:
    reason = re.split(r"\n|\. ", str(error))[0] or type(error).__name__
    vaes = ", ".join(vae.files[0] for vae in released.system.vaes.values())
    return (f"{name}: could not be fetched from the hub ({reason}); without a network, put {released.file} of {released.repository} and "
            f"{vaes} (of {released.system.source}) on this machine and run: {command(released, folder)}")


def command(released: Released, folder: Path) -> str:
    return f"copgen convert --backbone {released.file} --vaes FOLDER --out {folder}"
