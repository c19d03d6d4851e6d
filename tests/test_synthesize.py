import os
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import soundfile

import vocoder
from vocoder import synthesize
from vocoder.audio import MelSpectrogram, files
from vocoder.audio.settings import AudioConfig
from vocoder.errors import InputError
from vocoder.generators import HiFiGAN

HEAD = {"name": "istft", "n_fft": 128, "hop_length": 32}

AUDIO = AudioConfig()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The path of a small generator with random weights."""
    keras.utils.set_random_seed(0)
    generator = HiFiGAN(
        (8,),
        (16,),
        16,
        head=HEAD,
        audio=vars(AUDIO),
        weight_norm=False,
    )
    generator.build((None, None, 80))
    path = tmp_path_factory.mktemp("model") / "generator.keras"
    generator.save(path)
    return path


def command(*arguments):
    """Runs the command line and returns its exit code."""
    with pytest.raises(SystemExit) as stop:
        synthesize.main(list(map(str, arguments)))
    return stop.value.code


@pytest.mark.parametrize("frames", [1, 127, 128, 129, 1023, 1024, 1025, 3000])
@pytest.mark.parametrize("reach", [(0, 0), (13, 13), (60, 60), (40, 0), (3, 50)])
def test_windows_tile_the_input(frames, reach):
    found = list(synthesize.windows(frames, reach))
    assert len({size for _, size, _ in found}) == 1
    position = 0
    for start, size, keep in found:
        assert keep.start == position and start >= 0 and start + size <= frames
        assert start == 0 or keep.start - start >= reach[0]  # as much context as the network sees
        assert start + size == frames or start + size - keep.stop >= reach[1]
        position = keep.stop
    assert position == frames


@pytest.mark.parametrize("frames", [5, 130, 700, 2600])
def test_chunks_equal_the_whole(model, rng, frames):
    loaded = vocoder.load(model)
    mel = rng.standard_normal((frames, 80)).astype(np.float32)
    whole = np.asarray(loaded.generator(mel[None]))[0]
    np.testing.assert_allclose(loaded.synthesize(mel), whole, atol=1e-5)


def write_inputs(folder, rng):
    """Recordings and mels of several lengths; what they are is in their names."""
    folder.mkdir()
    (folder / "deep").mkdir()
    for i, samples in enumerate((3000, 40_000, 66_000, 300)):
        wave = (0.1 * rng.standard_normal(samples)).astype(np.float32)
        soundfile.write(folder / f"{i}.flac", wave, 22050)
    np.save(folder / "deep/mel.npy", rng.standard_normal((90, 80)).astype(np.float32))
    np.save(folder / "deep/turned.npy", rng.standard_normal((80, 333)).astype(np.float32))


def test_files_equal_the_whole_utterance(model, rng, tmp_path):
    write_inputs(tmp_path / "in", rng)
    out = tmp_path / "out"
    code = command(model, tmp_path / "in", "--out", out, "--format", "float")
    assert code == 0
    loaded = vocoder.load(model)
    for i in range(3):
        samples = soundfile.read(tmp_path / f"in/{i}.flac", dtype="float32")[0]
        made, rate = soundfile.read(out / f"{i}.wav", dtype="float32")
        assert rate == 22050 and len(made) == len(samples) // 256 * 256
        whole = np.asarray(loaded.generator(loaded.mel(samples)[None]))[0]
        np.testing.assert_allclose(made, whole.clip(-1, 1), atol=1e-4)
    mel = np.load(tmp_path / "in/deep/turned.npy").T
    made = soundfile.read(out / "deep/turned.wav", dtype="float32")[0]
    whole = np.asarray(loaded.generator(mel[None]))[0]
    np.testing.assert_allclose(made, whole.clip(-1, 1), atol=1e-4)
    assert {p.name for p in out.rglob("*") if p.is_file()} == {
        "0.wav", "1.wav", "2.wav", "3.wav", "mel.wav", "turned.wav",
    }  # fmt: skip


def test_compressed_files_are_whole(model, tmp_path, capfd):
    """A header that knows no length is not believed, and decoders' notes are not seen."""
    source = Path(__file__).parent / "golden/sox_cbr.mp3"
    assert soundfile.info(source).frames // 256 == 221
    code = command(model, source, "--out", tmp_path, "--format", "float")
    assert code == 0 and "mpg123" not in capfd.readouterr().err
    loaded = vocoder.load(model)
    made = soundfile.read(tmp_path / "sox_cbr.wav", dtype="float32")[0]
    assert len(made) == 56_448 // 256 * 256
    whole = np.asarray(loaded.generator(loaded.mel(files.read(source))[None]))[0]
    np.testing.assert_allclose(made, whole.clip(-1, 1), atol=1e-4)


