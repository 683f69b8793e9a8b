"""How does a square of ground pass through the model? Figure 2, drawn from the table of modalities, with its numbers in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from torch import nn

from copgen.backbone import BackboneConfig, UViT
from copgen.codec import CodecConfig, KLCodec
from copgen.config import parse
from copgen.figures.style import BLACK, PAGE, PALE, RULE, blank, paper
from copgen.modalities import TABLE, Modality, Table
from copgen.store import CodecRecord, load_record, read_json

# a colour a product, in the table's order: Okabe and Ito's, then paler ones of the same family
COLOURS = ("#CC79A7", "#E69F00", "#A6761D", "#009E73", "#999999", "#F0E442", "#56B4E9", "#0072B2", "#D55E00")
DARK = ("#0072B2", "#009E73", "#A6761D")         # with white letters
WIDE, REST = 140.0, 66.8                         # of the drawing, in units of its own; how tall it is without the rows
LINE = 4.6                                       # a row of the table
ARROW: dict[str, Any] = {"arrowstyle": "-|>", "mutation_scale": 6, "linewidth": 0.7, "color": PALE, "shrinkA": 0, "shrinkB": 0}


@dataclass(frozen=True)
class Plan:
    """Sizes of a model: its table, its backbone, what the codec of every image row is called (rows may share one), and the codecs."""

    name: str
    table: Table
    backbone: BackboneConfig
    codec_names: Mapping[str, str]               # by row
    codecs: Mapping[str, CodecConfig]            # by codec

    @cached_property
    def backbone_parameters(self) -> int:
        with torch.device("meta"):
            return counted(UViT(self.table, self.backbone))

    @cached_property
    def codec_parameters(self) -> dict[str, int]:
        """By codec; codecs of equal sizes are counted once each, since each has weights of its own."""
        with torch.device("meta"):
            return {name: counted(KLCodec(config)) for name, config in self.codecs.items()}

    def sharing(self, row: Modality) -> list[Modality]:
        """The rows from this one on, one under another, that share its codec; [] where the row above does, and for a row without one."""
        blocks = [list(rows) for _, rows in groupby(self.table.rows, lambda one: self.codec_names.get(one.name))]
        return next((rows for rows in blocks if rows[0] == row and row.is_image), [])

    def colour(self, row: Modality) -> str:
        return COLOURS[self.table.products.index(row.product) % len(COLOURS)]


def counted(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def paper_plan(name: str = "COP-GEN base", table: Table = TABLE, shared: str | None = None) -> Plan:
    """A paper's base model: the table's and the backbone's defaults, and codecs of one kind, one a row or one `shared` by all."""
    names = {row: shared or row for row in table.images}
    codecs = {codec: CodecConfig(table[row].channels, table.latent_channels) for row, codec in names.items()}
    return Plan(name, table, BackboneConfig(), names, codecs)


def plan_of(folder: Path) -> Plan:
    """The plan of a model's folder; ValueError for what is no model."""
    record = load_record(folder)
    paths = {codec: folder / "vae" / codec / "codec.json" for codec in dict.fromkeys(record.codecs.values())}
    codecs = {codec: parse(CodecRecord, read_json(path), str(path)).config for codec, path in paths.items()}
    return Plan(record.name, record.table(str(folder)), record.backbone, record.codecs, codecs)


# --- the figure ---------------------------------------------------------------------------------------------------------------------

@paper()
def architecture(plan: Plan) -> Figure:
    """The model of a plan: layers, codecs, latents and tokens row by row; the sequence; the backbone; times in training and in drawing."""
    tall = REST + LINE * len(plan.table.rows)
    figure = blank(PAGE, PAGE * tall / WIDE)
    figure.set_layout_engine("none")             # everything has its place
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDE), ylim=(tall, 0))
    axes.axis("off")
    y = draw_rows(axes, plan, 3.0)
    y = draw_sequence(axes, plan, y + 3.5)
    y = draw_backbone(axes, plan, y + 6.0)
    draw_times(axes, plan, y + 5.0)
    return figure


