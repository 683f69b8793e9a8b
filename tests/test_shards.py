"""Shards are written once, whole, and read as they were written; a writer that was killed goes on where it stopped."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from conftest import TINY, tiny_codec
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from copgen.shards import OPEN, PRESENT, Mapped, Mixed, Shards, digest, finish, length_of, open_shards, write_shard, write_shards
from copgen.training.encode import encode, moments_of
from copgen.training.sources import Stored, Worlds, counts_of, having, open_source, pack, packed_layers, unpack

META = {"kind": "test", "rows": ["a", "b"]}
ROWS = ("a", "b")


def numbers_as_arrays(numbers: range) -> Mapping[str, np.ndarray]:
    n = np.array(numbers)
    return {"a": n[:, None, None] * np.ones((1, 2, 3), np.float32), "b": n.astype(np.int32)}


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    return {file.name: (file.stat().st_mtime_ns, file.stat().st_ino) for file in sorted(folder.glob("shard-*"))}


@pytest.mark.parametrize(("samples", "per_shard", "files"), [(7, 3, 3), (6, 3, 2), (2, 5, 1), (1, 1, 1)])
def test_samples_are_read_as_they_were_written_in_any_order(tmp_path: Path, samples: int, per_shard: int, files: int) -> None:
    seen: list[tuple[int, int]] = []
    write_shards(tmp_path, samples, numbers_as_arrays, per_shard=per_shard, meta=META, progress=lambda *counts: seen.append(counts))
    shards = open_shards(tmp_path)
    assert len(shards) == samples and len(stamps(tmp_path)) == files
    assert shards.meta == META
    assert seen[-1] == (samples, samples) and seen == sorted(seen)
    order = np.random.default_rng(0).permutation(samples)
    read = shards.read(ROWS, order)
    expected = numbers_as_arrays(range(samples))
    for row in ROWS:
        np.testing.assert_array_equal(read[row], expected[row][order])
        assert read[row].dtype == expected[row].dtype
    assert shards.read(("b",), np.array([0, 0])).keys() == {"b"}


def test_a_writer_that_was_killed_goes_on_with_what_is_missing(tmp_path: Path) -> None:
    made: list[range] = []

    def killed_at_the_third(numbers: range) -> Mapping[str, np.ndarray]:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(numbers)
        return numbers_as_arrays(numbers)

    with pytest.raises(KeyboardInterrupt):
        write_shards(tmp_path, 10, killed_at_the_third, per_shard=2, meta=META)
    with pytest.raises(ValueError, match=r"shard-00002.safetensors is missing; run the command that writes these"):
        open_shards(tmp_path)
    before, made = stamps(tmp_path), []
    shards = write_shards(tmp_path, 10, lambda numbers: (made.append(numbers), numbers_as_arrays(numbers))[1], per_shard=2, meta=META)
    assert made == [range(4, 6), range(6, 8), range(8, 10)]
    assert before.items() <= stamps(tmp_path).items()
    assert shards.read(("b",), np.arange(10))["b"].tolist() == list(range(10))


@pytest.mark.parametrize("damage", ["truncated", "empty", "short", "no shard"])
def test_a_damaged_shard_is_written_again_and_no_other(tmp_path: Path, damage: str) -> None:
    write_shards(tmp_path, 6, numbers_as_arrays, per_shard=2, meta=META)
    path, before = tmp_path / "shard-00001.safetensors", stamps(tmp_path)
    data = path.read_bytes()
    short = tmp_path / "short"
    write_shards(short, 1, numbers_as_arrays, per_shard=1, meta=META)
    damaged = {"truncated": data[:-5], "empty": b"", "short": (short / "shard-00000.safetensors").read_bytes(), "no shard": b"x" * 99}
    path.write_bytes(damaged[damage])
    shards = write_shards(tmp_path, 6, numbers_as_arrays, per_shard=2, meta=META)
    assert path.read_bytes() == data
    after = stamps(tmp_path)
    assert all(after[name] == before[name] for name in before if name != path.name)
    assert shards.read(("b",), np.arange(6))["b"].tolist() == list(range(6))


def test_a_shard_that_went_bad_is_refused_when_it_is_read(tmp_path: Path) -> None:
    shards = write_shards(tmp_path, 4, numbers_as_arrays, per_shard=2, meta=META)
    path = tmp_path / "shard-00001.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match=r"shard-00001.safetensors: is damaged or gone"):
        shards.read(("a",), np.array([3]))


def test_a_shard_written_again_is_read_again(tmp_path: Path) -> None:
    """No reader keeps what a file no longer holds."""
    first = write_shards(tmp_path, 2, numbers_as_arrays, per_shard=2, meta=META)
    assert first.read(("b",), np.array([1]))["b"].tolist() == [1]
    (tmp_path / "shard-00000.safetensors").unlink()
    second = write_shards(tmp_path, 2, lambda numbers: {"b": np.array(numbers, np.int32) + 50}, per_shard=2, meta=META)
    assert second.read(("b",), np.array([1]))["b"].tolist() == [51]


def test_shards_can_grow(tmp_path: Path) -> None:
    write_shards(tmp_path, 5, numbers_as_arrays, per_shard=2, meta=META)
    before = stamps(tmp_path)
    shards = write_shards(tmp_path, 8, numbers_as_arrays, per_shard=2, meta=META)
    assert shards.read(("b",), np.arange(8))["b"].tolist() == list(range(8))
    assert stamps(tmp_path)["shard-00001.safetensors"] == before["shard-00001.safetensors"]


@pytest.mark.parametrize(("per_shard", "meta"), [(2, {"kind": "other"}), (3, META)])
def test_shards_of_other_things_are_refused_and_kept(tmp_path: Path, per_shard: int, meta: dict) -> None:
    write_shards(tmp_path, 4, numbers_as_arrays, per_shard=2, meta=META)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=r"holds shards made with .*; choose another folder"):
        write_shards(tmp_path, 4, numbers_as_arrays, per_shard=per_shard, meta=meta)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_shards_of_an_unknown_writer_are_refused_and_kept(tmp_path: Path) -> None:
    path = write_shard(tmp_path, 0, numbers_as_arrays(range(2)))
    before = path.read_bytes()
    with pytest.raises(ValueError, match="something else wrote"):
        write_shards(tmp_path, 2, lambda numbers: numbers_as_arrays(range(5, 7)), per_shard=2, meta=META)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_digest_is_of_every_bit_name_type_and_shape() -> None:
    first = {"a": np.zeros((2, 3), np.float16), "b": np.ones((2, 0), np.float32)}
    other = np.zeros((2, 3), np.float16)
    other[1, 2] = -0.0                           # one bit
    several = [first, {**first, "a": other}, {**first, "a": np.zeros((3, 2), np.float16)}, {**first, "a": np.zeros((2, 3), np.int16)},
               {"c": first["a"], "b": first["b"]}]
    assert len({digest(arrays) for arrays in several}) == len(several)
    assert digest(dict(reversed(first.items()))) == digest(first)


def test_a_full_disk_leaves_no_half_a_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shards(tmp_path, 2, numbers_as_arrays, per_shard=2, meta=META)

    def full(descriptor: int) -> None:
        if os.fstat(descriptor).st_size > 150:                                       # the index still fits
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ValueError, match=r"shard-00001.safetensors: could not be written \(No space left on device\)"):
        write_shards(tmp_path, 6, numbers_as_arrays, per_shard=2, meta=META)
    monkeypatch.undo()
    assert {file.name for file in tmp_path.iterdir()} == {"index.json", "shard-00000.safetensors"}
    assert len(write_shards(tmp_path, 6, numbers_as_arrays, per_shard=2, meta=META)) == 6


@pytest.mark.parametrize("index", [None, "", "{}", "[]", "null", '{"samples": 2, "per_shard": 0, "meta": {}}',
                                   '{"samples": "x", "per_shard": 1, "meta": {}}', '{"samples": 2, "per_shard": 1, "meta": 3}'])
def test_a_folder_without_a_readable_index_is_refused(tmp_path: Path, index: str | None) -> None:
    if index is not None:
        (tmp_path / "index.json").write_text(index)
    with pytest.raises(ValueError, match=r"no readable index.json; make the shards first"):
        open_shards(tmp_path)


# Shards of unequal numbers of samples


COUNTS = (3, 0, 5, 1, 0)


def unequal(folder: Path, counts: Sequence[int] = COUNTS, **meta: object) -> Shards:
    starts = np.cumsum([0, *counts])
    for k, (start, stop) in enumerate(pairwise(starts.tolist())):
        write_shard(folder, k, numbers_as_arrays(range(start, stop)))
    return finish(folder, counts, META | meta)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=6).filter(any), st.data())
def test_samples_of_unequal_shards_are_read_in_any_order_and_as_often_as_asked(counts: list[int], data: st.DataObject) -> None:
    with TemporaryDirectory() as folder:
        shards = unequal(Path(folder), counts)
        assert len(shards) == sum(counts) and shards.counts.tolist() == counts
        numbers = np.array(data.draw(st.lists(st.integers(0, sum(counts) - 1), min_size=1, max_size=12)))
        read, expected = shards.read(ROWS, numbers), numbers_as_arrays(range(sum(counts)))
        for row in ROWS:
            np.testing.assert_array_equal(read[row], expected[row][numbers])
            assert read[row].dtype == expected[row].dtype and read[row].flags.writeable
        assert shards.read(ROWS, numbers[:0]) == {}


@pytest.mark.parametrize("number", [-1, 9, 10**9])
def test_a_number_that_no_sample_has_is_refused(tmp_path: Path, number: int) -> None:
    with pytest.raises(IndexError, match=rf"{number} of 9"):
        unequal(tmp_path).read(("a",), np.array([number]))
    with pytest.raises(IndexError, match="of 9"):
        Mixed([open_shards(tmp_path)], [1]).read(("a",), np.array([3, number]))


def test_each_shard_is_opened_once_and_no_more_than_so_many_stay_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = [2] * (OPEN + 6)
    shards, made = unequal(tmp_path, counts), []
    monkeypatch.setattr(Mapped, "__init__", lambda self, path, real=Mapped.__init__: (made.append(path.name), real(self, path))[1])
    order = np.random.default_rng(0).permutation(len(shards))
    assert shards.read(("b",), order)["b"].tolist() == order.tolist()
    assert sorted(made) == sorted(f"shard-{k:05d}.safetensors" for k in range(len(counts)))
    if Path("/proc/self/fd").is_dir():
        there = [str(file.readlink()) for file in Path("/proc/self/fd").iterdir() if file.is_symlink()]
        assert 0 < sum(str(tmp_path) in file for file in there) <= 2 * OPEN


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is looked up in /proc")
def test_a_reader_keeps_no_more_than_it_was_asked_for(tmp_path: Path) -> None:
    """Reading 64 MB sample by sample from all shards: neither the reader's own memory nor what it holds of the files grows with it."""
    def resident() -> int:
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return sum(int(status[name].split()[0]) for name in ("RssAnon", "RssFile"))

    for k in range(16):
        write_shard(tmp_path, k, {"a": np.full((64, 2**14), k, np.float32)})
    shards = finish(tmp_path, [64] * 16, META)
    shards.read(("a",), np.arange(0, 1024, 64))
    before = resident()
    for numbers in np.random.default_rng(0).permutation(1024).reshape(-1, 16):
        assert (shards.read(("a",), numbers)["a"][:, 7] == numbers // 64).all()
    assert resident() - before < 6 * 2**10                                          # kB, of 64 MB; a shard has 4 MB


def test_the_same_arrays_give_the_same_bytes_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = numbers_as_arrays(range(3))
    one = write_shard(tmp_path, 0, arrays).read_bytes()
    assert write_shard(tmp_path, 1, dict(reversed(arrays.items()))).read_bytes() == one
    assert length_of(tmp_path, 1) == 3 and length_of(tmp_path, 2) is None
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(ValueError, match=r"shard-00002.safetensors: could not be written"):
        write_shard(tmp_path, 2, arrays)
    assert {file.name for file in tmp_path.iterdir()} == {"shard-00000.safetensors", "shard-00001.safetensors"}
    with pytest.raises(ValueError, match=r"the arrays of a shard have one length, not \[2, 3\]"):
        write_shard(tmp_path, 2, arrays | {"a": np.zeros(2)})


def test_shards_without_an_index_are_not_finished(tmp_path: Path) -> None:
    write_shard(tmp_path, 0, numbers_as_arrays(range(3)))
    with pytest.raises(ValueError, match=r"is not finished, it has shards but no index.json; run the command that writes these"):
        open_shards(tmp_path)


@pytest.mark.parametrize("counts, said", [
    ((3, 0, 5, 1, 2), r"shard-00004.safetensors: holds 0 samples, not 2"), ((3, 0, 5, 1, 0, 4), r"shard-00005.safetensors: is missing"),
    ((), r"there is not one sample in its 0 shards")])
def test_an_index_says_only_what_the_shards_hold(tmp_path: Path, counts: tuple[int, ...], said: str) -> None:
    unequal(tmp_path)
    (tmp_path / "index.json").unlink()
    with pytest.raises(ValueError, match=said):
        finish(tmp_path, counts, META)
    assert not (tmp_path / "index.json").exists()


@pytest.mark.parametrize("counts", ["[3, 5]", "[-1, 10]", "[[9]]", '"nine"', "{}"])
def test_counts_that_contradict_the_samples_are_refused(tmp_path: Path, counts: str) -> None:
    unequal(tmp_path)
    (tmp_path / "index.json").write_text(f'{{"samples": 9, "counts": {counts}, "meta": {{}}}}')
    with pytest.raises(ValueError, match=r"no readable index.json"):
        open_shards(tmp_path)


@pytest.mark.parametrize("change", [
    lambda header: header["a"].update(data_offsets=[0, 10**12]), lambda header: header["a"].update(shape=[10**9, 10**9]),
    lambda header: header["a"].update(shape=[-1, 2, 3]), lambda header: header["a"].update(dtype="O"),
    lambda header: header["a"].update(data_offsets=[8, 80]), lambda header: header.pop("b"), lambda header: header["a"].pop("shape")])
def test_a_header_that_does_not_describe_the_file_is_refused(tmp_path: Path, change: Callable[[dict], object]) -> None:
    path = write_shard(tmp_path, 0, numbers_as_arrays(range(3)))
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[end:])
    assert length_of(tmp_path, 0) is None


