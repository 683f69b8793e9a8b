"""Files named, keyed and laid out as the released ones, of a size that is quick; and as much of the hub as a download of them needs."""

from __future__ import annotations

import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from copgen import published
from copgen.backbone import BackboneConfig, UViT
from copgen.codec import CodecConfig, KLCodec
from copgen.modalities import TABLE, Table

WIDTH, DEPTH, HEADS = 32, 2, 2


def released_backbone(seed: int = 0, table: Table = TABLE) -> dict[str, Tensor]:
    """Random weights under the released keys: numbered, in the ASCII order of the modalities' names, one table of positions."""
    torch.manual_seed(seed)
    order = published.network_order(table)
    weights: dict[str, Tensor] = {}
    clocks, patches = [], []
    for key, tensor in UViT(table, BackboneConfig(WIDTH, DEPTH, HEADS)).state_dict().items():
        kind, row, *rest = key.split(".")
        if kind == "embed":
            weights[f"patch_embeds.{order.index(row)}.proj.{rest[0]}"] = torch.randn(tensor.shape) * 0.2
        elif kind == "head":
            weights[f"decoder_preds.{order.index(row)}.{rest[0]}"] = torch.randn(tensor.shape) * 0.2
        elif kind != "position":
            weights[key] = torch.randn(tensor.shape) * 0.2
    for row in order:
        clocks.append(torch.randn(1, WIDTH))
        patches.append(torch.randn(table.tokens(row), WIDTH))
    weights["pos_embed"] = torch.cat(clocks + patches)[None]
    return weights


def released_vae(row: str, channels: int | None = None, table: Table = TABLE) -> dict[str, Tensor]:
    torch.manual_seed(1 + table.images.index(row))
    sizes = CodecConfig(channels or table[row].channels, table.latent_channels, width=32, multipliers=(1, 1, 1, 1), blocks=1)
    return KLCodec(sizes).state_dict()


def in_diffusers(weights: Mapping[str, Tensor], older: bool = False, pointwise: bool = False) -> dict[str, Tensor]:
    """The same tensors under the names of diffusers' AutoencoderKL, of today or of 2022; `pointwise`: attention as convolutions."""
    last = max(int(match[1]) for key in weights if (match := re.match(r"decoder\.up\.(\d+)", key)))
    parts = dict(zip(("q", "k", "v", "proj_out"), ("query", "key", "value", "proj_attn") if older else ("to_q", "to_k", "to_v", "to_out.0"),
                     strict=True))
    named = {}
    for key, tensor in weights.items():
        half, *rest = key.split(".")
        match rest:
            case ["down", level, "block", number, *more]:
                words = [half, "down_blocks", level, "resnets", number, *more]
            case ["down", level, "downsample", *more]:
                words = [half, "down_blocks", level, "downsamplers.0", *more]
            case ["up", level, "block", number, *more]:
                words = [half, "up_blocks", str(last - int(level)), "resnets", number, *more]
            case ["up", level, "upsample", *more]:
                words = [half, "up_blocks", str(last - int(level)), "upsamplers.0", *more]
            case ["mid", "attn_1", part, kind]:
                words = [half, "mid_block.attentions.0", "group_norm" if part == "norm" else parts[part], kind]
                tensor = tensor if pointwise or tensor.ndim == 1 else tensor.squeeze(-1).squeeze(-1)
            case ["mid", block, *more]:
                words = [half, "mid_block.resnets", str(int(block[-1]) - 1), *more]
            case ["norm_out", kind]:
                words = [half, "conv_norm_out", kind]
            case _:
                words = [half, *rest]
        named[".".join("conv_shortcut" if word == "nin_shortcut" else word for word in words)] = tensor
    return named


def own_caches(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Caches under a folder, of the hub's files and of models (which is returned), and a released model made of a size that is quick."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("COPGEN_CACHE", str(folder / "cache"))
    monkeypatch.setitem(published.MODELS, name, replace(published.MODELS[name], config=BackboneConfig(WIDTH, DEPTH, HEADS)))
    return folder / "cache"


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub as a download needs: a repository's revision and its files' names, and files by revision with their hash."""

    folders: Mapping[str, Path]                  # of a repository
    revisions: Mapping[str, str]
    requests: list[str]

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        path = self.path.partition("?")[0]
        self.requests.append(f"{self.command} {path}")
        repository = next((name for name in self.revisions if f"/{name}/" in path), "")
        head = {"X-Repo-Commit": self.revisions.get(repository, "")}
        if repository and path == f"/api/models/{repository}/revision/main":
            files = [{"rfilename": file.relative_to(self.folders[repository]).as_posix()}
                     for file in sorted(self.folders[repository].rglob("*")) if file.is_file()]
            said = {"id": repository, "sha": self.revisions[repository], "siblings": files}
            return self.send(200, json.dumps(said).encode(), head, body)
        start = f"/{repository}/resolve/{self.revisions.get(repository, '')}/"
        file = self.folders.get(repository, Path("none")) / path.removeprefix(start)
        if not (repository and path.startswith(start) and file.is_file()):
            return self.send(404, b"", {"X-Error-Code": "EntryNotFound"}, body)
        data = file.read_bytes()
        return self.send(200, data, head | {"ETag": f'"{hashlib.sha256(data).hexdigest()}"'}, body)

    def send(self, status: int, data: bytes, head: dict[str, str], body: bool) -> None:
        self.send_response(status)
        for key, value in (head | {"Content-Length": str(len(data))}).items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def hub_of(folders: Mapping[str, Path], revisions: Mapping[str, str]) -> Iterator[tuple[str, list[str]]]:
    """A hub on this machine that serves each repository from a folder: its address and the requests it had."""
    handler = type("OwnHub", (Hub,), {"folders": folders, "revisions": revisions, "requests": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", handler.requests
        server.shutdown()
