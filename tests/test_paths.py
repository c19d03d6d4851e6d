import os

import pytest

from vocoder import paths
from vocoder.errors import InputError, printable
from vocoder.paths import LONGEST, file_name, open_regular, replacing, user_path


@pytest.mark.parametrize("name", ["a", "Räuber und Gendarm", "录音", "x" * 200])
def test_names_that_can_be_written_stay(name):
    assert file_name(name) == name


@pytest.mark.parametrize(
    "name", ["录" * 80, "x" * 300, os.fsdecode(b"latin-\xe9"), "a\x1b[31mb", "a\u2028b", "a/b"]
)
def test_other_names_are_short_printable_and_unique(name):
    safe = file_name(name)
    assert safe.isprintable() and "/" not in safe
    assert len(f".{safe}.wav.partial".encode()) <= LONGEST
    assert safe != file_name(name + "x")


def test_a_name_stays_itself_when_it_is_made_safe_again():
    once = file_name("录" * 80)
    assert file_name(once) == once


def test_terminals_get_no_escape_sequences():
    assert printable("a\x1b]0;title\x07\nb") == "a\\x1b]0;title\\x07\\nb"
    assert printable(os.fsdecode(b"\xe9.wav")) == "\\xe9.wav"


def test_a_pipe_is_no_file_and_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, reason in ((tmp_path / "pipe", "regular"), (tmp_path, "regular")):
        with pytest.raises(InputError, match=reason):
            open_regular(path)
    with pytest.raises(InputError, match="no such file"):
        open_regular(tmp_path / "missing")


def test_replacing_follows_no_link(tmp_path):
    (tmp_path / "mine").write_text("mine")
    for name in ("config.yaml", ".config.yaml.partial"):
        (tmp_path / name).symlink_to(tmp_path / "mine")
    with replacing(tmp_path / "config.yaml") as file:
        file.write("new")
    assert (tmp_path / "mine").read_text() == "mine"
    assert (tmp_path / "config.yaml").read_text() == "new"
    assert not (tmp_path / "config.yaml").is_symlink()


def test_what_is_not_written_whole_leaves_what_was_there(tmp_path):
    (tmp_path / "a").write_text("before")
    with pytest.raises(RuntimeError), replacing(tmp_path / "a") as file:
        file.write("half")
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "before"


def test_a_home_that_there_is_not_is_told(monkeypatch):
    assert user_path("~/x") == user_path(os.path.expanduser("~/x"))
    with pytest.raises(InputError, match="no home folder"):
        user_path("~nobody-of-that-name/x")


def test_a_file_of_the_very_name_comes_before_a_home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no home folder"):
        paths.user_path("~nobody-here")
    (tmp_path / "~nobody-here").write_text("")
    assert str(paths.user_path("~nobody-here")) == "~nobody-here"


def test_what_is_inside_of_a_folder_by_any_name(tmp_path):
    (tmp_path / "folder/deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to("folder")
    (tmp_path / "loop").symlink_to("loop")
    for path in ("folder", "folder/new/newer", "link", "link/deep", "folder/deep/../.."):
        inside = path != "folder/deep/../.."
        assert paths.is_inside(tmp_path / path, tmp_path / "folder") == inside
        assert paths.is_inside(tmp_path / path, tmp_path / "link") == inside
    assert not paths.is_inside(tmp_path / "loop", tmp_path / "folder")
    assert not paths.is_inside(tmp_path / "folder", tmp_path / "gone")


def test_folders_that_can_be_written_to(tmp_path):
    paths.make_output_folder(tmp_path / "new/newer", "--out")
    assert not list((tmp_path / "new/newer").iterdir())
    (tmp_path / "file").write_text("")
    for name in ("file", "file/below", "x" * 300, "/proc/nothing", "a\0b"):
        with pytest.raises(InputError, match="^--out: .* can't be written to"):
            paths.make_output_folder(tmp_path / name, "--out")
