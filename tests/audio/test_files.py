import os
import shutil
import socket
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from vocoder.audio import MelSpectrogram, files
from vocoder.audio.settings import AudioConfig
from vocoder.errors import InputError

RATE = 22050
GOLDEN = Path(__file__).parents[1] / "golden"


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


@pytest.fixture
def bursts(rng):
    """Four seconds between loud and silent: frames of all sizes, and a long last page."""
    time = np.arange(4 * RATE) / RATE
    samples = np.sin(1.5 * np.pi * time) ** 4 * rng.uniform(-0.3, 0.3, len(time))
    samples[2 * RATE : -RATE // 2] *= 1e-3
    return samples.astype(np.float32)


def cut(content):
    return content[: len(content) // 2 + 17]


def with_junk_first(content):
    return np.random.default_rng(0).bytes(3000) + content


def without_length(content):
    """A FLAC as an encoder leaves it that can't go back to the header."""
    content = bytearray(content)
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    return bytes(content)


# Name: how it is written, or a golden file; and what is done to it then.
COMPRESSED = {
    "cbr.mp3": ({"bitrate_mode": "CONSTANT"}, None),
    "vbr.mp3": ({"bitrate_mode": "VARIABLE"}, None),
    "abr.mp3": ({"bitrate_mode": "AVERAGE"}, None),
    "stereo.mp3": ({"bitrate_mode": "VARIABLE", "compression_level": 0.9}, None),
    "cut.mp3": ({"bitrate_mode": "VARIABLE"}, cut),
    "junk.mp3": ({"bitrate_mode": "VARIABLE"}, with_junk_first),
    "lame_vbr_quiet_first.mp3": (None, None),
    "lame_vbr_loud_first.mp3": (None, None),
    "lame_vbr_loud_first_cut.mp3": (None, cut),
    "sox_cbr.mp3": (None, None),
    "vorbis.ogg": ({"subtype": "VORBIS"}, None),
    "stereo.ogg": ({"subtype": "VORBIS"}, None),
    "vorbis_cut.ogg": ({"subtype": "VORBIS"}, cut),
    "opus.ogg": ({"subtype": "OPUS"}, None),
    "stereo.opus": ({"subtype": "OPUS", "format": "OGG"}, None),
    "a.flac": ({}, None),
    "pipe.flac": ({}, without_length),
    "gsm.wav": ({"subtype": "GSM610"}, None),
    "ima.wav": ({"subtype": "IMA_ADPCM"}, None),
    "g721.au": ({"subtype": "G721_32"}, None),
    "vorbis_as.wav": ({"subtype": "VORBIS", "format": "OGG"}, None),
    "mp3_as.flac": ({"subtype": "MPEG_LAYER_III", "format": "MP3"}, None),
}
# As mpg123 decodes them; soundfile takes the header's word, and reads 18,792 of the second.
LENGTHS = {
    "lame_vbr_quiet_first.mp3": 41_472,
    "lame_vbr_loud_first.mp3": 47_808,
    "sox_cbr.mp3": 56_448,
}


def compressed(folder, name, samples):
    how, changed = COMPRESSED[name]
    path = folder / name
    if how is None:
        shutil.copy(GOLDEN / name.replace("_cut", ""), path)
    else:
        if name.startswith("stereo"):
            samples = np.stack([samples, 0.7 * samples[::-1]], 1)
        soundfile.write(path, samples, 24000 if how.get("subtype") == "OPUS" else RATE, **how)
    if changed:
        path.write_bytes(changed(path.read_bytes()))
    return path


class Straight(soundfile.SoundFile):
    """Doesn't seek where it already is, after each read."""

    def seekable(self):
        return False


def decoded_at_once(path):
    """The whole file in a single read, mixed; more is asked for than there is."""
    if path.name.startswith(("junk", "lame_vbr_loud_first")):  # of which soundfile loses the rest
        return np.concatenate([files.mixed(block) for block in files.blocks(path)])
    with Straight(path) as file:
        return file.read(10**6, "float32", True).mean(axis=1)


@pytest.mark.parametrize("name", COMPRESSED)
def test_a_segment_is_that_of_the_whole(tmp_path, bursts, rng, name):
    path = compressed(tmp_path, name, bursts)
    about = files.info(path)
    whole = decoded_at_once(path)
    if name == "cut.mp3":  # part of a frame is no loss
        assert len(whole) - 576 < about.frames <= len(whole)
        whole = whole[: about.frames]
    assert about.frames == LENGTHS.get(name, len(whole))
    assert np.abs(whole).max() > 0.2
    np.testing.assert_allclose(files.read(path), whole, atol=1e-6)
    padded = np.pad(whole, 384, mode="reflect")
    last = about.frames - 2048
    starts = [0, last, *rng.integers(0, last, 40), *rng.integers(max(0, last - 9000), last, 20)]
    for start in map(int, starts):
        stretch = files.read_segment(path, start, 2048, (384, 384), frames=about.frames)
        np.testing.assert_allclose(stretch, padded[start : start + 2816], atol=1e-6)
    asked = files.read_segment(path, last, 2048, (384, 384))
    np.testing.assert_array_equal(asked, files.read_segment(path, last, 2048, (384, 384)))
    with pytest.raises(InputError, match=f"{name}: ends at sample {about.frames}, before"):
        files.read_segment(path, last + 1, 2048, frames=about.frames)
    resampled = soxr.resample(whole, about.sample_rate, 16000)
    if about.sample_rate != 16000:
        start = len(resampled) - 5000
        stretch = files.read_segment(
            path, start, 2048, (384, 384), sample_rate=16000, frames=about.frames
        )
        np.testing.assert_allclose(stretch, resampled[start - 384 : start + 2432], atol=1e-4)


@pytest.mark.parametrize("seconds", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("name", ["vbr.mp3", "vorbis.ogg", "stereo.ogg", "opus.ogg"])
def test_short_compressed_files(tmp_path, bursts, name, seconds):
    path = compressed(tmp_path, name, bursts[: int(seconds * RATE)])
    about = files.info(path)
    whole = decoded_at_once(path)
    assert about.frames == len(whole)
    start = len(whole) // 2
    stretch = files.read_segment(path, start, len(whole) - start, frames=about.frames)
    np.testing.assert_allclose(stretch, whole[start:], atol=1e-6)


def test_a_last_page_that_holds_seconds(tmp_path, rng):
    """Silence takes few bytes, so that much of it comes after the last complete page."""
    samples = np.concatenate([rng.uniform(-0.5, 0.5, 30_000), np.zeros(200_000)])
    samples[-3000:] = rng.uniform(-0.5, 0.5, 3000)
    path = saved(tmp_path / "a.ogg", samples)
    whole = decoded_at_once(path)
    for start in range(30_000, 225_000, 5000):
        stretch = files.read_segment(path, start, 4096, frames=len(whole))
        np.testing.assert_array_equal(stretch, whole[start : start + 4096])


def test_a_file_that_shrank_since_its_length_was_known(tmp_path, bursts):
    path = compressed(tmp_path, "vbr.mp3", bursts)
    frames = files.info(path).frames
    path.write_bytes(cut(path.read_bytes()))
    with pytest.raises(InputError, match=r"vbr\.mp3: ends at sample \d+, before 88200"):
        files.read_segment(path, frames - 4096, 4096, frames=frames)


def test_decoders_say_nothing(tmp_path, capfd, bursts):
    """The notes of libmpg123 after seeks; what Python says meanwhile in other threads is seen."""
    path = compressed(tmp_path, "vbr.mp3", bursts)
    with soundfile.SoundFile(path) as file:
        for start in range(5000, 80_000, 5000):
            file.seek(start)
            file.read(100)
    assert "libmpg123" in capfd.readouterr().err  # so there is something to silence
    stop = threading.Event()

    def talk():
        count = 0
        while not stop.is_set():
            os.write(2, b"x\n")
            count += 1
        said.append(count)

    said = []
    threads = [threading.Thread(target=talk)]
    frames = files.info(path).frames
    threads += [
        threading.Thread(
            target=files.read_segment, args=(path, start, 100), kwargs={"frames": frames}
        )
        for start in range(5000, 80_000, 5000)
    ]
    for thread in threads:
        thread.start()
    for thread in threads[1:]:
        thread.join()
    stop.set()
    threads[0].join()
    list(files.blocks(path))
    damaged = bytearray(path.read_bytes())
    damaged[9000:9500] = bytes(500)
    (tmp_path / "damaged.mp3").write_bytes(damaged)
    files.info(tmp_path / "damaged.mp3")
    lines = capfd.readouterr().err.split()
    assert lines == ["x"] * said[0]


@pytest.fixture(params=["pipe", "socket", "device", "folder", "gone", "loop"])
def no_file(request, tmp_path):
    path = tmp_path / "a.wav"
    if request.param == "pipe":
        os.mkfifo(path)
    elif request.param == "socket":
        socket.socket(socket.AF_UNIX).bind(str(path))
    elif request.param == "device":
        path.symlink_to("/dev/zero")
    elif request.param == "folder":
        path.mkdir()
    elif request.param == "loop":
        path.symlink_to(path)
    return path


def test_only_regular_files_are_opened(no_file):
    with pytest.raises(InputError, match=r"a\.wav: (no such file|no regular file|can't be opened)"):
        files.info(no_file)
    with pytest.raises(InputError):
        files.read_segment(no_file, 0, 100, frames=1000)


def test_silence_is_what_is_heard(tmp_path, rng):
    noise = rng.uniform(-0.5, 0.5, 48000)
    high = 0.5 * np.sin(2 * np.pi * 20000 * np.arange(48000) / 48000)
    apart = {
        "mono": noise,
        "opposite": np.stack([noise, -noise], 1),
        "nearly": np.stack([noise, 2e-5 - noise], 1),
        "not_quite": np.stack([noise, 2e-4 - noise], 1),
        "high": high,
        "high_apart": np.stack([noise + 0.3 * high, -noise], 1),
    }
    heard = {name: saved(tmp_path / f"{name}.wav", x, 48000, "FLOAT") for name, x in apart.items()}
    assert [name for name in heard if files.is_silent(heard[name])] == ["opposite", "nearly"]
    silent = [name for name in heard if files.is_silent(heard[name], 16000)]
    # At 16 kHz nothing above 8 is left but at the two edges, where the tone begins and ends.
    assert silent == ["opposite", "nearly"]
    smooth = np.hanning(48000)
    for name in ("high", "high_apart"):
        x = apart[name] * (smooth if apart[name].ndim == 1 else smooth[:, None])
        path = saved(tmp_path / f"{name}.wav", x, 48000, "FLOAT")
        assert not files.is_silent(path) and files.is_silent(path, 16000)
        assert np.abs(files.read_segment(path, 4000, 8192, sample_rate=16000)).max() < files.SILENCE
