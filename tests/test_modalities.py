"""The table says of every row what the published configuration says in eight places."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import pytest

from copgen.modalities import ROWS, TABLE, Modality, Table
from copgen.published import KEYS
from copgen.scaling import Linear

# the paper's table: released key, channels in order, pixels [C, H, W], latent [z, h, w], tokens
PUBLISHED = [
    ("3d_cartesian_lat_lon", None, (1, 1, 3), (1, 1, 3), 3),
    ("DEM_DEM", "DEM", (1, 64, 64), (8, 8, 8), 16),
    ("LULC_LULC", "LULC", (10, 192, 192), (8, 24, 24), 144),
    ("S1RTC_vh_vv", "vv vh", (2, 192, 192), (8, 24, 24), 144),
    ("S2L1C_B01_B09_B10", "B01 B09 B10", (3, 32, 32), (8, 4, 4), 4),
    ("S2L1C_B02_B03_B04_B08", "B04 B03 B02 B08", (4, 192, 192), (8, 24, 24), 144),
    ("S2L1C_B05_B06_B07_B11_B12_B8A", "B05 B06 B07 B8A B11 B12", (6, 96, 96), (8, 12, 12), 36),
    ("S2L1C_cloud_mask", "cloud_mask", (4, 192, 192), (8, 24, 24), 144),
    ("S2L2A_B01_B09", "B01 B09", (2, 32, 32), (8, 4, 4), 4),
    ("S2L2A_B02_B03_B04_B08", "B04 B03 B02 B08", (4, 192, 192), (8, 24, 24), 144),
    ("S2L2A_B05_B06_B07_B11_B12_B8A", "B05 B06 B07 B8A B11 B12", (6, 96, 96), (8, 12, 12), 36),
    ("mean_timestamps", None, (1, 1, 3), (1, 1, 3), 3),
]


@pytest.mark.parametrize(("key", "bands", "pixels", "latent", "tokens"), PUBLISHED)
def test_every_row_has_the_published_shapes(key, bands, pixels, latent, tokens) -> None:
    (name,) = TABLE.select(key)
    assert KEYS[name] == key
    assert bands is None or list(TABLE[name].bands) == bands.split()
    assert TABLE.pixel_shape(name) == pixels
    assert TABLE.latent_shape(name) == latent
    assert TABLE.tokens(name) == tokens


def test_the_sequence_has_834_tokens_or_222_with_larger_ones() -> None:
    assert len(PUBLISHED) == len(TABLE.rows) == 12
    assert TABLE.sequence_length == 834
    assert Table(patch=4).sequence_length == 222


def test_names_products_and_released_keys_are_all_accepted_in_any_case() -> None:
    assert TABLE.select("S2L2A") == ("s2l2a_10m", "s2l2a_20m", "s2l2a_60m")
    assert TABLE.select("s2l1c") == ("s2l1c_10m", "s2l1c_20m", "s2l1c_60m")          # not the cloud mask, whatever its key begins with
    for row in TABLE.rows:
        for word in (row.name, row.name.upper(), row.released_as, row.released_as.swapcase(), f" {row.name} ,"):
            assert TABLE.select(word) == (row.name,), word
        assert row.name in TABLE.select(row.product.swapcase())


def test_a_selection_has_the_tables_order_whatever_order_was_asked() -> None:
    assert TABLE.select("s2l2a_60m,DEM,s2l2a,place") == TABLE.select(["place", "dem", "S2L2A"])
    assert TABLE.select(TABLE.products) == TABLE.select(reversed(TABLE.names)) == TABLE.names
    assert TABLE.select("") == TABLE.select([]) == ()


@pytest.mark.parametrize("word", ["S2L2B", "s2", "B04", "dem,lulc,nope", "None"])
def test_an_unknown_name_is_refused_with_the_choices(word: str) -> None:
    with pytest.raises(ValueError, match=rf"called '{word.split(',')[-1]}'; there are .*S2L2A.*s2l2a_10m"):
        TABLE.select(word)


def test_every_pixel_of_a_latent_lies_on_the_same_ground() -> None:
    """Footprint, pixels, latents and tokens divide without a rest: no row is padded or cropped."""
    for table in (TABLE, Table(patch=4)):
        for name in table.images:
            resolution, latent = table[name].resolution, table.latent_shape(name)
            assert resolution is not None
            assert table.side(name) * resolution == table.footprint
            assert latent[1] * table.stride == table.side(name)
            assert table.tokens(name) * table.patch**2 == latent[1] * latent[2]


def test_another_footprint_is_another_table() -> None:
    """COP-GEN-Beta's 2560 m with the rows that divide it."""
    beta = Table(rows=TABLE.subset(["s1rtc", "s2l1c_10m", "s2l2a_10m"]).rows, footprint=2560, latent_channels=4)
    assert [beta.pixel_shape(name) for name in beta.names] == [(2, 256, 256), (4, 256, 256), (4, 256, 256)]
    assert beta.latent_shape("s1rtc") == (4, 32, 32)
    assert beta.sequence_length == 3 * (1 + 256)


def test_pixels_that_do_not_fill_a_footprint_are_refused() -> None:
    with pytest.raises(ValueError, match=r"dem: its pixels of 30 m don't fill a footprint of 2560 m; choose a multiple of 30 m"):
        Table(footprint=2560).side("dem")
    assert Table(footprint=2560).side("s2l2a_20m") == 128


def test_place_and_date_have_no_grid() -> None:
    assert set(TABLE.names) - set(TABLE.images) == {"place", "date"}
    assert TABLE.layer_shape("place") == (2,)
    assert TABLE.layer_shape("date") == (1,)
    with pytest.raises(ValueError, match="place has no grid"):
        TABLE.side("place")


def test_names_are_unique_and_no_word_means_two_things() -> None:
    assert len(set(TABLE.names)) == len({row.released_as for row in ROWS}) == len(ROWS)
    for row in ROWS:
        assert row.rgb is None or set(row.rgb) <= set(row.bands)
        if row.legend:
            assert row.bands == (row.name,) or row.bands == (row.product,)
            assert len(row.legend.codes) == len(row.legend.names) == len(row.legend.colours) == len(set(row.legend.codes))


def test_a_thirteenth_row_is_one_line() -> None:
    ndvi = Modality("ndvi", "NDVI", ("NDVI",), Linear(10_000), 20, "DN")
    longer = replace(TABLE, rows=(*TABLE.rows, ndvi))
    assert longer.latent_shape("ndvi") == (8, 12, 12)
    assert longer.sequence_length == TABLE.sequence_length + 1 + 36
    assert longer.select("NDVI,dem") == ("dem", "ndvi")
    assert longer.subset(TABLE.names) == TABLE


def test_a_table_does_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        TABLE.footprint = 2560  # type: ignore[misc]
