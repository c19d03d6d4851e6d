"""Checkpoints of the original networks, from tests/golden and from files made here."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

import vocoder
from vocoder import convert
from vocoder.errors import InputError

GOLDEN = Path(__file__).parent / "golden"
torch = pytest.importorskip("torch", reason="pip install vocoder[torch]")


def files(name):
    return GOLDEN / f"{name}.pth", GOLDEN / f"{name}.json"


@pytest.mark.parametrize("name", ["hifigan_tiny_rb1", "hifigan_tiny_rb2"])
def test_output_equals_the_original(golden, name, tmp_path):
    convert.main([*map(str, files(name)), str(tmp_path / "out.keras")])
    model = vocoder.load(tmp_path / "out.keras")
    assert (model.audio.sample_rate, model.audio.fmax) == (22050, 8000)
    reference = golden(name)
    np.testing.assert_allclose(model.synthesize(reference["mel"]), reference["wav"], atol=1e-4)


def test_bigvgan_equals_the_original(golden, tmp_path):
    files = GOLDEN / "bigvgan_tiny_base.pt", GOLDEN / "bigvgan_tiny_base.json"
    convert.main([*map(str, files), str(tmp_path / "out.keras")])
    model = vocoder.load(tmp_path / "out.keras")
    assert (model.audio.sample_rate, model.audio.fmax) == (22050, 8000)
    reference = golden("bigvgan_tiny_base")
    made = np.asarray(model.generator(reference["mel"][None]))[0]
    np.testing.assert_allclose(made, reference["wav"], atol=1e-4)


@pytest.fixture
def vocos(tmp_path):
    """Vocos' checkpoint and config to tamper with, and how to convert them."""
    state = torch.load(GOLDEN / "vocos_tiny.bin", weights_only=True)
    settings = yaml.safe_load((GOLDEN / "vocos_tiny.yaml").read_text())

    def converted():
        torch.save(state, tmp_path / "pytorch_model.bin")
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
        out = tmp_path / "vocos.keras"
        convert.main([*map(str, (tmp_path / "pytorch_model.bin", tmp_path / "config.yaml", out))])
        return vocoder.load(out)

    return state, settings, converted


@pytest.mark.parametrize("padding", ["same", "center"])
@pytest.mark.filterwarnings("ignore:Empty filters detected")  # 80 bands of 33 bins
def test_vocos_equals_the_original(vocos, padding, golden):
    state, settings, converted = vocos
    for part in ("feature_extractor", "head"):
        settings[part]["init_args"]["padding"] = padding
    state["feature_extractor.mel_spec.spectrogram.window"] = torch.ones(64)  # as published
    model = converted()
    audio = model.audio
    assert (audio.sample_rate, audio.padding, audio.floor) == (24000, padding, 1e-7)
    assert (audio.htk, audio.norm, audio.fmax, audio.magnitude_epsilon) == (True, None, None, 0)
    reference = golden("vocos_tiny")
    expected = reference[f"wav_{padding}"]
    made = model.synthesize(reference["mel"])
    assert made.shape == (32 * 16,)
    np.testing.assert_allclose(made[: len(expected)], expected, atol=1e-4)


def test_every_fault_of_a_vocos_is_told(vocos, tmp_path, capsys):
    state, settings, converted = vocos
    del state["backbone.norm.bias"]
    state["backbone.convnext.1.dwconv.weight"] = torch.zeros(32, 32, 7)
    state["backbone.convnext.9.gamma"] = torch.zeros(32)
    with pytest.raises(SystemExit):
        converted()
    error = capsys.readouterr().err
    assert "backbone.norm.bias is missing" in error
    assert "dwconv.weight has shape (32, 32, 7), not (32, 1, 7)" in error
    assert "backbone.convnext.9.gamma has no place" in error
    assert len(error.splitlines()) == 3

    for change, message in (
        ({"head": {"class_path": "os.system"}}, "head.class_path: only ISTFTHead is converted"),
        ({"head": 3}, "head is no class_path"),
        ({"backbone": {"class_path": "VocosBackbone"}}, "input_channels, dim, .* missing"),
        (
            {"feature_extractor": {"class_path": "vocos.feature_extractors.EncodecFeatures"}},
            "feature_extractor.class_path: only MelSpectrogramFeatures",
        ),
        (
            {"backbone": {"class_path": "VocosBackbone", "init_args": {"adanorm": 4}}},
            "backbone.init_args.adanorm: unknown",
        ),
    ):
        (tmp_path / "c.yaml").write_text(yaml.safe_dump(settings | change))
        with pytest.raises(InputError, match=f"c.yaml: .*{message}"):
            convert.convert(Path("c.bin"), tmp_path / "c.yaml", Path("o.keras"))
    (tmp_path / "c.yaml").write_text("backbone: !!python/object/apply:os.getcwd []")
    with pytest.raises(InputError, match="c.yaml: can't be read as plain YAML"):
        convert.convert(Path("c.bin"), tmp_path / "c.yaml", Path("o.keras"))


