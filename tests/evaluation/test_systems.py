import os

import numpy as np
import pytest
import soundfile

from vocoder.audio import MelSpectrogram
from vocoder.audio.settings import AudioConfig
from vocoder.errors import InputError
from vocoder.evaluation import systems
from vocoder.evaluation.griffin_lim import GriffinLim
from vocoder.paths import asset


@pytest.mark.parametrize(
    ("models", "names"),
    [
        (["runs/a", "runs/b.keras"], ["a", "b"]),
        (["a/generator.keras", "b/generator.keras"], ["a", "b"]),
        (["x/a/step-1", "x/b/step-1"], ["a-step-1", "b-step-1"]),
        (["mine=x/a", "x/b"], ["mine", "b"]),
    ],
)
def test_names(models, names):
    assert [name for name, _ in systems.named(models)] == names
    assert [path for _, path in systems.named(models)] == [m.split("=")[-1] for m in models]


def test_a_link_has_its_own_name(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "best").symlink_to(tmp_path / "run")
    assert systems.named([f"{tmp_path}/best"]) == [("best", f"{tmp_path}/best")]


def test_a_folder_with_an_equals_sign(tmp_path):
    (tmp_path / "lr=1").mkdir()
    assert systems.named([f"{tmp_path}/lr=1"]) == [("lr=1", f"{tmp_path}/lr=1")]


def test_odd_names_of_models(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "lr=1").mkdir()
    found = systems.named(["~/lr=1", "~/b.keras", "x" * 300, os.fsdecode(b"latin-\xe9"), "c=~/d"])
    names = [name for name, _ in found]
    assert names[:2] == ["lr=1", "b"] and names[-1] == "c"
    assert all(name.isprintable() and len(name) < 255 for name in names)


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (["a", "./a"], "two are called 'a'"),
        (["a", "a"], "two are called 'a'"),
        (["x=a", "x=b"], "two are called 'x'"),
        (["x/y=a"], "'x/y' can't be the name of a"),
        (["=a"], "'' can't be the name of a"),
        (["/"], "'' can't be the name"),
        (["recordings=a"], "'recordings' is the name of a reference"),
        (["griffin-lim"], "'griffin-lim' is the name of a reference"),
    ],
)
def test_names_that_will_not_do(models, message):
    with pytest.raises(InputError, match=f"MODEL: {message}"):
        systems.named(models)


def model(name, **settings):
    return systems.System(name, AudioConfig(**settings), None, np.negative, is_model=True)


def test_references():
    a, b, c = model("a"), model("b"), model("c", sample_rate=24000)
    assert [s.name for s in systems.with_references([a, b])] == [
        "recordings", "griffin-lim", "a", "b",
    ]  # fmt: skip
    assert [s.name for s in systems.with_references([a, b, c])] == [
        "recordings-a", "griffin-lim-a", "recordings-c", "griffin-lim-c", "a", "b", "c",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"padding": "center", "log": "log10", "power": 2.0, "norm": None, "htk": True},
        {"n_fft": 2048, "hop_length": 300, "win_length": 1200, "n_mels": 100, "fmax": None},
        {"n_fft": 2048, "hop_length": 275, "win_length": 1100, "padding": "center"},
    ],
)
def test_griffin_lim_gives_the_mel_back(settings):
    audio = AudioConfig(**settings)
    speech = soundfile.read(asset("data/demo/slt/slt_001.flac"), dtype="float32")[0][:30_000]
    layer = MelSpectrogram(**vars(audio))
    mel = np.asarray(layer(speech[None]))[0]
    made = GriffinLim(audio).synthesize({"mel": mel})
    assert made.shape == (len(mel) * audio.hop_length,)
    again = np.asarray(layer(made[None].astype(np.float32)))[0]
    loud = mel > (mel.max() + mel.min()) / 2
    # Of the mels a frame before and after, those in place are by far the nearest.
    before, error, after = (
        np.abs(np.roll(again, by, axis=0) - mel)[loud].mean() for by in (-1, 0, 1)
    )
    assert error < 0.6 * min(before, after), (before, error, after)