def test_only_regular_files_are_inputs(model, rng, tmp_path, capsys):
    np.save(tmp_path / "good.npy", rng.standard_normal((20, 80)).astype(np.float32))
    for name in ("pipe.wav", "pipe.npy"):
        os.mkfifo(tmp_path / name)
    inputs = [tmp_path / "pipe.wav", tmp_path]
    assert command(model, *inputs, "--out", tmp_path.with_name("out")) == 1
    printed = capsys.readouterr()
    assert printed.err.count("no regular file") == 3 and "1 of 4 inputs" in printed.out


@pytest.mark.parametrize(
    ("kind", "suffix", "subtype"),
    [
        ("wav", "WAV", "PCM_16"),
        ("wav24", "WAV", "PCM_24"),
        ("float", "WAV", "FLOAT"),
        ("flac", "FLAC", "PCM_16"),
    ],
)
def test_formats(model, rng, tmp_path, kind, suffix, subtype):
    np.save(tmp_path / "a.npy", rng.standard_normal((20, 80)).astype(np.float32))
    command(model, tmp_path / "a.npy", "--out", tmp_path / "out", "--format", kind)
    about = soundfile.info(tmp_path / f"out/a.{suffix.lower()}")
    assert (about.format, about.subtype, about.frames) == (suffix, subtype, 20 * 256)


def test_failures_are_told_and_the_others_done(model, rng, tmp_path, capsys):
    write_inputs(tmp_path / "in", rng)
    bad = tmp_path / "bad"
    bad.mkdir()
    np.save(bad / "bands.npy", np.zeros((20, 100), np.float32))
    np.save(bad / "objects.npy", np.array([{}], dtype=object))
    soundfile.write(bad / "rate.wav", np.zeros(8000), 16000)
    soundfile.write(bad / "empty.wav", np.zeros(0), 22050)
    soundfile.write(bad / "short.wav", np.zeros(100), 22050)
    (bad / "text.wav").write_text("not audio")
    soundfile.write(bad / "0.wav", np.zeros(3000), 22050)  # the name of one in the other folder
    code = command(model, tmp_path / "in", bad, tmp_path / "gone.wav", "--out", tmp_path / "out")
    assert code == 1
    printed = capsys.readouterr()
    lines = [line for line in printed.err.splitlines() if line.startswith("error: ")]
    for name, reason in {
        "bands.npy": "(20, 100), not floats of shape (frames, 80)",
        "objects.npy": "holds object (1,), not floats",
        "rate.wav": "16000 Hz, but the model is for 22050",
        "empty.wav": "no samples",
        "short.wav": "shorter than one frame",
        "text.wav": "can't be read as audio",
        "0.wav": "is made of",
        "gone.wav": "no such file",
    }.items():
        assert any(name in line and reason in line for line in lines), (name, lines)
    assert len(lines) == 8
    assert len(list((tmp_path / "out").rglob("*.wav"))) == 6
    assert not list((tmp_path / "out").rglob("*.partial"))
    assert "6 of 14 inputs" in printed.out and "real-time factor" in printed.out


def test_a_model_that_is_none(tmp_path, capsys):
    (tmp_path / "text.keras").write_text("no model")
    dense = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    dense.save(tmp_path / "dense.keras")
    for name, reason in {
        "gone": "no model",
        "text.keras": "not a model",
        "dense.keras": "no generator of vocoder",
    }.items():
        assert command(tmp_path / name, "x.wav", "--out", tmp_path / "out") == 2
        error = capsys.readouterr().err
        assert name in error and reason in error
    assert not (tmp_path / "out").exists()


