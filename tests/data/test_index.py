import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from corpora import config, names_of, write

from vocoder.data import index as indexing
from vocoder.data.corpus import load_corpus, split
from vocoder.data.index import ByteStrings, build
from vocoder.data.listing import find


def test_holds_what_the_headers_say(corpus, tmp_path):
    write(corpus / "7.wav", 123, 16000)
    index = build(corpus, find(corpus, ["**/*"]))
    i = names_of(index).index("7.wav")
    assert (index.frames[i], index.sample_rate[i], index.channels[i]) == (123, 16000, 1)
    assert index.path(i) == str(corpus / "7.wav")


def test_cache_is_refreshed(corpus, tmp_path, opened):
    def look():
        opened.clear()
        return load_corpus(config(corpus, tmp_path))

    look()
    assert len(opened) == 6
    before = list((tmp_path / "cache").iterdir())
    stamp = before[0].stat().st_mtime_ns
    again = look()
    assert not opened and names_of(*again)[0] == "5.ogg"
    assert [p.stat().st_mtime_ns for p in (tmp_path / "cache").iterdir()] == [stamp]

    write(corpus / "a/1.wav", 555)
    write(corpus / "0.wav", 666)
    (corpus / "a/2.flac").unlink()
    sides = look()
    assert sorted(opened) == ["0.wav", "1.wav"]
    frames = {s.name(i): s.frames[i] for s in sides for i in range(len(s))}
    assert frames["a/1.wav"] == 555 and frames["0.wav"] == 666 and frames["5.ogg"] == 1004
    assert len(frames) == 6
    look()
    assert not opened


def test_every_changed_file_of_many_is_noticed(tmp_path, opened):
    root = tmp_path / "corpus"
    for i in range(200):
        write(root / f"{i:03d}.wav", 1000)
    names = ByteStrings.of(find(root, ["**/*"]))
    index = build(root, names, tmp_path / "index.npz")
    assert (index.size > 0).all() and (index.mtime_ns > 0).all() and len(opened) == 200
    opened.clear()
    for i in (0, 63, 64, 150, 199):
        write(root / f"{i:03d}.wav", 500)
    index = build(root, names, tmp_path / "index.npz")
    assert sorted(opened) == ["000.wav", "063.wav", "064.wav", "150.wav", "199.wav"]
    np.testing.assert_array_equal(np.flatnonzero(index.frames == 500), [0, 63, 64, 150, 199])


def test_a_cache_of_an_earlier_version_is_not_believed(corpus, tmp_path, opened):
    cache = tmp_path / "index.npz"
    names = ByteStrings.of(find(corpus, ["**/*"]))
    build(corpus, names, cache)
    with np.load(cache) as saved:
        kept = {key: saved[key] for key in saved if key != "version"}
    np.savez(cache, **kept | {"frames": kept["frames"] * 6})
    opened.clear()
    index = build(corpus, names, cache)
    assert len(opened) == 6 and index.frames.max() == 1005
    opened.clear()
    build(corpus, names, cache)
    assert not opened


def test_compressed_files_have_the_lengths_that_they_decode_to(tmp_path):
    (tmp_path / "corpus").mkdir()
    golden = Path(__file__).parents[1] / "golden"
    lengths = {"lame_vbr_loud_first": 47_808, "lame_vbr_quiet_first": 41_472, "sox_cbr": 56_448}
    for name in lengths:
        shutil.copy(golden / f"{name}.mp3", tmp_path / "corpus")
    for _ in range(2):  # also from the cache
        index = build(tmp_path / "corpus", find(tmp_path / "corpus", ["*"]), tmp_path / "i.npz")
        assert index.frames.tolist() == list(lengths.values())


def test_a_broken_cache_is_built_anew(corpus, tmp_path, caplog):
    load_corpus(config(corpus, tmp_path))
    for cache in (tmp_path / "cache").iterdir():
        cache.write_bytes(b"PK broken")
    assert len(names_of(*load_corpus(config(corpus, tmp_path)))) == 6
    assert "not a readable index" in caplog.text


def test_other_corpora_have_other_caches(corpus, tmp_path):
    load_corpus(config(corpus, tmp_path))
    load_corpus(config(corpus, tmp_path, include=["a/*"]))
    load_corpus(config(corpus / "a", tmp_path))
    assert len(list((tmp_path / "cache").iterdir())) == 3


def test_the_users_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert indexing.cache_path(None, "x").parent == tmp_path / "vocoder"


def test_unreadable_files_are_left_out(corpus, tmp_path, caplog):
    (corpus / "a/broken.wav").write_text("no audio")
    assert len(names_of(*load_corpus(config(corpus, tmp_path)))) == 6
    lines = [r.getMessage() for r in caplog.records if "broken" in r.getMessage()]
    assert len(lines) == 1 and "left out" in lines[0]


def test_a_cache_that_cannot_be_written_is_no_end(corpus, tmp_path, caplog):
    (tmp_path / "cache").write_text("a file")
    assert len(names_of(*load_corpus(config(corpus, tmp_path)))) == 6
    assert "can't be kept" in caplog.text


@pytest.mark.slow
def test_memory_of_many_files(tmp_path, monkeypatch):
    count = 300_000
    answer = {"frames": 100_000, "sample_rate": 22050, "channels": 1}
    monkeypatch.setattr(indexing.Probes, "look", lambda self, paths: [answer] * len(paths))
    listed = (f"speaker{i // 1000:04d}/chapter/{i:07d}.wav".encode() for i in range(count))
    tracemalloc.start()
    index = build(tmp_path, listed, tmp_path / "index.npz")
    validates = split(index.names, 0.05)
    sides = index.subset(~validates), index.subset(validates)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(map(len, sides)) == count
    assert held / count < 300
    assert peak / count < 600
