"""Latents of the published pipeline are read as numpy wrote them, and nothing that a pickle asks for is done."""

from __future__ import annotations

import os
import pickle
import re
import struct
import subprocess
import sys
import tracemalloc
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import tiny_codec
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from typer.testing import CliRunner

from copgen.bulk.encode import Codecs
from copgen.cli import app
from copgen.files import sha256
from copgen.latents.pickles import Kind, array_from, arrays_in
from copgen.majortom.grid import centre_of, names_of
from copgen.modalities import TABLE, THUMBNAILS
from copgen.shards import open_shards
from copgen.store import save_codec
from copgen.training.backbone import check_moments
from copgen.training.encode import check_codecs

lmdb = pytest.importorskip("lmdb")
from copgen.latents.lmdb import import_lmdb, read_cells, table_in  # noqa: E402

FLOATS = st.sampled_from([np.float16, np.float32, np.float64])


# Pickles


@given(FLOATS.flatmap(lambda kind: arrays(kind, array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))), st.sampled_from([3, 4, 5]),
       st.sampled_from(["C", "F", "every other"]), st.booleans())
def test_what_numpy_pickled_is_read_as_it_was(array: np.ndarray, protocol: int, layout: str, swapped: bool) -> None:
    array = array.astype(array.dtype.newbyteorder(">" if swapped else "<"))
    array = np.asfortranarray(array) if layout == "F" else array[..., ::2] if layout == "every other" and array.ndim else array
    for value in (array, {"DEM_DEM": array, "LULC_LULC": np.asarray(array + 1)}):
        found, expected = arrays_in(pickle.dumps(value, protocol)), value
        for name in expected if isinstance(expected, dict) else [...]:
            assert found[name].dtype == expected[name].dtype and found[name].shape == expected[name].shape
            np.testing.assert_array_equal(found[name], expected[name])


def as_numpy_1(data: bytes) -> bytes:
    """The same pickle as numpy 1 writes it, whose modules have no underscore: lengths of names and of the frame are one less."""
    old = data.replace(b"\x8c\x13numpy._core.numeric", b"\x8c\x12numpy.core.numeric")
    frame = struct.unpack("<Q", old[3:11])[0] - (len(data) - len(old))
    return old[:3] + struct.pack("<Q", frame) + old[11:]


def test_pickles_of_an_older_numpy_are_read_too() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    old = as_numpy_1(pickle.dumps(array, -1))
    assert b"numpy.core.numeric" in old
    with warnings.catch_warnings(action="ignore"):
        np.testing.assert_array_equal(pickle.loads(old), array)
    np.testing.assert_array_equal(arrays_in(old), array)