def test_what_is_in_a_shard_is_what_safetensors_reads(tmp_path: Path) -> None:
    arrays = {"f16": np.ones((2, 3), np.float16), "f64": np.arange(4.0).reshape(2, 2), "u8": np.array([7, 8], np.uint8),
              "none": np.zeros((2, 0), np.float32), "b": np.array([True, False]), "i64": np.array([-5, 2**40])}
    path = write_shard(tmp_path, 0, arrays)
    theirs, ours = load_file(path), Mapped(path).arrays
    assert theirs.keys() == ours.keys() == arrays.keys()
    for name, array in arrays.items():
        for found in (theirs[name], ours[name]):
            assert found.dtype == array.dtype and found.shape == array.shape
            np.testing.assert_array_equal(found, array)


def test_shards_that_differ_in_kind_are_not_mixed_up(tmp_path: Path) -> None:
    write_shard(tmp_path, 0, {"b": np.zeros(2, np.float32)})
    write_shard(tmp_path, 1, {"b": np.zeros(2, np.float16)})
    with pytest.raises(ValueError, match=r"shard-00001.safetensors: b is float16 \[\] and elsewhere float32 \[\]; make the one again that"):
        finish(tmp_path, [2, 2], META).read(("b",), np.arange(4))


def test_presence_is_read_shard_by_shard(tmp_path: Path) -> None:
    """Of a million samples in a moment, mixed folders too: a file is opened once, not once a sample."""
    there = np.random.default_rng(0).integers(0, 2, (10, 100_000, 2), np.uint8)
    for k in range(10):
        write_shard(tmp_path, k, {PRESENT: there[k]})
    shards = finish(tmp_path, [100_000] * 10, META | {"incomplete": True})
    began = time.perf_counter()
    found = having(Stored(Mixed([shards], [2])), "b")
    print(f"presence of 2 million samples: {time.perf_counter() - began:.2f} s")
    expected = np.flatnonzero(there.reshape(-1, 2)[:, 1])
    np.testing.assert_array_equal(found, np.concatenate([expected, expected + 1_000_000]))
    assert counts_of(Stored(shards), expected).tolist() == there[:, :, 1].sum(1).tolist()
    assert time.perf_counter() - began < 5


