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
from vocoder.safe_files import load_discriminators

GOLDEN = Path(__file__).parent / "golden"
torch = pytest.importorskip("torch", reason="pip install torch")


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


class Stack(torch.nn.Module):
    """One of the original's sub-discriminators, narrow: its convolutions and its scores."""

    def __init__(self, cls, tail, channels, kernels, strides, groups, norm):
        super().__init__()
        before = [1, *channels[:-1]]
        self.convs = torch.nn.ModuleList(
            norm(cls(i, o, (k, *tail), (s, *tail), (k // 2, *([0] * len(tail))), groups=g))
            for i, o, k, s, g in zip(before, channels, kernels, strides, groups, strict=True)
        )
        padding = (1, *([0] * len(tail)))
        self.conv_post = norm(cls(channels[-1], 1, (3, *tail), padding=padding))

    def forward(self, x):
        for convolution in self.convs:
            x = torch.nn.functional.leaky_relu(convolution(x), 0.1)
        return self.conv_post(x)


class Several(torch.nn.Module):
    def __init__(self, stacks):
        super().__init__()
        self.discriminators = torch.nn.ModuleList(stacks)


def originals(new_names):
    """A narrow MPD and MSD with random weights, under the names of older or newer PyTorch."""
    utils = torch.nn.utils.parametrizations if new_names else torch.nn.utils
    weight, spectral = utils.weight_norm, utils.spectral_norm
    period = (torch.nn.Conv2d, (1,), (4, 8, 8, 8, 8), (5,) * 5, (3, 3, 3, 3, 1), (1,) * 5)
    kernels, groups = (15, 41, 41, 41, 41, 41, 5), (1, 2, 4, 4, 4, 4, 1)
    scale = (torch.nn.Conv1d, (), (8,) * 7, kernels, (1, 2, 2, 4, 4, 1, 1), groups)
    mpd = Several([Stack(*period, weight) for _ in range(5)])
    msd = Several([Stack(*scale, spectral), Stack(*scale, weight), Stack(*scale, weight)])
    for module in (mpd, msd):
        for name, parameter in module.named_parameters():
            if name.endswith(("weight_g", "original0")):
                parameter.data *= 1 + torch.rand_like(parameter)
    return mpd, msd


def saved(path, mpd, msd):
    optimizer = torch.optim.AdamW(mpd.parameters()).state_dict()
    loaded = {"mpd": mpd.state_dict(), "msd": msd.state_dict()}
    loaded |= {"optim_g": optimizer, "optim_d": optimizer, "steps": 3, "epoch": 1}
    torch.save(loaded, path)
    return loaded


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
@pytest.mark.parametrize("new_names", [False, True])
def test_discriminators_go_on_as_the_original(new_names, rng, tmp_path, capsys):
    mpd, msd = originals(new_names)
    saved(tmp_path / "do_00000003", mpd, msd)
    config = files("hifigan_tiny_rb2")[1]
    out = tmp_path / "discriminators.keras"
    convert.main([str(tmp_path / "do_00000003"), str(config), str(out)])
    told = capsys.readouterr().out
    assert "optim_g, optim_d, steps, epoch left out" in told
    count = sum(p.numel() for module in (mpd, msd) for p in module.parameters())
    assert f"{count:,} parameters" in told

    discriminators = load_discriminators(out)
    wave = rng.standard_normal((2, 770)).astype(np.float32)
    # In training, a call first takes the singular vectors on: u and v came along. Newer PyTorch
    # begins with u instead of v, which makes a difference until they have settled.
    training = not new_names
    maps = discriminators(wave, training=training)
    scores = {name: np.asarray(features[-1])[..., 0] for name, features in maps.items()}
    pool = torch.nn.AvgPool1d(4, 2, padding=2)
    with torch.no_grad():
        signal = torch.tensor(wave)[:, None]
        for period, one in zip((2, 3, 5, 7, 11), mpd.train(training).discriminators, strict=True):
            whole = torch.nn.functional.pad(signal, (0, -770 % period), "reflect")
            expected = one(whole.reshape(2, 1, -1, period))[:, 0].transpose(1, 2)
            np.testing.assert_allclose(scores[f"mpd_{period}"], expected, atol=1e-4)
        for scale, one in zip((1, 2, 4), msd.train(training).discriminators, strict=True):
            signal = pool(signal) if scale > 1 else signal
            np.testing.assert_allclose(scores[f"msd_{scale}"], one(signal), atol=1e-4)


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
def test_every_fault_of_discriminators_is_told(tmp_path):
    path = tmp_path / "do_3"
    loaded = saved(path, *originals(False))
    del loaded["mpd"]["discriminators.1.conv_post.bias"]
    del loaded["msd"]["discriminators.0.convs.2.weight_u"]
    loaded["msd"]["discriminators.3.conv_post.bias"] = torch.zeros(1)
    loaded["mpd"]["discriminators.4.convs.1.weight_v"] = torch.zeros(8, 4, 3, 1)
    torch.save(loaded, path)
    config, out = files("hifigan_tiny_rb2")[1], tmp_path / "o.keras"
    with pytest.raises(InputError) as error:
        convert.convert(path, config, out)
    lines = str(error.value).splitlines()
    for fault in (
        "mpd.discriminators.1.conv_post.bias is missing",
        "msd.discriminators.0.convs.2.weight_u is missing",
        "msd.discriminators.3.conv_post.bias has no place",
        "mpd.discriminators.4.convs.1.weight_v has shape (8, 4, 3, 1), not (8, 4, 5, 1)",
    ):
        assert sum(fault in line for line in lines) == 1, (fault, lines)
    assert len(lines) == 4 and not out.exists()
    for name in [name for name in loaded["mpd"] if ".convs.4." in name]:
        del loaded["mpd"][name]
    torch.save(loaded, path)
    with pytest.raises(InputError, match="do_3: mpd: strides: 5 of them for 4 channels"):
        convert.convert(path, config, out)
    torch.save({"mpd": 3, "msd": loaded["msd"]}, path)
    with pytest.raises(InputError, match='do_3: holds no tensors of "mpd"'):
        convert.convert(path, config, out)


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
