"""Checkpoints of the original networks, from tests/golden and from files made here."""

import json
import shutil
import sys
from pathlib import Path

import librosa
import numpy as np
import pytest
import yaml

import vocoder
from vocoder import convert
from vocoder.convert import vocos as formats
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


def extractor(**arguments):
    return {"class_path": "x.MelSpectrogramFeatures", "init_args": arguments}


@pytest.mark.parametrize(
    ("rate", "n_fft", "hop"), [(22050, 1024, 256), (44100, 2048, 512), (44100, 1764, 441)]
)
@pytest.mark.parametrize("inside", [False, True])
def test_vocos_of_other_mels(vocos, rate, n_fft, hop, inside, rng, tmp_path):
    """As BSC-LT/vocos-mel-22khz and patriotyk/vocos-mel-hifigan-compat-44100khz have them."""
    _, settings, _ = vocos
    settings["feature_extractor"] = extractor(
        sample_rate=rate, n_fft=n_fft, hop_length=hop, n_mels=80, padding="center", f_min=0,
        f_max=8000, norm="slaney", mel_scale="slaney",
    )  # fmt: skip
    settings["head"]["init_args"] |= {"n_fft": n_fft, "hop_length": hop, "padding": "center"}
    settings["backbone"]["init_args"]["input_channels"] = 80
    if inside:  # as in the config of a training run
        settings["feature_extractor"]["init_args"]["clip_val"] = "1e-5"
        settings = {"seed_everything": 1, "model": {"class_path": "x", "init_args": settings}}
    assert formats.matches(settings)
    generator = formats.build(settings)
    assert (generator.hop_length, generator.n_mels) == (hop, 80)
    audio = 0.1 * rng.standard_normal(20 * hop).astype(np.float32)
    expected = librosa.feature.melspectrogram(
        y=audio, sr=rate, n_fft=n_fft, hop_length=hop, n_mels=80, fmin=0, fmax=8000, power=1,
        pad_mode="reflect",
    )  # fmt: skip
    floor = 1e-5 if inside else 1e-7
    expected = np.log(np.maximum(expected, floor)).T[:-1]
    made = vocoder.synthesize.Vocoder(generator).mel(audio)
    np.testing.assert_allclose(made, expected, atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"f_max": 20000}, "f_max: 20000 is above half the sample rate"),
        ({"f_min": "low"}, "f_min: must be a finite number, not 'low'"),
        ({"norm": "l2"}, "norm: must be"),
        ({"mel_scale": "bark"}, "mel_scale: must be .htk. or .slaney., not 'bark'"),
        ({"normalized": True}, "normalized: only False is converted"),
        ({"pad": 3}, "pad: only 0 is converted"),
        ({"pad_mode": "constant"}, "pad_mode: only 'reflect' is converted"),
        ({"center": False}, "center: only as padding says it is converted"),
        ({"power": 3}, "power: must be 1 or 2"),
        ({"n_fft": 1024.0}, "n_fft: must be a whole number, not 1024.0"),
        ({"sample_rate": float("inf")}, "sample_rate: must be a whole number, not inf"),
        ({"mel_scales": "htk"}, "mel_scales: unknown 'mel_scales'; did you mean 'mel_scale'"),
    ],
)
def test_other_mels_at_fault(vocos, arguments, message):
    _, settings, _ = vocos
    settings["feature_extractor"] = extractor(**arguments)
    with pytest.raises((ValueError, InputError), match=f"feature_extractor.init_args.{message}"):
        formats.build(settings)


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


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state},
        lambda state: {"model": {"generator": state}, "optimizer": {"lr": 1}, "steps": 3},
        lambda state: {"generator": {f"module.{name}": v for name, v in state.items()}},
        lambda state: {f"generator.{name}": v for name, v in state.items()},
        lambda state: {
            "epoch": 3,
            "state_dict": {
                **{f"model.generator.{name}": v for name, v in state.items()},
                "model.mpd.discriminators.0.convs.0.bias": torch.zeros(3),
            },
        },
    ],
)
def test_whatever_a_generator_was_saved_in(wrap, golden, tmp_path, capsys):
    checkpoint, config = files("hifigan_tiny_rb2")
    wrapped = wrap(torch.load(checkpoint, weights_only=True)["generator"])
    torch.save(wrapped, tmp_path / "c.pth")
    model = convert.convert(tmp_path / "c.pth", config, tmp_path / "o.keras")
    reference = golden("hifigan_tiny_rb2")
    np.testing.assert_allclose(model(reference["mel"][None])[0], reference["wav"], atol=1e-4)
    told = "1 names that don't begin with model.generator. left out"
    assert (told in capsys.readouterr().out) == ("epoch" in wrapped)