# Layers as they are stored


def test_packed_layers_come_back_from_a_folder(tmp_path: Path) -> None:
    worlds = Worlds(0, 3, TINY)
    meta = {"kind": "layers", "source": worlds.name}
    write_shards(tmp_path, 3, lambda numbers: packed_layers(worlds, TINY, numbers), per_shard=2, meta=meta)
    stored = open_source(str(tmp_path), TINY)
    assert isinstance(stored, Stored) and len(stored) == 3 and stored.name == worlds.name == "synthetic:0..3"
    original, read = worlds.layers(TINY.names, [2, 0]), stored.layers(TINY.names, [2, 0])
    for name in TINY.names:
        if name.startswith("s2"):                                                   # DN are whole numbers, 0 being no data
            np.testing.assert_allclose(read[name], np.maximum(original[name], 1), rtol=0, atol=0.5)
        else:
            np.testing.assert_array_equal(read[name], original[name])


def test_a_row_that_was_not_stored_is_refused(tmp_path: Path) -> None:
    shards = write_shards(tmp_path, 2, numbers_as_arrays, per_shard=2, meta=META)
    with pytest.raises(ValueError, match=r"dem.*; it holds a, b"):
        shards.read(("a", "dem"), np.array([0]))


def test_a_folder_with_a_broken_index_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text("{")
    with pytest.raises(ValueError, match=r"index.json: could not be read"):
        write_shards(tmp_path, 2, numbers_as_arrays, per_shard=2, meta=META)
    assert (tmp_path / "index.json").read_text() == "{"