def test_shapes_that_do_not_fit(model):
    loaded = vocoder.load(model)
    with pytest.raises(InputError, match=r"mel: shape \(10, 40\) is not \(frames, 80\)"):
        loaded.synthesize(np.zeros((10, 40)))
    with pytest.raises(InputError, match="audio: shape"):
        loaded.mel(np.zeros(100))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_hour_takes_less_than_two_gigabytes(model, tmp_path):
    """Memory of the whole process, synthesising an hour of audio.

    `ru_maxrss` would be that of this process, if that is larger, since it outlives an exec.
    """
    second = np.random.default_rng(0).standard_normal(22050).astype(np.float32) * 0.1
    with soundfile.SoundFile(tmp_path / "hour.wav", "w", 22050, 1) as file:
        for _ in range(3600):
            file.write(second)
    program = (
        "import re, sys\n"
        "from vocoder.synthesize import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "finally:\n"
        "    status = open('/proc/self/status').read()\n"
        "    print('peak', re.search(r'VmHWM:\\s*(\\d+) kB', status)[1])\n"
    )
    arguments = [str(model), str(tmp_path / "hour.wav"), "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    peak = int(done.stdout.split("peak")[1]) / 1024**2  # from KiB
    assert peak < 2.0, f"{peak:.2f} GiB"
    assert soundfile.info(tmp_path / "out/hour.wav").frames == 3600 * 22050 // 256 * 256


@pytest.mark.parametrize("reach", [60, 135, 400])
def test_no_window_grows_with_the_input(reach):
    sizes = {next(synthesize.windows(frames, (reach, reach)))[1] for frames in (20_000, 300_000)}
    assert len(sizes) == 1 and sizes.pop() <= max(512, 8 * reach)


@pytest.mark.parametrize("way", ["same", "link", "inside", "deep"])
def test_nothing_that_is_read_is_written_over(model, rng, tmp_path, capsys, way):
    folder = tmp_path / "in"
    folder.mkdir()
    soundfile.write(folder / "a.wav", 0.1 * rng.standard_normal(4000), 22050)
    before = (folder / "a.wav").read_bytes()
    if way == "link":
        (tmp_path / "out").symlink_to(folder)
    out = {"same": folder, "link": tmp_path / "out"}.get(way, folder / "out")
    given = folder / "a.wav" if way in ("same", "link") else folder
    if way == "deep":
        out = folder / "b" / ".." / "out"
    assert command(model, given, "--out", out) in (1, 2)
    assert "--out" in capsys.readouterr().err
    assert [p.name for p in folder.iterdir()] == ["a.wav"]
    assert (folder / "a.wav").read_bytes() == before


@pytest.mark.parametrize(
    "name",
    ["录" * 80, "x" * 250, os.fsdecode(b"latin-\xe9"), "line\nbreak", "esc\x1b[31m", "a.b.c"],
)
def test_any_name_is_synthesised_under_one_that_can_be_written(model, rng, tmp_path, capsys, name):
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "mel.npy", rng.standard_normal((5, 80)).astype(np.float32))
    os.replace(tmp_path / "mel.npy", tmp_path / "in" / f"{name}.npy")
    np.save(tmp_path / "in" / "bad.npy", np.zeros(3))
    assert command(model, tmp_path / "in", "--out", tmp_path / "out") == 1
    (made,) = (tmp_path / "out").iterdir()
    assert made.name.isprintable() and made.suffix == ".wav"
    said = capsys.readouterr()
    assert "1 of 2 inputs" in said.out and len(said.err.splitlines()) == 1
    assert "\x1b" not in said.out + said.err


