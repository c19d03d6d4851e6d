import os

import pytest

from vocoder.data.lists import Finder, entries, read_list
from vocoder.errors import InputError


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "corpus"
    for name in ("a.wav", "b.WAV", "c.Flac", "d.OGG", "deep/e.wav", "f.wav", "f.FLAC", "g.1.Wav"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def listed(root, text, encoding="utf-8"):
    path = root.parent / "list.txt"
    path.write_bytes(text.encode(encoding))
    return [name.decode() for name in read_list(root, str(path), "data.train_list")]


@pytest.mark.parametrize("other", list("\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e\r"))
def test_lines_end_at_newlines_only(root, other):
    # What comes after the character would name a file.
    assert listed(root, f"a|one{other}b|two\nc.flac|three\n") == ["a.wav", "c.Flac"]
    (root / f"x{other}y.wav").touch()
    assert listed(root, f"x{other}y|one\n") == [f"x{other}y.wav"]


def test_lines_of_windows(root):
    assert listed(root, "a|one\r\n\r\nb\r\n", "utf-8-sig") == ["a.wav", "b.WAV"]


def test_extensions_in_capitals_or_left_out(root):
    text = "a\nb\nc\nd\ndeep/e\ng.1\n"
    every = ["a.wav", "b.WAV", "c.Flac", "d.OGG", "deep/e.wav", "g.1.Wav"]
    assert listed(root, text) == every
    assert listed(root, text.replace("\n", "|text\n")) == every
    assert listed(root, "a.WAV\nb.wav\nc.FLAC\nd.Ogg\ndeep/e.wAv\ng.1.wav\n") == every
    assert listed(root, f"{root}/b\n{root}/c.flac\n") == ["b.WAV", "c.Flac"]
    assert listed(root, "f\n") == ["f.wav"] and listed(root, "f.flac\n") == ["f.FLAC"]
    with pytest.raises(InputError, match=r"line 1: A is not a file below data\.root"):
        listed(root, "A\n")


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "gone", "binary"])
def test_what_is_no_list(root, tmp_path, kind):
    path = tmp_path / "list.txt"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "binary":
        path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(InputError, match=r"^data\.train_list: .*list\.txt can't be read"):
        list(entries(path, "data.train_list"))


def test_a_pipe_is_no_recording(root):
    os.mkfifo(root / "pipe.wav")
    with pytest.raises(InputError, match="line 1: pipe is not a file"):
        listed(root, "pipe\n")


def test_the_finder_bears_any_name(root):
    assert Finder().find(str(root / "no/such/folder")) is None
    assert Finder().find("a\0b") is None
