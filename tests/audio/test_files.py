import numpy as np
import pytest
import soundfile
import soxr

from vocoder.audio import MelSpectrogram, files
from vocoder.config import AudioConfig
from vocoder.errors import InputError

RATE = 22050


@pytest.fixture
def noise(rng):
    # Smooth enough that lossy formats keep it.
    return soxr.resample(rng.uniform(-0.4, 0.4, RATE).astype(np.float32), RATE, 3 * RATE)[:RATE]


def saved(path, samples, rate=RATE, subtype=None):
    soundfile.write(path, samples, rate, subtype)
    return path


@pytest.mark.parametrize(
    ("name", "subtype", "tolerance"),
    [
        ("a.wav", "PCM_U8", 1e-2),
        ("a.wav", "PCM_16", 1e-4),
        ("a.wav", "PCM_24", 1e-6),
        ("a.wav", "FLOAT", 0),
        ("a.flac", "PCM_16", 1e-4),
        ("a.ogg", "VORBIS", None),
        ("a.mp3", "MPEG_LAYER_III", None),
        ("a.aiff", "PCM_16", 1e-4),
    ],
)
def test_formats(tmp_path, noise, name, subtype, tolerance):
    path = saved(tmp_path / name, noise, subtype=subtype)
    info = files.info(path)
    assert (info.sample_rate, info.channels) == (RATE, 1)
    assert info.frames == len(noise)
    whole = files.read(path)
    assert whole.dtype == np.float32
    if tolerance is None:  # lossy: no shift, and little noise
        assert np.corrcoef(whole, noise)[0, 1] > 0.9
    else:
        np.testing.assert_allclose(whole, noise, atol=tolerance)
    part = files.read(path, 9000, 5000)
    np.testing.assert_allclose(part, whole[9000:14000], atol=1e-3 if tolerance is None else 0)


def test_stereo_is_mixed_or_refused(tmp_path, noise):
    path = saved(tmp_path / "a.wav", np.stack([noise, 0.5 * noise], 1), subtype="FLOAT")
    np.testing.assert_allclose(files.read(path, 10, 100), 0.75 * noise[10:110], atol=1e-6)
    with pytest.raises(InputError, match=r"a\.wav: has 2 channels"):
        files.read(path, stereo="refuse")


def test_what_cannot_be_read(tmp_path, noise):
    with pytest.raises(InputError, match=r"none\.wav: no such file"):
        files.read(tmp_path / "none.wav")
    (tmp_path / "text.wav").write_text("no audio")
    with pytest.raises(InputError, match=r"text\.wav: can't be read as audio"):
        files.info(tmp_path / "text.wav")
    saved(tmp_path / "empty.wav", noise[:0])
    with pytest.raises(InputError, match=r"empty\.wav: holds no samples"):
        files.info(tmp_path / "empty.wav")
    saved(tmp_path / "a.wav", noise)
    with pytest.raises(InputError, match=r"a\.wav: ends at sample 22050, before 22100"):
        files.read(tmp_path / "a.wav", 22000, 100)
    with pytest.raises(InputError, match=r"a\.wav: ends at sample 22050, before 22100"):
        files.read_segment(tmp_path / "a.wav", 22000, 100)


@pytest.mark.parametrize("padding", ["same", "center"])
@pytest.mark.parametrize("start", [0, 1, 20, 53, 54])
def test_mel_of_a_segment_is_a_slice_of_the_whole(tmp_path, noise, padding, start):
    path = saved(tmp_path / "a.wav", noise, subtype="FLOAT")
    audio = AudioConfig(padding=padding)
    whole = np.asarray(MelSpectrogram(padding=padding)(noise[None]))[0]
    stretch = files.read_segment(path, start * 256, 32 * 256, audio.margins)
    mel = np.asarray(MelSpectrogram(padding="valid")(stretch[None]))[0]
    np.testing.assert_allclose(mel, whole[start : start + 32], atol=1e-5)
    left = audio.margins[0]
    np.testing.assert_array_equal(
        stretch[left : left + 8192], noise[start * 256 : start * 256 + 8192]
    )


@pytest.mark.parametrize("samples", [1, 2, 100, 8000])
def test_short_files_end_in_zeros(tmp_path, noise, samples):
    path = saved(tmp_path / "a.wav", noise[:samples], subtype="FLOAT")
    padded = np.pad(noise[:samples], (0, 8192 - samples))
    stretch = files.read_segment(path, 0, 8192, (384, 384))
    np.testing.assert_array_equal(stretch, np.pad(padded, 384, mode="reflect"))


@pytest.mark.parametrize("samples", [1, 2, 3, 300])
def test_reflects_as_often_as_needed(tmp_path, noise, samples):
    path = saved(tmp_path / "a.wav", noise[:samples], subtype="FLOAT")
    stretch = files.read_segment(path, 0, samples, (384, 384))
    np.testing.assert_array_equal(stretch, np.pad(noise[:samples], 384, mode="reflect"))


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000, 96000])
@pytest.mark.parametrize("end", ["left", "middle", "right"])
def test_resampled_stretch_equals_the_whole_resampled(tmp_path, rng, rate, end):
    samples = rng.uniform(-0.5, 0.5, 2 * rate + 17).astype(np.float32)
    path = saved(tmp_path / "a.wav", samples, rate, "FLOAT")
    whole = soxr.resample(samples, rate, RATE)
    assert len(whole) == files.resampled_length(len(samples), rate, RATE)
    start = {"left": 0, "middle": 77 * 256, "right": len(whole) - 8192}[end]
    stretch = files.read_segment(path, start, 8192, (384, 384), sample_rate=RATE)
    expected = np.pad(whole, 384, mode="reflect")[start : start + 8192 + 768]
    np.testing.assert_allclose(stretch, expected, atol=1e-5)


@pytest.mark.parametrize("samples", [1, 3, 500])
def test_short_files_are_resampled(tmp_path, noise, samples):
    path = saved(tmp_path / "a.wav", noise[:samples], 48000, "FLOAT")
    whole = soxr.resample(noise[:samples], 48000, RATE)
    stretch = files.read_segment(path, 0, 8192, (384, 384), sample_rate=RATE)
    padded = np.pad(whole, (0, 8192 - len(whole)))
    np.testing.assert_allclose(stretch, np.pad(padded, 384, mode="reflect"), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "subtype", "tolerance"),
    [
        ("a.wav", "PCM_16", 1e-4),
        ("a.wav", "PCM_24", 1e-6),
        ("a.wav", "FLOAT", 0),
        ("a.flac", "PCM_16", 1e-4),
    ],
)
def test_write(tmp_path, noise, name, subtype, tolerance):
    files.write(tmp_path / name, noise * 10, RATE, subtype)
    assert soundfile.info(tmp_path / name).subtype == subtype
    np.testing.assert_allclose(
        files.read(tmp_path / name), np.clip(noise * 10, -1, 1), atol=tolerance
    )


def test_write_says_what_is_wrong(tmp_path, noise):
    with pytest.raises(InputError, match="can't be written"):
        files.write(tmp_path / "none" / "a.wav", noise, RATE)
    with pytest.raises(InputError, match="can't be written"):
        files.write(tmp_path / "a.flac", noise, RATE, "FLOAT")