def test_an_interrupt_leaves_no_half_file(model, rng, tmp_path, monkeypatch):
    mel = rng.standard_normal((2600, 80)).astype(np.float32)
    np.save(tmp_path / "mel.npy", mel)
    loaded = vocoder.load(model)
    generate, calls = loaded.generate, []

    def interrupted(batch):
        calls.append(batch)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return generate(batch)

    monkeypatch.setattr(loaded, "generate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        synthesize.synthesize_files(loaded, [tmp_path / "mel.npy"], tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_mels_lie_as_their_neighbours_do(model, rng, tmp_path):
    square = rng.standard_normal((80, 80)).astype(np.float32)
    folder = tmp_path / "in"
    folder.mkdir()
    np.save(folder / "square.npy", square.T)
    np.save(folder / "batch.NPY", square[None, :50])
    os.replace(folder / "batch.NPY.npy", folder / "batch.NPY")
    loaded = vocoder.load(model)

    def made(*inputs):
        assert command(model, *inputs, "--out", tmp_path / "out", "--format", "float") == 0
        return soundfile.read(tmp_path / "out/square.wav", dtype="float32")[0]

    expected = np.clip(loaded.synthesize(square), -1, 1)
    turned = np.clip(loaded.synthesize(square.T), -1, 1)
    np.testing.assert_allclose(made(folder), turned, atol=1e-5)  # as batch.NPY, (frames, n_mels)
    for i in range(2):
        np.save(folder / f"{i}.npy", square[:60].T)
    np.testing.assert_allclose(made(folder), expected, atol=1e-5)
    np.testing.assert_allclose(made(folder / "square.npy"), expected, atol=1e-5)


def test_a_bad_mel_costs_itself_alone(model, rng, tmp_path, capsys):
    mel = rng.standard_normal((700, 80)).astype(np.float32)
    np.save(tmp_path / "good.npy", mel)
    mel[650] = np.nan
    np.save(tmp_path / "nan.npy", mel)
    (tmp_path / "zip.npy").write_bytes(b"PK\x03\x04x")
    os.mkfifo(tmp_path / "pipe.npy")
    inputs = sorted(tmp_path.glob("*.npy"))
    assert command(model, *inputs, "--out", tmp_path / "out") == 1
    said = capsys.readouterr()
    assert "1 of 4 inputs" in said.out and len(said.err.splitlines()) == 3
    assert "nan.npy: holds NaN or infinity from frame 650 on" in said.err
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["good.wav"]


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", ">i2", "u2", "i4", "u4", "f2", "f4", "f8"])
def test_samples_of_any_range(model, rng, dtype):
    loaded = vocoder.load(model)
    wave = rng.uniform(-0.5, 0.5, 4096).astype(np.float32)
    given = wave.astype(dtype)
    if (kind := np.dtype(dtype).kind) != "f":
        info = np.iinfo(dtype)
        middle = info.max / 2 + 0.5 if kind == "u" else 0
        given = np.round(middle + wave * 2.0 ** (info.bits - 1)).astype(dtype)
    mel = loaded.mel(given)
    assert np.abs(mel - loaded.mel(wave)).max() < (0.5 if dtype in ("i1", "u1") else 0.02)
    mel += 1  # a copy of one's own
    loaded.synthesize(mel)[0] = 0


@pytest.mark.parametrize(
    ("audio", "reason"),
    [
        (np.zeros(4096, np.int64), "holds int64"),
        (np.zeros((0, 4096)), "shape"),
        (np.full(4096, 1e300), "no numbers"),
        (np.zeros(4096, object), "holds object"),
        (np.zeros(4096, bool), "holds bool"),
        (np.zeros(4096, complex), "holds complex"),
        (np.full(4096, np.nan), "no numbers"),
        (np.full(4096, 20000.0), "full scale is 1"),
        ([[0.0] * 4096, [0.0]], "must be an array"),
        ("text", "must be an array"),
        (None, "must be an array"),
    ],
)
def test_samples_that_are_none(model, audio, reason):
    with pytest.raises(InputError, match=f"^audio: .*{reason}"):
        vocoder.load(model).mel(audio)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_mels_that_are_none(model, value):
    loaded = vocoder.load(model)
    with pytest.raises(InputError, match="^mel: holds .* from frame 3 on"):
        loaded.synthesize(np.where(np.arange(8)[:, None] == 3, value, 0.0) * np.ones((8, 80)))
    with pytest.raises(InputError, match="^mel: holds int64"):
        loaded.synthesize(np.zeros((8, 80), int))
    with pytest.raises(InputError, match="^mel: .*swap the last two axes"):
        loaded.synthesize(np.zeros((80, 8)))


def test_each_folder_tells_how_its_squares_lie(model, rng, tmp_path, capsys):
    square = rng.standard_normal((80, 80)).astype(np.float32)
    for name in ("one", "turned", "alone"):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / f"{name}.npy", square)
        if name != "alone":
            np.save(tmp_path / name / "other.npy", square[:50] if name == "one" else square[:50].T)
    (tmp_path / "turned/other.npy").rename(tmp_path / "turned/another.npy")
    folders = [tmp_path / name for name in ("one", "turned", "alone")]
    assert command(model, *folders, "--out", tmp_path / "out", "--format", "float") == 0
    loaded = vocoder.load(model)
    for name, mel in {"one": square, "turned": square.T, "alone": square}.items():
        made = soundfile.read(tmp_path / f"out/{name}.wav", dtype="float32")[0]
        np.testing.assert_allclose(made, np.clip(loaded.synthesize(mel), -1, 1), atol=1e-5)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("note: ") and "alone.npy: has as many frames as bands" in line