def test_packing_keeps_all_that_a_file_holds() -> None:
    assert pack(TINY["s2l2a_10m"], np.array([-3.0, 0, 1, 2.4, 2.6, 7e4])).tolist() == [1, 1, 1, 2, 3, 65_535]     # 0 is no data
    days = np.array([["1950-01-01"], ["2050-12-31"]], "datetime64[D]")
    np.testing.assert_array_equal(unpack(TINY["date"], pack(TINY["date"], days)), days)
    assert pack(TINY["lulc"], np.array([11.0])).dtype == np.uint8


def test_a_source_of_worlds_is_the_same_for_any_number_of_readers() -> None:
    one, two = Worlds(5, 8, TINY), open_source("synthetic:0..8", TINY)
    for name, layer in one.layers(("dem", "date"), [0, 2]).items():
        np.testing.assert_array_equal(layer, two.layers(("dem", "date"), [5, 7])[name])


@pytest.mark.parametrize("text", ["synthetic:5..5", "synthetic:5..2", "synthetic:a..b", "no/such/folder", "synthetic:-1..4"])
def test_a_source_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="--data"):
        open_source(text, TINY)


# Moments


def test_encoding_stores_the_codecs_moments(tmp_path: Path) -> None:
    table = TINY.subset(["place", "date", "dem", "s2l2a_60m"])
    codecs = {name: tiny_codec(TINY[name].channels) for name in table.images}
    worlds = Worlds(0, 3, table)
    shards = encode(worlds, codecs, table, tmp_path, per_shard=2)
    read, layers = shards.read(table.names, np.arange(3)), worlds.layers(table.names, range(3))
    for name in table.names:
        pixels = table[name].scale.to_model(layers[name])
        if name in codecs:
            direct = moments_of(worlds, codecs, table, range(3))[name]
            assert read[name].dtype == np.float16 and read[name].shape == (3, 16, *table.latent_shape(name)[1:])
            np.testing.assert_allclose(read[name].astype(float), direct.astype(float), rtol=2e-3, atol=2e-3)
        else:
            np.testing.assert_array_equal(read[name], pixels)
    made_before = stamps(tmp_path)
    encode(worlds, codecs, table, tmp_path, per_shard=2)
    assert stamps(tmp_path) == made_before
    with pytest.raises(ValueError, match="choose another folder"):
        encode(Worlds(1, 4, table), codecs, table, tmp_path, per_shard=2)
    assert json.loads((tmp_path / "index.json").read_text())["meta"]["source"] == "synthetic:0..3"