def draw_rows(axes: Axes, plan: Plan, y: float) -> float:
    """A line a row of the table: what is given, its codec, its latent, its tokens."""
    pictures = all(row.drawing for row in plan.table.rows)
    heading(axes, 2, y, "1  Layers as pictures of 8 bits" if pictures else "1  Layers in physical units")
    heading(axes, 62, y, "2  Codecs")
    heading(axes, 87, y, "3  Latents")
    heading(axes, 111, y, "4  Tokens")
    for k, row in enumerate(plan.table.rows):
        at = y + 3.0 + k * LINE
        layer = (len(row.bands), *plan.table.layer_shape(row.name)[1:])
        box(axes, 2, at, 56, LINE - 0.9, plan.colour(row), 0.30)
        say(axes, 3.2, at + 1.9, row.product, weight="bold")
        say(axes, 16.2, at + 1.9, bands_of(row), size=6)
        say(axes, 57, at + 1.9, shape(layer) + (f" at {row.resolution} m" if row.resolution else ""), align="right")
        arrow(axes, 58.2, at + 1.85, 62)
        draw_codec(axes, plan, row, at)
        arrow(axes, 83, at + 1.85, 87)
        box(axes, 87, at, 16, LINE - 0.9, plan.colour(row), 0.55)
        say(axes, 95, at + 1.9, shape(plan.table.latent_shape(row.name)), align="center")
        arrow(axes, 103.2, at + 1.85, 111)
        patch = plan.table.patch_of(row.name)
        say(axes, 106.6, at + 1.2, f"{patch}×{patch}" if row.is_image else "", align="center", size=5.5, colour=PALE)
        draw_tokens(axes, plan, row, at)
    return y + 3.0 + len(plan.table.rows) * LINE


def draw_codec(axes: Axes, plan: Plan, row: Modality, at: float) -> None:
    """From a row that has a codec, a box as tall as the rows that share it; for one without, what happens instead."""
    if not row.is_image:
        axes.plot([62, 83], [at + 1.85] * 2, color=PALE, linewidth=0.7)
        say(axes, 72.5, at + 1.2, "unit vector" if row.name == "place" else "season, year", align="center", size=6)
    elif rows := plan.sharing(row):
        codec, tall = plan.codecs[plan.codec_names[row.name]], len(rows) * LINE - 0.9
        box(axes, 62, at, 21, tall, RULE, 0.35)
        for k, one in enumerate(rows):
            axes.add_patch(Rectangle((62, at + k * LINE), 1.0, LINE - 0.9, color=plan.colour(one), linewidth=0))
        middle = at + tall / 2 + 0.05
        say(axes, 73, middle, f"VAE ÷{codec.stride}, {codec.channels} → {codec.latent_channels}", align="center")
        if len(rows) > 1:
            say(axes, 73, middle + 2.8, f"one for all {len(rows)}", align="center", size=6)


def draw_tokens(axes: Axes, plan: Plan, row: Modality, at: float) -> None:
    """A row's tokens: the time first, then as many as there are, by length."""
    most = max(plan.table.tokens(name) for name in plan.table.names)
    tokens = plan.table.tokens(row.name)
    axes.add_patch(Rectangle((111, at), 1.5, LINE - 0.9, facecolor="white", edgecolor=BLACK, linewidth=0.6))
    say(axes, 111.75, at + 1.9, "t", align="center", size=5.5)
    length = max(16 * tokens / most, 0.7)
    axes.add_patch(Rectangle((112.9, at), length, LINE - 0.9, facecolor=plan.colour(row), edgecolor=BLACK, linewidth=0.4))
    say(axes, 112.9 + length + 0.8, at + 1.9, f"1 + {tokens}")


def draw_sequence(axes: Axes, plan: Plan, y: float) -> float:
    """All tokens one after another, by length; time tokens are black lines."""
    total, x = plan.table.sequence_length, 2.0
    heading(axes, 2, y, f"5  One sequence of {total} tokens: {len(plan.table.rows)} times and "
                        f"{total - len(plan.table.rows)} of layers, each with a learned position")
    for row in plan.table.rows:
        width = (1 + plan.table.tokens(row.name)) * (WIDE - 4) / total
        axes.add_patch(Rectangle((x, y + 1.6), width, 4.2, facecolor=plan.colour(row), edgecolor="white", linewidth=0.3))
        axes.plot([x + 0.15, x + 0.15], [y + 1.6, y + 5.8], color=BLACK, linewidth=0.8)
        if width > 7:
            say(axes, x + width / 2, y + 3.75, row.name, align="center", size=5.5, colour="white" if plan.colour(row) in DARK else BLACK)
        x += width
    return y + 5.8