@pytest.mark.parametrize(
    ("file", "config"),
    [
        ("vocos_tiny.bin", "hifigan_tiny_rb1.json"),
        ("hifigan_tiny_rb1.pth", "vocos_tiny.yaml"),
        ("hifigan_tiny_rb1.pth", "bigvgan_tiny_base.json"),
        ("bigvgan_tiny_base.pt", "hifigan_tiny_rb1.json"),
        ("hifigan_tiny_rb2.pth", "hifigan_tiny_rb1.json"),
    ],
)
@pytest.mark.filterwarnings("ignore:Empty filters detected")
def test_another_network_is_told_in_a_line(file, config, tmp_path):
    out = tmp_path / "o.keras"
    with pytest.raises(InputError, match=f"{file}: not of .* as its config says: of") as error:
        convert.convert(GOLDEN / file, GOLDEN / config, out)
    assert len(str(error.value).splitlines()) == 1 and not out.exists()


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sampling_rate": float("inf")}, "sampling_rate: must be a whole number, not inf"),
        ({"hop_size": 256.5}, "hop_size: must be a whole number, not 256.5"),
        ({"fmax": "8k"}, "fmax: must be a finite number"),
        ({"fmax": 1e9}, "fmax: 1e\\+09 is above half the sample rate"),
        ({"num_mels": [80]}, "num_mels: must be a whole number"),
        ({"n_fft": None}, "n_fft: must be a whole number, not None"),
        ({"resblock": "3"}, "resblock: must be a whole number, not '3'"),
        ({"resblock": True}, "resblock: must be a whole number, not True"),
        ({"upsample_rates": 8}, "upsample_rates: must be a list"),
        ({"upsample_rates": [8.0, 8, 4]}, "upsample_rates: must be a whole number, not 8.0"),
        ({"upsample_initial_channel": 2**31}, "upsample_initial_channel: must be at most"),
        ({"upsample_initial_channel": 2**15}, "c.pth: has .* numbers, less than a tenth"),
        ({"resblock_dilation_sizes": [[1], 2]}, "resblock_dilation_sizes: "),
    ],
)
def test_settings_at_fault(checkpoint, change, message):
    _, settings, converted = checkpoint
    settings.update(change)
    with pytest.raises(InputError, match=message) as error:
        converted()
    assert len(str(error.value).splitlines()) == 1


def sparse(state):
    state["conv_pre.bias"] = state["conv_pre.bias"].to_sparse()


def quantized(state):
    state["conv_pre.bias"] = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)


def without_values(state):
    state["conv_pre.bias"] = torch.empty(16, device="meta")


def complex_numbers(state):
    state["conv_pre.bias"] = torch.ones(16, dtype=torch.complex64)


def bools(state):
    state["conv_pre.bias"] = torch.ones(16, dtype=torch.bool)


def expanded(state):
    state["conv_pre.bias"] = torch.ones(1).expand(2**40)


def not_finite(state):
    state["conv_pre.bias"][3] = float("nan")


def without_axes(state):
    state["conv_pre.bias"] = torch.tensor(1.0)


def number_as_name(state):
    state[3] = torch.zeros(3)


def bytes_as_name(state):
    state[b"conv"] = torch.zeros(3)


def text_as_tensor(state):
    state["conv_pre.bias"] = "x"


def escapes_as_name(state):
    state["\x1b[31m\n"] = torch.zeros(3)


def flat_direction(state):
    state["conv_pre.weight_v"] = state["conv_pre.weight_v"].flatten()


def other_length(state):
    state["conv_pre.weight_g"] = torch.ones(3, 1, 1)