@pytest.mark.parametrize(
    ("change", "reason"),
    [(lambda mel: 8.7 * mel - 40, "goes down to"), (lambda mel: mel + 20, "nowhere below 0")],
)
def test_mels_of_another_scale_are_noted_once(model, rng, tmp_path, capsys, change, reason):
    for i in range(3):
        mel = np.clip(rng.standard_normal((90, 80)) - 5, -11, 1)
        np.save(tmp_path / f"{i}.npy", change(mel).astype(np.float32))
    assert command(model, *tmp_path.glob("*.npy"), "--out", tmp_path / "out") == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("note: ") and reason in line


def test_samples_and_networks_with_nan(model, rng, tmp_path, capsys):
    samples = 0.1 * rng.standard_normal(70_000)
    soundfile.write(tmp_path / "good.wav", samples, 22050)
    samples[65_000] = np.nan
    soundfile.write(tmp_path / "nan.wav", samples, 22050, "FLOAT")
    inputs = tmp_path / "good.wav", tmp_path / "nan.wav"
    assert command(model, *inputs, "--out", tmp_path / "out") == 1
    assert "nan.wav: holds samples that are no numbers" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["good.wav"]
    loaded = vocoder.load(model)
    variable = loaded.generator.trainable_variables[0]
    variable.assign(np.full(variable.shape, np.nan))
    with pytest.raises(InputError, match="^mel: the model makes samples"):
        loaded.synthesize(np.zeros((5, 80), np.float32))
    assert synthesize.synthesize_files(loaded, inputs[:1], tmp_path / "other") == 1
    assert "good.wav: the model makes samples" in capsys.readouterr().err


def test_windows_and_batches_stay_below_what_is_asked_for(model, rng, monkeypatch):
    assert next(synthesize.windows(3000, (13, 13), most=200))[1] == 128
    assert next(synthesize.windows(3000, (60, 60), most=200))[1] == 256  # which its reach needs
    loaded = vocoder.load(model)
    generate, sizes = loaded.generate, []

    def counted(features):
        sizes.append(features["mel"].shape[0] * features["mel"].shape[1])
        return generate(features)

    monkeypatch.setattr(loaded, "generate", counted)
    mel = rng.standard_normal((30, 40, 80)).astype(np.float32)
    expected = generate({"mel": mel[[0, 29]]})
    np.testing.assert_allclose(loaded.synthesize(mel)[[0, 29]], expected, atol=1e-5)
    assert max(sizes) <= synthesize.BATCH_FRAMES["CPU"]


@pytest.mark.parametrize("padding", ["same", "center"])
def test_a_mel_in_parts_is_that_of_the_whole(rng, monkeypatch, padding):
    audio = AudioConfig(padding=padding)
    generator = HiFiGAN((8,), (16,), 16, head=HEAD, audio=vars(audio))
    loaded = synthesize.Vocoder(generator)
    samples = rng.uniform(-0.5, 0.5, (2, 30_000)).astype(np.float32)
    whole = np.asarray(MelSpectrogram(**vars(audio))(samples))
    monkeypatch.setattr(synthesize, "MEL_FRAMES", 62)
    np.testing.assert_allclose(loaded.mel(samples), whole, atol=1e-4)
    np.testing.assert_allclose(loaded.mel(samples[0]), whole[0], atol=1e-4)


def test_too_little_memory_costs_the_inputs_that_need_it(model, rng, tmp_path, capsys, monkeypatch):
    for name, frames in {"short": 20, "long": 128}.items():
        np.save(tmp_path / f"{name}.npy", rng.standard_normal((frames, 80)).astype(np.float32))
    loaded = vocoder.load(model)
    generate = loaded.generate

    def poor(features):
        if features["mel"].shape[1] > 100:
            raise MemoryError
        return generate(features)

    monkeypatch.setattr(loaded, "generate", poor)
    inputs = tmp_path / "long.npy", tmp_path / "short.npy"
    assert synthesize.synthesize_files(loaded, inputs, tmp_path / "out") == 1
    assert "long.npy: not enough memory for 128 frames; --batch" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["short.wav"]