def draw_backbone(axes: Axes, plan: Plan, y: float) -> float:
    """In-blocks, a middle, out-blocks that each also read their mirror's output; then a head a row."""
    config, half = plan.backbone, plan.backbone.depth // 2
    heading(axes, 2, y, f"6  U-ViT: {half} + 1 + {half} transformer blocks, width {config.width}, {config.heads} heads; "
                        f"{plan.backbone_parameters / 1e6:.1f} million parameters")
    base, tall, number = y + 20.0, 8.0, 2 * half + 1
    step = 104.0 / number
    left = [6 + k * step for k in range(number)]
    for k, x in enumerate(left):
        middle = k == half
        box(axes, x, base - tall, step * 0.72, tall, "#4C5B61" if middle else "#B8C4CA", 1.0 if middle else 0.9)
        if k:
            arrow(axes, left[k - 1] + step * 0.72, base - tall / 2, x)
    for k in range(half):
        start, end = left[k] + step * 0.36, left[number - 1 - k] + step * 0.36
        rise = 1.2 + 8.5 * (1 - k / max(half, 1))
        axes.plot([start, start, end], [base - tall, base - tall - rise, base - tall - rise], color=RULE, linewidth=0.7)
        axes.add_patch(FancyArrowPatch((end, base - tall - rise), (end, base - tall), **{**ARROW, "color": "#9AA3A8"}))
    say(axes, left[half] + step * 0.36, base + 2.2, "middle", align="center", size=6)
    say(axes, left[0], base + 2.2, "in-blocks", size=6)
    say(axes, left[-1] + step * 0.72, base + 2.2, "out-blocks read their mirror's output too", align="right", size=6)
    arrow(axes, 1.5, base - tall / 2, left[0])
    out = left[-1] + step * 0.72
    arrow(axes, out, base - tall / 2, 114)
    for k, row in enumerate(plan.table.rows):
        high = 19.0 / len(plan.table.rows)
        axes.add_patch(Rectangle((114, y + 2.4 + k * high), 6, high * 0.85, facecolor=plan.colour(row), edgecolor=BLACK, linewidth=0.3))
    say(axes, 121.5, y + 8.5, "a head a row")
    say(axes, 121.5, y + 11.3, "gives its noise" if config.prediction == "noise" else "gives its velocity,")
    say(axes, 121.5, y + 14.1, "in its latent's shape" if config.prediction == "noise" else "hence its noise")
    if config.canvas:
        say(axes, 121.5, y + 16.9, f"+ canvas, {config.canvas} wide")
    return base + 2.6


def draw_times(axes: Axes, plan: Plan, y: float) -> None:
    """What times the rows have: in training, drawing all, and drawing some given others."""
    rows, names = plan.table.rows, plan.table.names
    given = {row.name for row in rows if row.product in ("DEM", "LULC")}
    panels = (("Training: every row at a time of its own", [0.62, 0.08, 0.85, 0.33, 0.51, 0.95, 0.2, 0.71, 0.41, 0.15, 0.9, 0.57]),
              ("Unconditional: all from noise together", [0.7] * len(rows)),
              ("Any to any: given rows stay clean", [0.0 if name in given else 0.7 for name in names]))
    heading(axes, 2, y, f"7  A diffusion time a row, t = 0 (clean) to {plan.backbone.schedule.steps} (noise), tells the backbone what to "
                        "believe")
    for k, (words, times) in enumerate(panels):
        x, width = 2 + k * 47.0, 42.0
        cell = width / len(rows)
        for j, (row, time) in enumerate(zip(rows, (times * len(rows))[:len(rows)], strict=True)):
            bottom = y + 11.4
            axes.add_patch(Rectangle((x + j * cell, y + 2.4), cell * 0.86, 9, facecolor="#F4F4F2", edgecolor=RULE, linewidth=0.4))
            axes.add_patch(Rectangle((x + j * cell, bottom - 9 * time), cell * 0.86, 9 * time, facecolor=plan.colour(row), linewidth=0))
            if time == 0:
                axes.plot([x + j * cell, x + (j + 0.86) * cell], [bottom] * 2, color=plan.colour(row), linewidth=2)
            elif k:
                axes.add_patch(FancyArrowPatch((x + (j + 0.43) * cell, bottom - 9 * time), (x + (j + 0.43) * cell, bottom - 1.0),
                                               **{**ARROW, "color": BLACK, "linewidth": 0.5, "mutation_scale": 4}))
        say(axes, x, y + 14.0, words, size=6)