def no_direction(state):
    state["conv_pre.weight_v"] = 0 * state["conv_pre.weight_v"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (sparse, "conv_pre.bias is a sparse"),
        (quantized, "conv_pre.bias is a sparse, quantized"),
        (without_values, "conv_pre.bias is a tensor without values"),
        (complex_numbers, "conv_pre.bias is a tensor of complex64"),
        (bools, "conv_pre.bias is a tensor of bool"),
        (expanded, "conv_pre.bias is a tensor of more numbers than are stored"),
        (not_finite, "conv_pre.bias is NaN or infinity"),
        (without_axes, r"conv_pre.bias has shape \(\), not \(32,\)"),
        (number_as_name, "holds no tensors of a generator of HiFi-GAN"),
        (bytes_as_name, "holds no tensors"),
        (text_as_tensor, "holds no tensors"),
        (escapes_as_name, r"\\x1b\[31m\\n has no place"),
        (flat_direction, "conv_pre.weight is missing"),
        (other_length, "conv_pre.weight is missing"),
        (no_direction, "conv_pre.weight is NaN or infinity"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # PyTorch's, of kinds that are beta
def test_what_is_no_weights(checkpoint, tmp_path, change, message):
    state, _, converted = checkpoint
    change(state)
    with pytest.raises(InputError, match=f"c.pth: {message}") as error:
        converted()
    assert all(line.startswith(str(tmp_path)) for line in str(error.value).splitlines())
    assert not (tmp_path / "o.keras").exists()


@pytest.mark.parametrize(
    "loaded", [[], 3, {}, {"generator": []}, {"state_dict": {}}, torch.ones(2)]
)
def test_what_is_no_checkpoint(loaded, tmp_path):
    torch.save(loaded, tmp_path / "c.pth")
    with pytest.raises(InputError, match="c.pth: holds no") as error:
        convert.convert(tmp_path / "c.pth", files("hifigan_tiny_rb2")[1], tmp_path / "o.keras")
    assert len(str(error.value).splitlines()) == 1


def test_what_is_written_replaces_a_file_and_nothing_that_is_read(checkpoint, tmp_path):
    _, _, converted = checkpoint
    out = tmp_path / "o.keras"
    out.write_text("before")
    converted()
    assert vocoder.load(out).audio.sample_rate == 22050
    assert {path.name for path in tmp_path.iterdir()} == {"c.pth", "c.json", "o.keras"}
    same = tmp_path / "link.keras"
    same.symlink_to("c.pth")
    for path, message in (
        (tmp_path / "folder.keras", "is a folder"),
        (out / "below.keras", "can't be written"),
        (Path("/proc/none/o.keras"), "can't be written"),
        (same, "would be written over .*c.pth, which is read"),
        (tmp_path / f"{'n' * 300}.keras", "can't be written"),
    ):
        (tmp_path / "folder.keras").mkdir(exist_ok=True)
        with pytest.raises(InputError, match=message) as error:
            convert.convert(tmp_path / "c.pth", tmp_path / "c.json", path)
        assert str(error.value).startswith(str(path))
    assert torch.load(tmp_path / "c.pth", weights_only=True)["generator"]
    assert not list(tmp_path.glob(".*"))
    convert.convert(tmp_path / "c.pth", tmp_path / "c.json", tmp_path / "a/b/o.keras")
    assert vocoder.load(tmp_path / "a/b/o.keras").audio.sample_rate == 22050


def test_without_torch_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match="^torch: not installed; pip install torch"):
        convert.convert(*files("hifigan_tiny_rb2"), tmp_path / "o.keras")


class Original(torch.nn.Module):
    """HiFi-GAN's generator with residual blocks of kind 2, padded by (taps - rate) // 2."""

    def __init__(self, rates, kernels, channels, n_mels):
        super().__init__()
        self.conv_pre = torch.nn.Conv1d(n_mels, channels, 7, padding=3)
        self.ups, self.resblocks = torch.nn.ModuleList(), torch.nn.ModuleList()
        for rate, taps in zip(rates, kernels, strict=True):
            up = torch.nn.ConvTranspose1d(
                channels, channels // 2, taps, rate, padding=(taps - rate) // 2
            )
            self.ups.append(up)
            channels //= 2
            block = torch.nn.Module()
            block.convs = torch.nn.ModuleList([torch.nn.Conv1d(channels, channels, 3, padding=1)])
            self.resblocks.append(block)
        self.conv_post = torch.nn.Conv1d(channels, 1, 7, padding=3)

    def forward(self, x):
        relu = torch.nn.functional.leaky_relu
        x = self.conv_pre(x)
        for up, block in zip(self.ups, self.resblocks, strict=True):
            x = up(relu(x, 0.1))
            x = x + block.convs[0](relu(x, 0.1))
        return torch.tanh(self.conv_post(relu(x)))[:, 0]


def test_stages_of_an_odd_difference_are_those_of_the_original(rng, tmp_path):
    """As in AudioLDM's network of 160 samples a frame: what it makes more is cut off at the end."""
    rates, kernels = [5, 4, 2, 2, 2], [16, 16, 8, 4, 4]
    original = Original(rates, kernels, 32, 8)
    for parameter in original.parameters():
        parameter.data *= 2
    torch.save({"generator": original.state_dict()}, tmp_path / "c.pth")
    settings = json.loads(files("hifigan_tiny_rb2")[1].read_text()) | {
        "upsample_rates": rates, "upsample_kernel_sizes": kernels, "upsample_initial_channel": 32,
        "resblock_kernel_sizes": [3], "resblock_dilation_sizes": [[1]], "num_mels": 8,
        "hop_size": 160, "sampling_rate": 16000,
    }  # fmt: skip
    (tmp_path / "c.json").write_text(json.dumps(settings))
    convert.convert(tmp_path / "c.pth", tmp_path / "c.json", tmp_path / "o.keras")
    model = vocoder.load(tmp_path / "o.keras")
    for frames in (1, 9, 300):  # 300 in windows
        mel = rng.standard_normal((frames, 8)).astype(np.float32)
        with torch.no_grad():
            expected = original(torch.tensor(mel.T)[None]).numpy()[0]
        assert len(expected) == frames * 160 + 32
        np.testing.assert_allclose(model.synthesize(mel), expected[: frames * 160], atol=1e-4)


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