class Runs:
    """Pickles as a call of a function, which unpickling makes."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


def made_by_hand(*parts: bytes) -> bytes:
    return b"\x80\x05" + b"".join(parts) + b"."


NAME = b"\x8c\x13numpy._core.numeric\x8c\x0b_frombuffer\x93"
DTYPE = b"\x8c\x05numpy\x8c\x05dtype\x93\x8c\x02f4\x89\x88\x87R(K\x03\x8c\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
HUGE = struct.pack("<Q", 2**60)
FLOAT = np.float32(1)
HOSTILE: Mapping[str, bytes] = {
    "a command": pickle.dumps(Runs(os.system, "touch ran"), -1),
    "a command, old protocol": pickle.dumps(Runs(os.system, "touch ran"), 0),
    "a process": pickle.dumps(Runs(subprocess.check_call, ["touch", "ran"]), -1),
    "an expression": pickle.dumps(Runs(eval, "open('ran', 'w')"), 4),
    "a command among arrays": pickle.dumps({"DEM_DEM": np.zeros(3, np.float32), "LULC_LULC": Runs(os.system, "touch ran")}, -1),
    "a command as a name": pickle.dumps({Runs(os.system, "touch ran"): np.zeros(3, np.float32)}, -1),
    "a command as a shape": made_by_hand(NAME, b"(\x96", struct.pack("<Q", 4), b"abcd", DTYPE, b"cposix\nsystem\n\x8c\x09touch ran\x85R",
                                         b"\x8c\x01CtR"),
    "an object array": pickle.dumps(np.array([Runs(os.system, "touch ran")], object), -1),
    "another of numpy's functions": pickle.dumps(Runs(np.load, "ran"), -1),
    "an attribute of a module": made_by_hand(b"\x8c\x05numpy\x8c\x0bos.listdir.\x93"),
    "a name by extension": made_by_hand(b"\x82\x01"),
    "a persistent name": made_by_hand(b"\x8c\x01aQ"),
    "an instance": b"(i__main__\nRuns\n.",
    "bytes that are claimed": made_by_hand(b"\x96", HUGE),
    "bytes that are claimed, within a frame": b"\x80\x05\x95" + HUGE + b"\x8e" + HUGE + b".",
    "an array that is claimed": made_by_hand(NAME, b"(\x96", struct.pack("<Q", 4), b"abcd", DTYPE, b"J\xff\xff\xff\x7f\x85\x8c\x01CtR"),
    "an array of a claimed number of bits": made_by_hand(NAME, b"(\x96", struct.pack("<Q", 4), b"abcd",
                                                         DTYPE.replace(b"\x8c\x02f4", b"\x8c\x0cV99999999999"), b"K\x01\x85\x8c\x01CtR"),
    "tuples of tuples": made_by_hand(b")", b"\x94h\x00h\x00\x86" * 1, *(b"\x94h" + bytes([k]) + b"h" + bytes([k]) + b"\x86"
                                                                          for k in range(1, 60))),
    "a long number": b"I" + b"9" * 100_000 + b"\n.",
    "nothing": b"", "an end": b".", "no end": pickle.dumps(np.zeros(3, np.float32), -1)[:-1], "noise": bytes(range(256)),
    "more after the end": pickle.dumps(np.zeros(3, np.float32), -1) + pickle.dumps(Runs(os.system, "touch ran"), -1),
    "half": pickle.dumps(np.zeros(300, np.float32), -1)[:600],
    "a mark too many": made_by_hand(b"(("), "a mark too few": made_by_hand(b"tR"),
    "an array never built": made_by_hand(b"\x8c\x16numpy._core.multiarray\x8c\x0c_reconstruct\x93\x8c\x05numpy\x8c\x07ndarray\x93"
                                         b"K\x00\x85C\x01b\x87R"),
    "a scalar": pickle.dumps(FLOAT, -1), "a list": pickle.dumps([np.zeros(3, np.float32)], -1), "text": pickle.dumps("text", -1),
    "whole numbers": pickle.dumps(np.arange(3), -1), "a structure": pickle.dumps(np.zeros(2, [("a", "f4")]), -1),
    "a dictionary of dictionaries": pickle.dumps({"a": {"b": np.zeros(3, np.float32)}}, -1),
}


WATCHED: list[list[str]] = []                    # lists of what the interpreter does meanwhile
sys.addaudithook(lambda event, _: [seen.append(event) for seen in WATCHED] and None)


def test_what_the_hostile_pickles_do_would_be_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    WATCHED.append([])
    try:
        pickle.loads(HOSTILE["a command"])
    finally:
        seen = WATCHED.pop()
    assert {"pickle.find_class", "os.system"} <= set(seen) and (tmp_path / "ran").exists()


@pytest.mark.parametrize("what", HOSTILE)
def test_all_else_is_refused_and_none_of_it_done(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is imported, opened, compiled or run, and no memory taken that the pickle does not have itself."""
    monkeypatch.chdir(tmp_path)
    tracemalloc.start()
    WATCHED.append([])
    try:
        with pytest.raises(ValueError) as refused:
            arrays_in(HOSTILE[what])
    finally:
        seen, peak = WATCHED.pop(), tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert re.search(r"not an array of numbers as numpy pickles it, at byte \d+: .+; it was not unpickled", str(refused.value))
    assert seen == [] and not list(tmp_path.iterdir()) and peak < 2**20


