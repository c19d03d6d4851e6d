import numpy as np
import pytest
from corpora import config, names_of, write

from vocoder.data.corpus import load_corpus, split
from vocoder.data.index import ByteStrings
from vocoder.errors import InputError


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
