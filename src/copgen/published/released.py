"""Which models were released? Where each is, its sizes, and the autoencoders that belong to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from copgen.backbone import BackboneConfig
from copgen.modalities import TABLE, THUMBNAILS, Table

LICENCE = "see the model's page on the Hugging Face hub"


@dataclass(frozen=True)
class Vae:
    """A released autoencoder: the rows that it is for, the factor of its latents, and its file."""

    rows: tuple[str, ...]
    scaling_factor: float
    files: tuple[str, ...]                       # under one folder, on the hub as on a disk; the first that is there is taken


@dataclass(frozen=True)
class System:
    """What the released models of one table share."""

    table: Table
    vaes: Mapping[str, Vae]                      # by the codec's name in a model folder of ours
    parameters: int                              # of all VAEs
    repository: str                              # of the VAEs
    others: str = ""                             # where else they are, in words

    @property
    def source(self) -> str:
        """Where the VAEs are, in words."""
        return f"{self.repository}{self.others}"


@dataclass(frozen=True)
class Released:
    """A released backbone: where it is, and the sizes it must have."""

    repository: str | None                       # None: no public one is known
    file: str
    config: BackboneConfig
    parameters: int
    system: System
    revision: str = "main"


def network_order(table: Table) -> tuple[str, ...]:
    """The rows as released weights number them: in the ASCII order of their keys, as the authors' configuration sorts them."""
    return tuple(sorted(table.names, key=lambda row: table[row].released_as))


KEYS = {row.name: row.released_as for row in TABLE.rows}
ORDER = network_order(TABLE)

SCALING_FACTORS = {
    "dem": 0.404247, "lulc": 0.464794, "s1rtc": 0.633804, "cloud_mask": 0.557045,
    "s2l1c_60m": 0.565812, "s2l1c_10m": 0.772514, "s2l1c_20m": 0.765817,
    "s2l2a_60m": 0.571367, "s2l2a_10m": 0.853416, "s2l2a_20m": 0.567267,
}
VAE_FOLDERS = {
    "dem": "DEM_64x64_DEM_latent_8", "lulc": "LULC_192x192_LULC_latent_8", "s1rtc": "S1RTC_192x192_VV_VH_latent_8",
    "s2l1c_60m": "S2L1C_32x32_B1_9_10_latent_8", "s2l1c_10m": "S2L1C_192x192_B4_3_2_8_latent_8",
    "s2l1c_20m": "S2L1C_96x96_B5_6_7_8A_11_12_latent_8", "cloud_mask": "S2L1C_192x192_cloud_mask_latent_8",
    "s2l2a_60m": "S2L2A_32x32_B1_9_latent_8", "s2l2a_10m": "S2L2A_192x192_B4_3_2_8_latent_8",
    "s2l2a_20m": "S2L2A_96x96_B5_6_7_8A_11_12_latent_8",
}
COPGEN = System(
    TABLE,
    {row: Vae((row,), SCALING_FACTORS[row], (f"{folder}/model-50-ema.pth", f"{folder}/model-50.pt"))      # converted, or the raw checkpoint
     for row, folder in VAE_FOLDERS.items()},
    837_121_850, "mespinosami/copgen-vaes",
)
# The authors drew with autoencoder_kl_ema.pth and encoded what they trained on with autoencoder_kl.pth, both from a drive that no client
# reaches, and both of unknown origin. They are believed to be the hub's sd-vae-ft-ema, whose makers say they tuned the decoder only, and
# the autoencoder that it was tuned from (as autoencoder_kl.pth also beside thu-ml/unidiffuser-v1): of one encoder, then.
BETA = System(
    THUMBNAILS,
    {"rgb": Vae(THUMBNAILS.images, 0.18215, ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin",
                                             "autoencoder_kl_ema.pth", "autoencoder_kl.pth"))},
    83_653_863, "stabilityai/sd-vae-ft-ema", ", or the authors' autoencoder_kl_ema.pth",
)
MODELS = {
    "copgen-base": Released("mespinosami/copgen-base", "500000_nnet_ema.pth", BackboneConfig(1024, 20, 16), 286_986_562, COPGEN),
    "copgen-large": Released(None, "500000_nnet_ema.pth", BackboneConfig(1152, 28, 16), 501_092_674, COPGEN),
    "copgen-huge": Released(None, "500000_nnet_ema.pth", BackboneConfig(1536, 30, 24), 951_274_306, COPGEN),
    "cop-gen-beta": Released("mespinosami/COP-GEN-Beta", "nnet_ema_114000.pth", BackboneConfig(1024, 20, 16), 286_648_384, BETA),
}
SYSTEMS = (COPGEN, BETA)