@given(st.data())
def test_a_pickle_with_any_byte_changed_is_read_as_numbers_or_refused(data: st.DataObject) -> None:
    """Never anything but arrays or ValueError."""
    pickled = bytearray(pickle.dumps({"DEM_DEM": np.arange(4, dtype=np.float32), "b": np.arange(2.0)[:, None][::1].T}, -1))
    for _ in range(data.draw(st.integers(1, 3))):
        pickled[data.draw(st.integers(0, len(pickled) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = arrays_in(bytes(pickled))
    except ValueError:
        return
    assert all(array.dtype.kind == "f" for array in (found.values() if isinstance(found, dict) else [found]))


def test_bare_bytes_are_the_numbers_of_an_array_of_unknown_shape() -> None:
    """As the published thumbnail pipeline has them: a dictionary of bytes; alone, or of another length, they are nothing."""
    array = np.random.default_rng(0).standard_normal((8, 4, 4)).astype("<f4")
    for protocol in (3, 4, 5):
        found = arrays_in(pickle.dumps({"DEM_thumbnail": array.tobytes(), "S1RTC_thumbnail": array}, protocol))
        assert np.array_equal(found["DEM_thumbnail"], array.ravel()) and np.array_equal(found["S1RTC_thumbnail"], array)
        assert isinstance(found, dict) and not found["DEM_thumbnail"].flags.writeable
        for value in (array.tobytes(), {"DEM_thumbnail": array.tobytes()[:-1]}, {"DEM_thumbnail": {"a": array.tobytes()}}):
            with pytest.raises(ValueError, match="it was not unpickled"):
                arrays_in(pickle.dumps(value, protocol))


# Databases


CELLS = ("618U_30L", "573U_120R", "38D_378R")
KEYS = sorted(f"{cell}_patch_{patch}" for cell in CELLS for patch in (0, 7, 35))
LACKING = {("573U_120R_patch_7", "s1rtc")}


def moments(key: str, row: str) -> np.ndarray:
    z, height, width = TABLE.latent_shape(row)
    rng = np.random.default_rng([KEYS.index(key), TABLE.names.index(row)])
    mean, log_variance = rng.standard_normal((2, z, height, width)) * [[[[1]]], [[[20]]]]
    return np.concatenate([mean, log_variance]).astype(np.float32)


def write_lmdb(folder: Path, values: Mapping[str, Any]) -> Path:
    folder.mkdir(parents=True)
    with lmdb.open(str(folder), map_size=2**28) as environment, environment.begin(write=True) as transaction:
        for key, value in values.items():
            transaction.put(key.encode(), value if isinstance(value, bytes) else pickle.dumps(value, -1))
    return folder


def merged(folder: Path) -> Path:
    rows = {row: TABLE[row].released_as for row in TABLE.images}
    return write_lmdb(folder, {key: {name: moments(key, row) for row, name in rows.items() if (key, row) not in LACKING} for key in KEYS})


def one_a_row(folder: Path) -> Path:
    for row in TABLE.images:
        write_lmdb(folder / TABLE[row].released_as, {key: moments(key, row) for key in KEYS if (key, row) not in LACKING})
    return folder


@pytest.mark.parametrize("make", [merged, one_a_row])
def test_latents_come_out_as_they_were_encoded(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make(tmp_path / "lmdb")
    monkeypatch.setattr(pickle, "loads", lambda *_: pytest.fail("unpickles"))
    imported = import_lmdb(source, tmp_path / "out", TABLE, per_shard=4)
    shards = open_shards(tmp_path / "out")
    assert shards.counts.tolist() == [4, 4, 1] and imported.not_finite == {}
    assert imported.rows == {row: 0 if row == "date" else 9 for row in TABLE.names} | {"s1rtc": 8}
    check_moments(shards, TABLE)
    read, present = shards.read(TABLE.names, np.arange(9)), shards.present(TABLE.names, np.arange(9))
    for k, key in enumerate(KEYS):
        for column, row in enumerate(TABLE.images, start=2):
            there = (key, row) not in LACKING
            mean, log_variance = np.split(moments(key, row), 2)
            expected = np.concatenate([mean, log_variance.clip(-30, 20)]).astype(np.float16)
            assert present[k, column] == there
            np.testing.assert_array_equal(read[row][k], expected if there else 0)
    assert not present[:, 1].any() and not read["date"].any()


def test_places_are_the_true_centres_of_the_patches_and_samples_say_whose_they_are(tmp_path: Path) -> None:
    import_lmdb(merged(tmp_path / "lmdb"), tmp_path / "out", TABLE)
    read = open_shards(tmp_path / "out").read(("place", "cell", "patch"), np.arange(9))
    place = TABLE["place"].scale.to_physical(read["place"])
    assert [f"{cell}_patch_{patch}" for cell, patch in zip(names_of(*read["cell"].T.astype(np.int64)), read["patch"], strict=True)] == KEYS
    for cell in CELLS:
        (first,), (last,) = (place[[KEYS.index(f"{cell}_patch_{patch}")]] for patch in (0, 35))
        lat, lon = centre_of(cell)
        assert first[0] > lat > last[0] and first[1] < lon < last[1]                 # row 0 is north, column 0 west
        metres = np.hypot((first[0] - last[0]) * 111_195, (first[1] - last[1]) * 111_195 * np.cos(np.radians(lat)))
        assert metres == pytest.approx(np.hypot(8760, 8760), rel=5e-3)               # not 5/6 of a cell, as the published cache has it


@pytest.mark.parametrize("form", ["npz", "pkl", "parquet"])
def test_dates_come_from_a_file_beside(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    days = {"618U_30L": "2021-07-23", "38D_378R": "2020-02-29"}
    path = tmp_path / f"dates.{form}"
    if form == "npz":
        np.savez(path, cells=np.array(list(days)), dates=np.array(list(days.values()), "datetime64[D]"), crs=np.array(["EPSG:32630", ""]))
    elif form == "parquet":                      # as `copgen download` leaves one
        pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        dated = [np.datetime64(day).item() for day in days.values()]
        pq.write_table(pa.table({"cell": [*days, "0U_0R"], "crs": ["EPSG:32630", None, "EPSG:32630"],
                                 "date": pa.array([*dated, None], pa.date32())}), path)
    else:
        vectors = TABLE["date"].scale.to_model(np.array(list(days.values()), "datetime64[D]")[:, None]).reshape(-1, 3)
        path.write_bytes(pickle.dumps(dict(zip(days, vectors, strict=True))))
    monkeypatch.setattr(pickle, "loads", lambda *_: pytest.fail("unpickles"))
    import_lmdb(merged(tmp_path / "lmdb"), tmp_path / "out", TABLE, about=path)
    shards = open_shards(tmp_path / "out")
    found = TABLE["date"].scale.to_physical(shards.read(("date",), np.arange(9))["date"])[:, 0].astype(str)
    there = shards.present(("date",), np.arange(9))[:, 0]
    for k, key in enumerate(KEYS):
        assert there[k] == (key[: key.index("_patch")] in days) and (not there[k] or found[k] == days[key[: key.index("_patch")]])


def test_an_import_that_was_killed_goes_on_and_ends_with_the_same_bytes(tmp_path: Path) -> None:
    source = merged(tmp_path / "lmdb")
    import_lmdb(source, tmp_path / "whole", TABLE, per_shard=2)

    def killed(done: int, _: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_lmdb(source, tmp_path / "killed", TABLE, per_shard=2, progress=killed)
    with pytest.raises(ValueError, match=r"is not finished, it has shards but no index.json; run the command that writes these"):
        open_shards(tmp_path / "killed")
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "killed").glob("*.safetensors")}
    import_lmdb(source, tmp_path / "killed", TABLE, per_shard=2)
    assert len(kept) == 2 and all((tmp_path / "killed" / name).stat().st_mtime_ns == when for name, when in kept.items())
    assert {path.name: path.read_bytes() for path in (tmp_path / "killed").iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    with pytest.raises(ValueError, match="holds latents of per_shard = 2, not 3; choose another folder"):
        import_lmdb(source, tmp_path / "killed", TABLE, per_shard=3)
    before = {path.name: path.read_bytes() for path in (tmp_path / "killed").iterdir() if path.name != "plan.json"}
    (tmp_path / "killed" / "plan.json").unlink()         # shards that anybody may have written
    with pytest.raises(ValueError, match="killed: holds shards that something else wrote"):
        import_lmdb(source, tmp_path / "killed", TABLE, per_shard=3)
    assert {path.name: path.read_bytes() for path in (tmp_path / "killed").iterdir()} == before


def test_latents_that_are_no_numbers_are_absent_and_counted(tmp_path: Path) -> None:
    bad = moments(KEYS[0], "dem")
    bad[3, 0, 0] = np.nan
    source = write_lmdb(tmp_path / "DEM_DEM", {KEYS[0]: bad, KEYS[1]: moments(KEYS[1], "dem")})
    imported = import_lmdb(source, tmp_path / "out", TABLE)
    assert imported.not_finite == {"dem": 1} and imported.rows["dem"] == 1 and imported.rows["lulc"] == 0
    shards = open_shards(tmp_path / "out")
    assert shards.present(("dem",), np.arange(2))[:, 0].tolist() == [False, True]
    assert not shards.read(("dem",), np.array([0]))["dem"].any()


def test_latents_of_thumbnails_are_taken_over(tiny_thumbnails: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys are the names of files, values bare bytes, and some patches are the one in the middle; which table they are of is seen."""
    rng, keys = np.random.default_rng(1), ["573U_120R_0.npy", "573U_120R_15.npy", "618U_30L_7.npy", "618U_30L_center.npy"]
    values = {key: {row.name.replace(row.product.lower(), row.product): rng.standard_normal((8, 32, 32)).astype(np.float32)
                    for row in THUMBNAILS.rows} for key in keys}
    assert list(values[keys[0]]) == ["DEM_thumbnail", "S1RTC_thumbnail", "S2L1C_thumbnail", "S2L2A_thumbnail"]
    source = write_lmdb(tmp_path / "train", {key: {name: array.tobytes() for name, array in some.items()} for key, some in values.items()})
    monkeypatch.setattr(pickle, "loads", lambda *_: pytest.fail("unpickles"))
    assert table_in(source) is THUMBNAILS and table_in(merged(tmp_path / "other")) is TABLE
    codecs = Codecs(THUMBNAILS, dict.fromkeys(THUMBNAILS.images, tmp_path / "rgb"))
    save_codec(tiny_codec(3, latent_channels=4), tmp_path / "rgb")
    import_lmdb(source, tmp_path / "out", THUMBNAILS, codecs=codecs, per_shard=3)
    shards, rows = open_shards(tmp_path / "out"), THUMBNAILS.names
    check_moments(shards, THUMBNAILS)
    check_codecs(shards, tmp_path, lambda row: "rgb")
    read = shards.read((*rows, "cell", "patch"), np.arange(4))
    for row, name in zip(rows, values[keys[0]], strict=True):
        np.testing.assert_array_equal(read[row], np.stack([values[key][name] for key in keys]).astype(np.float16))
    assert read["patch"].tolist() == [0, 15, 7, 16]
    assert names_of(*read["cell"].T.astype(np.int64)).tolist() == [key.rsplit("_", 1)[0] for key in keys]
    for k, vaes in enumerate((tmp_path / "rgb", tiny_thumbnails)):       # the shared codec's own folder, or the model's
        done = CliRunner().invoke(app, ["latents", "import", str(source), "--out", f"{tmp_path}/{k}", "--vaes", str(vaes)])
        assert done.exit_code == 0 and "4 samples; rows they have: dem_thumbnail 4" in done.output
        assert set(open_shards(tmp_path / str(k)).meta["codecs"].values()) == {sha256(next(vaes.rglob("codec.safetensors")))}
    with pytest.raises(ValueError, match="holds latents of dem_thumbnail, of which these codecs are none; name the model"):
        import_lmdb(source, tmp_path / "other's", THUMBNAILS, codecs=Codecs(TABLE, dict.fromkeys(TABLE.images, tmp_path / "rgb")))
    with pytest.raises(ValueError, match=r"key b'618U_30L_16.npy': is not a patch of a cell"):
        import_lmdb(write_lmdb(tmp_path / "beyond", {"618U_30L_16.npy": values[keys[0]]}), tmp_path / "none", THUMBNAILS)
    with pytest.raises(ValueError, match=r"s1rtc_thumbnail has moments \[8000\], the recipe's table \[8, 32, 32\]"):
        import_lmdb(write_lmdb(tmp_path / "short", {keys[0]: {"S1RTC_thumbnail": bytes(32_000)}}), tmp_path / "nothing", THUMBNAILS)


def test_the_square_in_a_cells_middle_has_its_place_too(tmp_path: Path) -> None:
    found = {f"{CELLS[0]}_{patch}": moments(KEYS[0], "dem") for patch in ("center", "patch_0", "patch_35")}
    import_lmdb(write_lmdb(tmp_path / "DEM_DEM", found), tmp_path / "out", TABLE)
    place = TABLE["place"].scale.to_physical(open_shards(tmp_path / "out").read(("place",), np.arange(3))["place"])
    np.testing.assert_allclose(place[0], place[1:].mean(0), atol=1e-4)


@pytest.mark.parametrize("key, value, said", [
    (KEYS[0], Runs(os.system, "touch ran"), r"DEM_DEM: 38D_378R_patch_0: not an array .+ the name posix.system, which is none of numpy's"),
    (KEYS[0], {"DEM_DEM": np.zeros((16, 8, 8), np.float32)}, r"holds one array in a database of all rows, or a dictionary in that of one"),
    (KEYS[0], np.zeros((16, 8, 9), np.float32), r"38D_378R_patch_0: dem has moments \[16, 8, 9\], the recipe's table \[16, 8, 8\]"),
    (KEYS[0], b"PK\x03\x04zip", r"is a zipped Zarr array, which is not read"),
    ("../../etc", np.zeros((16, 8, 8), np.float32), r"key b'../../etc': is not a patch of a cell, such as 618U_30L_patch_7"),
    ("618U_30L_patch_36", np.zeros((16, 8, 8), np.float32), r"is not a patch of a cell"),
    ("9999U_30L_patch_3", np.zeros((16, 8, 8), np.float32), r"Major TOM's grid has none of this name")])
def test_values_and_keys_that_are_none_end_the_import_in_one_sentence(key: str, value: Any, said: str, tmp_path: Path,
                                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_lmdb(tmp_path / "DEM_DEM", {key: value})
    monkeypatch.setattr(os, "system", lambda *_: pytest.fail("runs"))
    with pytest.raises(ValueError, match=said):
        import_lmdb(source, tmp_path / "out", TABLE)
    assert not list((tmp_path / "out").glob("*.safetensors"))


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no LMDB, neither data.mdb itself nor folders with one"):
        import_lmdb(tmp_path, tmp_path / "out", TABLE)
    for name in ("DEM_DEM", "strange"):
        write_lmdb(tmp_path / "two" / name, {KEYS[0]: moments(KEYS[0], "dem")})
    with pytest.raises(ValueError, match=r"no row is called 'strange' in the released weights; there are: .*DEM_DEM"):
        import_lmdb(tmp_path / "two", tmp_path / "out", TABLE)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "data.mdb").write_bytes(b"no database at all" * 1000)
    with pytest.raises(ValueError, match=r"broken: could not be read as LMDB \(.+\); copy it again"):
        import_lmdb(tmp_path / "broken", tmp_path / "out", TABLE)
    (tmp_path / "dates.npz").write_bytes(b"PK\x03\x04nothing")
    with pytest.raises(ValueError, match=r"dates.npz: says nothing of cells that can be read"):
        import_lmdb(tmp_path / "two" / "DEM_DEM", tmp_path / "dated", TABLE, about=tmp_path / "dates.npz")
    np.savez(tmp_path / "crs.npz", cells=np.array(["618U_30L"]), crs=np.array(["EPSG:banana"]))
    with pytest.raises(ValueError, match=r"crs.npz: says nothing of cells that can be read \(the CRS EPSG:banana, which is not like"):
        import_lmdb(tmp_path / "two" / "DEM_DEM", tmp_path / "dated", TABLE, about=tmp_path / "crs.npz")


def test_a_buffer_that_is_recalled_often_is_not_copied() -> None:
    buffer = bytearray(np.arange(6, dtype="<f4").tobytes())
    arrays = [array_from(buffer, Kind("f4", "<"), (2, 3), False) for _ in range(2)]
    assert np.shares_memory(*arrays) and not arrays[0].flags.writeable and arrays[0].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_cells_that_unpack_to_too_much_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "bomb.npz", cells=np.zeros(200_000))
    monkeypatch.setattr("copgen.latents.lmdb.LARGEST", 100_000)
    with pytest.raises(ValueError, match="arrays of more than 100000 bytes, once unpacked"):
        read_cells(tmp_path / "bomb.npz")
    monkeypatch.setattr("copgen.latents.lmdb.LARGEST", 100)
    with pytest.raises(ValueError, match="have at most 100"):
        read_cells(tmp_path / "bomb.npz")