@pytest.fixture
def small_files():
    """Limits the size of files, as a full disk does."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_what_can_not_be_written(model, rng, tmp_path, capsys, small_files):
    for frames in (10, 700, 900):
        np.save(tmp_path / f"{frames}.npy", rng.standard_normal((frames, 80)).astype(np.float32))
    inputs, loaded = sorted(tmp_path.glob("*.npy")), vocoder.load(model)
    small_files(100_000)
    assert synthesize.synthesize_files(loaded, inputs, tmp_path / "out") == 2
    printed = capsys.readouterr()
    assert "1 of 3 inputs" in printed.out and printed.err.count("can't be written") == 2
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["10.wav"]
    small_files(2000)  # not even what is tried beforehand
    with pytest.raises(InputError, match=r"^--out: .* can't be written to \(File too large\)"):
        synthesize.synthesize_files(loaded, inputs, tmp_path / "other")


def test_a_disk_that_is_full_in_between_ends_it_all(model, rng, tmp_path, capsys, small_files):
    for i in range(4):
        np.save(tmp_path / f"{i}.npy", rng.standard_normal((700, 80)).astype(np.float32))
    loaded = vocoder.load(model)
    generate = loaded.generate

    def filling(mel):
        small_files(2000)
        return generate(mel)

    loaded.generate = filling
    with pytest.raises(InputError, match="^--out: .* can't be written to"):
        synthesize.synthesize_files(loaded, sorted(tmp_path.glob("*.npy")), tmp_path / "out")
    assert not list((tmp_path / "out").iterdir()) and not capsys.readouterr().err


def test_no_link_is_followed_to_write(model, rng, tmp_path):
    np.save(tmp_path / "a.npy", rng.standard_normal((5, 80)).astype(np.float32))
    (tmp_path / "other").write_text("mine")
    (tmp_path / "out").mkdir()
    for name in (".a.wav.partial", "a.wav"):
        (tmp_path / "out" / name).symlink_to(tmp_path / "other")
    assert command(model, tmp_path / "a.npy", "--out", tmp_path / "out") == 0
    assert (tmp_path / "other").read_text() == "mine"
    assert [p.name for p in (tmp_path / "out").iterdir() if not p.is_symlink()] == ["a.wav"]


def test_odd_paths_are_told(model, rng, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", rng.standard_normal((5, 80)).astype(np.float32))
    os.replace("a.npy", "~nobody.npy")
    os.symlink("loop", "loop")
    odd = ["x" * 300, "loop", "loop/deeper", "a\nb"]
    assert command(model, "~nobody.npy", *odd, "--out", "out") == 1
    printed = capsys.readouterr()
    assert "1 of 5 inputs" in printed.out and len(printed.err.splitlines()) == 4
    for out in odd[:3]:
        assert command(model, "~nobody.npy", "--out", out) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
        assert command(out, "~nobody.npy", "--out", "out") == 2
        assert "no model" in capsys.readouterr().err


def test_a_damaged_run_names_what_may_be_whole(model, tmp_path, capsys):
    checkpoint = tmp_path / "run/checkpoints/step-00000004"
    checkpoint.mkdir(parents=True)
    (checkpoint / "info.json").write_text('{"step": 4, "measure": "loss", "value": null}')
    for name in ("state.index", "state.data-00000-of-00001"):
        (checkpoint / name).write_text("")
    shutil.copy(model, checkpoint)
    (tmp_path / "run/checkpoints/step-abc").mkdir()
    (tmp_path / "run/checkpoints/step-00000005").write_text("")
    # The run was killed before it could put it at the top.
    assert vocoder.load(tmp_path / "run").audio == AUDIO
    (tmp_path / "run/generator.keras").write_bytes(b"")
    assert command(tmp_path / "run", "x.wav", "--out", tmp_path / "out") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "run/generator.keras: " in line and f"{checkpoint}/generator.keras may be whole" in line
    (checkpoint / "generator.keras").unlink()
    assert command(checkpoint, "x.wav", "--out", tmp_path / "out") == 2
    assert "step-00000004: no model" in capsys.readouterr().err
