"""The one door to the released weights: their names, orders, key maps and scale factors. What comes out are networks and folders of ours.

`released` is the table of them, `networks` fills ours with their tensors, `diffusers` knows that library's names, `conversion` makes a
model folder of files, `hub` fetches those. Facts are those of the published files (arXiv 2603.03239; arXiv 2504.08548).
"""

from copgen.published.conversion import convert, read_weights
from copgen.published.hub import fetch
from copgen.published.networks import backbone, codec, place_as_published
from copgen.published.released import KEYS, LICENCE, MODELS, ORDER, VAE_FOLDERS, network_order

__all__ = [
    "KEYS", "LICENCE", "MODELS", "ORDER", "VAE_FOLDERS", "backbone", "codec", "convert", "fetch", "network_order",
    "place_as_published", "read_weights",
]
