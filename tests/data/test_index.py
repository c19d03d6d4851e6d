import os
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from configs import data_config
from vocoder.data import index as indexing
from vocoder.data.corpus import load_corpus, split
from vocoder.data.index import ByteStrings, build
from vocoder.data.listing import find
from vocoder.errors import InputError
from vocoder.paths import asset


@pytest.fixture
def corpus(tmp_path):
    root = tmp_path / "corpus"
    for i, name in enumerate(["a/1.wav", "a/2.flac", "a-b/3.wav", "b/c/4.WAV", "5.ogg", "6.mp3"]):
        write(root / name, 1000 + i)
    (root / "readme.txt").write_text("no audio")
    (root / ".hidden.wav").write_text("no audio")
    return root


def write(path, frames=1000, rate=22050):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(frames), rate)


def config(root, tmp_path, **values):
    return data_config(root, cache=str(tmp_path / "cache"), **values)


@pytest.fixture
def opened(monkeypatch):
    """The names of the files that are opened."""
    names = []
    look = indexing.Probes.look

    def noting(self, paths):
        names.extend(map(os.path.basename, paths))
        return look(self, paths)

    monkeypatch.setattr(indexing.Probes, "look", noting)
    return names


def names_of(*sides):
    return sorted({side.name(i) for side in sides for i in range(len(side))})


def test_finds_audio_in_the_order_of_paths(corpus):
    found = [name.decode() for name in find(corpus, ["**/*"])]
    assert found == ["5.ogg", "6.mp3", "a-b/3.wav", "a/1.wav", "a/2.flac", "b/c/4.WAV"]
    assert found == sorted(found)


@pytest.mark.parametrize(
    ("include", "expected"),
    [
        (["**/*.wav"], ["a-b/3.wav", "a/1.wav", "b/c/4.WAV"]),
        (["**/*.WAV"], ["a-b/3.wav", "a/1.wav", "b/c/4.WAV"]),
        (["b/c/?.Wav", "A/1.wav"], ["b/c/4.WAV"]),
        (["a/*"], ["a/1.wav", "a/2.flac"]),
        (["*/*.wav", "*.mp3"], ["6.mp3", "a-b/3.wav", "a/1.wav"]),
        (["**/[12].*"], ["a/1.wav", "a/2.flac"]),
        (["**/?.[!wof]*"], ["6.mp3", "b/c/4.WAV"]),
        (["a/**/*"], ["a/1.wav", "a/2.flac"]),
    ],
)
def test_patterns(corpus, include, expected):
    assert [name.decode() for name in find(corpus, include)] == expected


@pytest.mark.parametrize("name", ["folder", "libritts", "ljspeech", "vctk"])
def test_extensions_in_capitals_in_every_corpus(name, tmp_path):
    include = yaml.safe_load((asset("configs/data") / f"{name}.yaml").read_text())["include"]
    folder = {"vctk": "wav48/p225", "ljspeech": "wavs", "libritts": "84/121550"}.get(name, "a")
    for file in ("1.wav", "2.WAV", "3.Wav", "4.txt"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / file).touch()
    found = [found.decode() for found in find(tmp_path, include)]
    assert found == [f"{folder}/{file}" for file in ("1.wav", "2.WAV", "3.Wav")]


def test_a_folder_that_cannot_be_read_costs_a_warning(corpus, caplog):
    folder, name = os.open(corpus, os.O_RDONLY), "n" * 200
    try:  # deeper than a path may be long
        for _ in range(30):
            os.mkdir(name, dir_fd=folder)
            below = os.open(name, os.O_RDONLY, dir_fd=folder)
            os.close(folder)
            folder = below
    finally:
        os.close(folder)
    assert len(list(find(corpus, ["**/*"]))) == 6
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("left out: ") and "the folder can't be read" in line


def test_links_in_a_circle_end(corpus):
    (corpus / "a" / "up").symlink_to(corpus, target_is_directory=True)
    assert len(list(find(corpus, ["**/*"]))) == 6


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