def heading(axes: Axes, x: float, y: float, words: str) -> None:
    axes.text(x, y, words, fontsize=7.5, weight="bold", va="center", color=BLACK)


def say(axes: Axes, x: float, y: float, words: str, align: str = "left", size: float = 6.5, colour: str = BLACK,
        weight: str = "normal") -> None:
    axes.text(x, y, words, fontsize=size, ha=align, va="center", color=colour, weight=weight)


def box(axes: Axes, x: float, y: float, width: float, height: float, colour: str, strength: float) -> None:
    axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0,rounding_size=0.6", facecolor=colour, alpha=strength,
                                  edgecolor="none"))


def arrow(axes: Axes, x: float, y: float, to: float) -> None:
    axes.add_patch(FancyArrowPatch((x, y), (to, y), **ARROW))


def shape(sizes: tuple[int, ...]) -> str:
    return "×".join(str(size) for size in sizes)


def bands_of(row: Modality) -> str:
    """What a row consists of; of a picture, what is drawn."""
    if row.legend:
        return f"{row.legend.classes} classes"
    return f"of {' '.join(row.source.bands)}" if row.source else " ".join(row.bands)


# --- the numbers in words -----------------------------------------------------------------------------------------------------------

def numbers(plan: Plan) -> str:
    """A Markdown table of the plan's rows, and what they add up to; `docs/architecture.md` holds it for the paper's model and for nano."""
    lines = ["| row | layer | codec | parameters | latent | tokens |", "|---|---|---|--:|---|--:|"]
    for row in plan.table.rows:
        layer = shape((len(row.bands), *plan.table.layer_shape(row.name)[1:])) + (f" at {row.resolution} m" if row.resolution else "")
        name = plan.codec_names.get(row.name)
        codec = plan.codecs[name] if name else None
        words = f"{codec.channels} channel{'s' * (codec.channels > 1)}, ÷{codec.stride}" if codec else "none"
        many = f"{plan.codec_parameters[name]:,}" if name else "0"
        lines.append(f"| `{row.name}` | {layer} | {words} | {many} | {shape(plan.table.latent_shape(row.name))} | "
                     f"1 + {plan.table.tokens(row.name)} |")
    table, config, half = plan.table, plan.backbone, plan.backbone.depth // 2
    return "\n".join([
        *lines, "",
        f"- {table.footprint} m of ground, {table.stride} pixels a latent and {table.patch} latents a token along each side, "
        f"{table.latent_channels} channels a latent.",
        f"- {table.sequence_length} tokens: {len(table.rows)} times and {table.sequence_length - len(table.rows)} of layers.",
        f"- {half} + 1 + {half} blocks of width {config.width} with {config.heads} heads" + (
            f", and a canvas {config.canvas} wide" if config.canvas else "") + f": {plan.backbone_parameters:,} parameters.",
        f"- {codecs_of(plan)}: {sum(plan.codec_parameters.values()):,} parameters.",
        f"- Heads give the {config.prediction}; times go from 0 (clean) to {config.schedule.steps} (noise)."])


def codecs_of(plan: Plan) -> str:
    if len(plan.codecs) == 1:
        return f"1 codec, `{next(iter(plan.codecs))}`, that {len(plan.codec_names)} rows share"
    return f"{len(plan.codecs)} codecs"