@pytest.fixture
def checkpoint(tmp_path):
    """A copy to tamper with: its state, its config, and how to convert it."""
    checkpoint, config = files("hifigan_tiny_rb2")
    loaded = torch.load(checkpoint, weights_only=True)
    settings = json.loads(config.read_text())

    def converted():
        torch.save(loaded, tmp_path / "c.pth")
        (tmp_path / "c.json").write_text(json.dumps(settings))
        return convert.convert(tmp_path / "c.pth", tmp_path / "c.json", tmp_path / "o.keras")

    return loaded["generator"], settings, converted


def test_names_of_newer_torch_and_folded_weights(checkpoint, golden):
    state, _, converted = checkpoint
    for name in [name for name in state if name.endswith("weight_g")]:
        stem = name.removesuffix("weight_g")
        g, v = state.pop(name), state.pop(stem + "weight_v")
        if stem.startswith("ups"):
            state[stem + "weight"] = torch._weight_norm(v, g, 0)
        else:
            state[stem + "parametrizations.weight.original0"] = g
            state[stem + "parametrizations.weight.original1"] = v
    reference = golden("hifigan_tiny_rb2")
    made = np.asarray(converted()(reference["mel"][None]))[0]
    np.testing.assert_allclose(made, reference["wav"], atol=1e-4)


def test_every_fault_is_told(checkpoint, tmp_path):
    state, _, converted = checkpoint
    del state["conv_pre.bias"]
    del state["ups.1.weight_g"]
    state["conv_post.bias"] = torch.zeros(3)
    state["resblocks.0.convs.0.weight_v"] = state["resblocks.0.convs.0.weight_v"][..., :2]
    state["conv_middle.weight"] = torch.zeros(1)
    with pytest.raises(InputError) as error:
        converted()
    lines = str(error.value).splitlines()
    for fault in (
        "conv_pre.bias is missing",
        "ups.1.weight is missing",
        "ups.1.weight_v has no place",
        "conv_post.bias has shape (3,), not (1,)",
        "resblocks.0.convs.0.weight has shape (16, 16, 2), not (16, 16, 3)",
        "conv_middle.weight has no place",
    ):
        assert sum(fault in line for line in lines) == 1, (fault, lines)
    assert len(lines) == 6
    assert not (tmp_path / "o.keras").exists()


def test_config_that_does_not_fit(checkpoint):
    _, settings, converted = checkpoint
    settings["hop_size"] = 300
    with pytest.raises(InputError, match="c.json: upsample_rates: 8 x 8 x 4 makes 256"):
        converted()
    del settings["hop_size"], settings["num_mels"]
    with pytest.raises(InputError, match="c.json: .*hop_size, num_mels missing"):
        converted()


class Evil:
    def __reduce__(self):
        return Path.touch, (Path("touched"),)


def test_no_code_of_the_checkpoint_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"generator": Evil()}, "evil.pth")
    shutil.copy(files("hifigan_tiny_rb2")[1], "c.json")
    with pytest.raises(InputError, match="evil.pth: not a checkpoint that PyTorch reads safely"):
        convert.convert(Path("evil.pth"), Path("c.json"), Path("o.keras"))
    assert not Path("touched").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone.pth", "c.json", "o.keras"], "gone.pth: no such file"),
        (["c.json", "c.json", "o.keras"], "c.json: not a checkpoint"),
        (["gone.pth", "gone.json", "o.keras"], "gone.json: can't be read"),
        (["gone.pth", "c.json", "o.h5"], "o.h5: the output's name must end in .keras"),
    ],
)
def test_mistakes_end_with_code_2(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copy(files("hifigan_tiny_rb2")[1], "c.json")
    with pytest.raises(SystemExit) as stop:
        convert.main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