def test_split_is_stable():
    names = [f"speaker{i % 7}/{i:05d}.wav".encode() for i in range(4000)]
    some, all_ = ByteStrings.of(names[::2]), ByteStrings.of(names)
    few, many = split(some, 0.1), split(all_, 0.1)
    np.testing.assert_array_equal(few, many[::2])
    assert 0.08 < many.mean() < 0.12
    assert (split(all_, 0.2) >= many).all()


def test_each_side_has_a_file(caplog):
    names = ByteStrings.of([b"a.wav", b"b.wav", b"c.wav"])
    assert split(names, 0.0).sum() == 1
    assert "validates" in caplog.text
    assert split(names, 0.9999999).sum() == 2
    assert split(ByteStrings.of([b"a.wav"]), 0.1).tolist() == [True]


def test_a_single_file_is_on_both_sides(tmp_path, caplog):
    write(tmp_path / "corpus" / "a.wav")
    train, validation = load_corpus(config(tmp_path / "corpus", tmp_path))
    assert names_of(train) == names_of(validation) == ["a.wav"]
    assert "a single file" in caplog.text


def test_lists(corpus, tmp_path, opened):
    (tmp_path / "train.txt").write_text("a/1|some text|more\n\na-b/3.wav\nb/c/4.WAV\n")
    (tmp_path / "validation.txt").write_text(f"a/2|text\n{corpus}/5.ogg\n", encoding="utf-8-sig")
    lists = {
        "train_list": str(tmp_path / "train.txt"),
        "validation_list": str(tmp_path / "validation.txt"),
    }
    train, validation = load_corpus(config(corpus, tmp_path, **lists))
    assert names_of(train) == ["a-b/3.wav", "a/1.wav", "b/c/4.WAV"]
    assert names_of(validation) == ["5.ogg", "a/2.flac"]
    assert "6.mp3" not in opened
    lists.pop("train_list")
    train, validation = load_corpus(config(corpus, tmp_path, **lists))
    assert names_of(train) == ["6.mp3", "a-b/3.wav", "a/1.wav", "b/c/4.WAV"]
    assert names_of(validation) == ["5.ogg", "a/2.flac"]
    train, validation = load_corpus(
        config(corpus, tmp_path, train_list=str(tmp_path / "train.txt"))
    )
    assert len(train) + len(validation) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a/1\nnone|x\n", r"data\.train_list: .*train\.txt, line 2: none is not a file below"),
        ("../x.wav\n", r"line 1: \.\./x\.wav is not below data\.root"),
        ("\n", r"data\.train_list: .* lists no file"),
        (None, r"data\.train_list: .* can't be read"),
    ],
)
def test_lists_at_fault(corpus, tmp_path, text, message):
    if text is not None:
        (tmp_path / "train.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        load_corpus(config(corpus, tmp_path, train_list=str(tmp_path / "train.txt")))


def test_roots_at_fault(corpus, tmp_path):
    for root in ("", "???"):
        with pytest.raises(InputError, match=r"data\.root: missing; give data\.root=FOLDER"):
            load_corpus(config(root, tmp_path))
    with pytest.raises(InputError, match=r"data\.root: .*none is not a folder"):
        load_corpus(config(tmp_path / "none", tmp_path))
    with pytest.raises(InputError, match=r"no audio found below .* \(patterns \*\.xyz\)"):
        load_corpus(config(corpus, tmp_path, include=["*.xyz"]))
    with pytest.raises(InputError, match=r"data\.include: empty"):
        load_corpus(config(corpus, tmp_path, include=[]))


def test_a_cache_that_cannot_be_written_is_no_end(corpus, tmp_path, caplog):
    (tmp_path / "cache").write_text("a file")
    assert len(names_of(*load_corpus(config(corpus, tmp_path)))) == 6
    assert "can't be kept" in caplog.text


@pytest.mark.slow
def test_memory_of_a_million_files(tmp_path, monkeypatch):
    count = 1_000_000
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


def test_samples_of_a_run_are_no_recordings(tmp_path):
    (tmp_path / "run/samples").mkdir(parents=True)
    for name in ("a.wav", "run/samples/b.wav", "run/losses.csv", "run/overrides.yaml"):
        (tmp_path / name).touch()
    assert list(find(tmp_path, ["**/*"])) == [b"a.wav"]
