import os

import pytest
import yaml
from corpora import write

from vocoder.data.listing import find
from vocoder.paths import asset


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


def test_samples_of_a_run_are_no_recordings(tmp_path):
    (tmp_path / "run/samples").mkdir(parents=True)
    for name in ("a.wav", "run/samples/b.wav", "run/losses.csv", "run/overrides.yaml"):
        (tmp_path / name).touch()
    assert list(find(tmp_path, ["**/*"])) == [b"a.wav"]


@pytest.mark.parametrize(
    "name", ["q\\w.wav", "{a,b}.wav", "!k.wav", "-n.wav", "~/x.wav", "a|b.wav"]
)
def test_characters_that_mean_nothing_to_pathlib(name, tmp_path):
    write(tmp_path / name)
    write(tmp_path / "other.wav")
    assert list(find(tmp_path, [name])) == [name.encode()]
