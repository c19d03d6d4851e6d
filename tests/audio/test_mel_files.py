import io
import os

import numpy as np
import pytest

from vocoder.audio.mel_files import HIGHEST, open_mel, squares_have_bands_first
from vocoder.errors import InputError


@pytest.fixture
def mel(rng):
    return rng.standard_normal((9, 5)).astype(np.float32)


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<f2"])
@pytest.mark.parametrize("way", ["plain", "turned", "fortran", "turned fortran", "batch"])
def test_all_ways_in_which_a_mel_lies(tmp_path, mel, dtype, way):
    array = mel.astype(dtype)
    if "turned" in way:
        array = array.T.copy()
    if "fortran" in way:
        array = np.asfortranarray(array)
    np.save(tmp_path / "mel.npy", array[None] if way == "batch" else array)
    opened = open_mel(tmp_path / "mel.npy", 5)
    assert opened.frames == 9
    exact = mel.astype(dtype).astype(np.float32)
    np.testing.assert_array_equal(opened.read(), exact)
    np.testing.assert_array_equal(opened.read(3, 4), exact[3:7])
    np.testing.assert_array_equal(opened.read(7, 4), exact[7:])
    assert opened.read(9, 4).shape == (0, 5)


def header(text, version=b"\x01\x00"):
    text = text.replace(b"FLOATS", b"'descr': '<f4', 'fortran_order': False")
    length = len(text).to_bytes(2 if version == b"\x01\x00" else 4, "little")
    return b"\x93NUMPY" + version + length + text


def npy(array, version=None):
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(array), version)
    return file.getvalue()


MALFORMED = {
    "empty": b"",
    "zip": b"PK\x03\x04x",
    "magic": b"\x93NUMPY",
    "version": header(b"{}", b"\x09\x00"),
    "third version, cut": header(b"{FLOATS, 'shape': (3, 5)}", b"\x03\x00"),
    "long second version": header(b"{}", b"\x02\x00")[:8] + b"\xff\xff\xff\x7f" + b" " * 20_000,
    "cut header": b"\x93NUMPY\x01\x00\xff\xff{",
    "no header": header(b""),
    "long header": header(b"(" * 60_000),
    "deep header": header(b"[" * 5_000 + b"]" * 5_000),
    "no mapping": header(b"[1, 2]\n"),
    "a call": header(b"{'descr': print(1), 'fortran_order': False, 'shape': (3, 5)}\n"),
    "no dtype": header(b"{'descr': 'x9', 'fortran_order': False, 'shape': (3, 5)}\n"),
    "recursive dtype": header(
        b"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (5, 5)}\n"
    ),
    "negative": header(b"{FLOATS, 'shape': (-1, 5)}\n"),
    "huge": header(b"{FLOATS, 'shape': (9223372036854775807, 5)}\n"),
    "larger": header(b"{FLOATS, 'shape': (" + b"9" * 40 + b", 5)}\n"),
    "larger than can be shown": header(b"{FLOATS, 'shape': (0x" + b"f" * 9_000 + b", 5)}\n"),
    "false": header(b"{FLOATS, 'shape': (False, 5)}\n"),
    "many axes": header(b"{FLOATS, 'shape': (" + b"2," * 4_000 + b")}\n"),
    "long dtype": header(
        b"{'descr': [('" + b"a" * 9_000 + b"', '<f4')], 'fortran_order': False, 'shape': (5, 5)}"
    ),
    "odd escape": header(b"{'\\d': 1, 'shape': (3, 5)}\n"),
    "text in the shape": header(b"{FLOATS, 'shape': ('3', 5)}\n"),
    "null bytes": header(b"\x00" * 100),
    "bytes of no text": header(b"\xff" * 100),
    "objects": npy(np.array([[object()] * 5])),
    "pickle": b"\x80\x04N.",
    "integers": npy(np.zeros((3, 5), np.int16)),
    "complex": npy(np.zeros((3, 5), np.complex64)),
    "text": npy(np.array([["a"] * 5])),
    "a number": npy(np.float32(3)),
    "one axis": npy(np.zeros(5, np.float32)),
    "a batch of two": npy(np.zeros((2, 3, 5), np.float32)),
    "no frames": npy(np.zeros((0, 5), np.float32)),
    "other bands": npy(np.zeros((3, 6), np.float32)),
    "cut": npy(np.zeros((3, 5), np.float32))[:-1],
}


WELL_FORMED = {
    "second version": npy(np.zeros((3, 5), np.float32), (2, 0)),
    "third version": npy(np.zeros((3, 5), np.float32), (3, 0)),
    "of Python 2": header(b"{FLOATS, 'shape': (3L, 5L)}\n") + bytes(60),
    "many ones": header(b"{FLOATS, 'shape': (1, 1, 1, 3, 5)}\n") + bytes(60),
    "more after it": npy(np.zeros((3, 5), np.float32)) + b"more",
}


@pytest.mark.parametrize("kind", WELL_FORMED)
@pytest.mark.filterwarnings("error")
def test_odd_files_that_numpy_reads(tmp_path, kind):
    (tmp_path / "a.npy").write_bytes(WELL_FORMED[kind])
    np.testing.assert_array_equal(open_mel(tmp_path / "a.npy", 5).read(), np.zeros((3, 5)))


@pytest.mark.parametrize("kind", MALFORMED)
@pytest.mark.filterwarnings("error")
def test_malformed_files_are_one_line(tmp_path, kind):
    (tmp_path / "a.npy").write_bytes(MALFORMED[kind])
    with pytest.raises(InputError, match=r"a\.npy: ") as error:
        open_mel(tmp_path / "a.npy", 5)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


def test_what_is_cut_while_it_is_read_is_told(tmp_path, mel):
    np.save(tmp_path / "mel.npy", np.tile(mel, (10_000, 1)))
    opened = open_mel(tmp_path / "mel.npy", 5)
    os.truncate(tmp_path / "mel.npy", 1000)
    with pytest.raises(InputError, match=r"mel\.npy: ends early"):
        opened.read(80_000, 100)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 2 * HIGHEST, -1e300])
def test_numbers_that_no_mel_has_are_told_with_their_frame(tmp_path, mel, value):
    mel = mel.astype(np.float64)
    mel[6, 2] = value
    np.save(tmp_path / "mel.npy", mel)
    opened = open_mel(tmp_path / "mel.npy", 5)
    opened.read(0, 6)
    with pytest.raises(InputError, match=r"mel\.npy: holds .* from frame 6 on"):
        opened.read(2, 6)


def test_squares_lie_as_most_of_the_others(tmp_path, mel):
    assert squares_have_bands_first([]) is None
    assert squares_have_bands_first([False, True]) is None
    assert squares_have_bands_first([False, False, True]) is False
    assert squares_have_bands_first([False, True, True]) is True
    np.save(tmp_path / "a.npy", mel[:5])
    turned = open_mel(tmp_path / "a.npy", 5)._replace(bands_first=True)
    np.testing.assert_array_equal(turned.read(1, 2), mel[:5].T[1:3])


def test_a_square_in_fortran_order_can_be_turned_too(tmp_path, mel):
    square = mel[:5]
    np.save(tmp_path / "a.npy", np.asfortranarray(square))
    opened = open_mel(tmp_path / "a.npy", 5)
    np.testing.assert_array_equal(opened.read(), square)
