"""Files from strangers, each made here: refused by name in one line, and no code of theirs runs."""

import io
import json
import sys
import zipfile

import h5py
import keras
import numpy as np
import pytest
import yaml
from hydra import compose, initialize_config_dir

import vocoder
from vocoder import safe_files, synthesize
from vocoder.audio.settings import AudioConfig
from vocoder.composition import register_resolvers, with_resumed_overrides
from vocoder.config import RunConfig
from vocoder.errors import InputError
from vocoder.generators import BigVGAN, HiFiGAN, Vocos
from vocoder.overrides import hydra_errors_as_input_errors
from vocoder.paths import asset

SMALL = {"upsample_kernel_sizes": (16,), "upsample_initial_channel": 8, "resblock": 2}
ISTFT = {"upsample_rates": (8,), "head": {"name": "istft", "n_fft": 128, "hop_length": 32}}
PLAIN = {"upsample_rates": (8,)}
TINY_VOCOS = {
    "dim": 8,
    "intermediate_dim": 8,
    "num_layers": 1,
    "head": {
        "name": "griffin_lim", "n_fft": 32, "hop_length": 8, "padding": "center", "iterations": 2,
    },
}  # fmt: skip


def made(weight_norm=False, dtype=None, **arguments):
    hop = 8 * arguments.get("head", {}).get("hop_length", 1)
    audio = vars(AudioConfig(hop_length=hop))
    generator = HiFiGAN(**SMALL, **arguments, audio=audio, weight_norm=weight_norm, dtype=dtype)
    generator.build((None, None, 80))
    return generator


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "good.keras"
    made(**PLAIN).save(path)
    return path


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder; hostile code would make `touched` in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def refused(path, *parts, load=vocoder.load):
    with pytest.raises(InputError) as error:
        load(path)
    message = str(error.value)
    assert len(message.splitlines()) == 1
    for part in (path.name, *parts):
        assert part in message, message
    assert not list(path.parent.rglob("touched"))


def rewritten(good, path, config=None, weights=None, extra=()):
    """A copy of a good file with another config or weights, and with more members."""
    with zipfile.ZipFile(good) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    if config is not None:
        members["config.json"] = json.dumps(config)
    if weights is not None:
        members["model.weights.h5"] = weights
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        for name, content in extra:
            archive.writestr(name, content)
    return path


def config_of(path):
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("config.json"))


@pytest.mark.parametrize("head", [PLAIN, ISTFT], ids=["plain", "istft"])
@pytest.mark.parametrize("weight_norm", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_good_files_load(head, weight_norm, dtype, tmp_path):
    generator = made(weight_norm, dtype, **head)
    generator.save(tmp_path / "good.keras")
    loaded = vocoder.load(tmp_path / "good.keras").generator
    assert loaded.get_config() == generator.get_config()
    for ours, theirs in zip(loaded.get_weights(), generator.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    if weight_norm:
        generator.folded().save(tmp_path / "folded.keras")
        vocoder.load(tmp_path / "folded.keras")


@pytest.fixture(scope="module")
def good_discriminators(tmp_path_factory):
    from vocoder.discriminators import CombinedDiscriminator, MultiPeriodDiscriminator

    path = tmp_path_factory.mktemp("good") / "discriminators.keras"
    discriminators = CombinedDiscriminator([MultiPeriodDiscriminator((2,), (4,), (5,), (3,))])
    discriminators.build()
    discriminators.save(path)
    return path


def test_discriminators_are_no_generators_and_the_reverse(folder, good, good_discriminators):
    loaded = safe_files.load_discriminators(good_discriminators)
    assert loaded.sub_discriminators == ["mpd_2"]
    refused(good, "no discriminators of vocoder", load=safe_files.load_discriminators)
    refused(good_discriminators, "no generator of vocoder")


def test_hostile_parts_of_discriminators(folder, good, good_discriminators):
    part = config_of(good_discriminators)["config"]["parts"][0]
    lambda_layer = {"class_name": "Lambda", "module": "keras.layers", "config": {}}
    for name, parts, message in (
        ("lambda", [part, lambda_layer], "Lambda"),
        ("generator", [config_of(good)], "not a model that can be loaded"),
        ("argument", [part | {"config": {"periods": [lambda_layer]}}], "Lambda"),
        ("path", [part | {"module": "os", "registered_name": None}], "os.MultiPeriod"),
    ):
        config = config_of(good_discriminators)
        config["config"]["parts"] = parts
        path = rewritten(good_discriminators, folder / f"{name}.keras", config)
        refused(path, message, load=safe_files.load_discriminators)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize(
    ("cls", "arguments"),
    [
        (BigVGAN, SMALL | PLAIN),
        (Vocos, TINY_VOCOS),
    ],
)
def test_other_generators_load(cls, arguments, dtype, tmp_path):
    audio = vars(AudioConfig(hop_length=8))
    generator = cls(**arguments, audio=audio, dtype=dtype)
    generator.build((None, None, 80))
    for model in (generator, generator.folded()):
        model.save(tmp_path / "good.keras")
        loaded = vocoder.load(tmp_path / "good.keras").generator
        assert type(loaded) is cls and loaded.get_config() == model.get_config()
        for ours, theirs in zip(loaded.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def places(node):
    """Every place of a config, as (the container, the key or index)."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        if key in ("build_config", "compile_config"):
            continue  # not read
        yield node, key
        if isinstance(value, dict | list):
            yield from places(value)


WRONG = [8.0, 2**31, -1, float("nan"), True, None, "x", []]
NARROW = {
    "hifigan": (HiFiGAN, SMALL | PLAIN),
    "istft": (HiFiGAN, SMALL | ISTFT),
    "bigvgan": (BigVGAN, SMALL | PLAIN),
    "vocos": (Vocos, TINY_VOCOS | {"prior": "mel"}),
}


def narrow(name):
    """A generator of four bands."""
    cls, arguments = NARROW[name]
    few = (
        {} if cls is Vocos else {"resblock_kernel_sizes": (3,), "resblock_dilation_sizes": ((1,),)}
    )
    hop = 256 if name == "istft" else 8
    n_fft = 32 if cls is Vocos else 1024
    audio = AudioConfig(n_fft=n_fft, hop_length=hop, win_length=n_fft, n_mels=4, padding="center")
    generator = cls(**(arguments | few), audio=vars(audio))
    generator.build((None, None, 4))
    return generator


def taken_or_refused(path, config, weights, load, call):
    """Whether a file with this config is taken: whole, then. Otherwise it is refused in a line."""
    try:
        model = load(rewritten(path, path.with_name("wrong.keras"), config))
    except InputError as error:
        assert len(str(error).splitlines()) == 1 and "wrong.keras" in str(error)
        return False
    network = getattr(model, "generator", model)
    for ours, theirs in zip(network.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for output in keras.tree.flatten(call(network)):
        assert np.isfinite(output).all()
    return True


def tried(path, load, call):
    """How often a file with a wrong value in one place of its config is taken and refused."""
    config, weights = config_of(path), keras.saving.load_model(path).get_weights()
    answers = []
    for container, key in list(places(config["config"])):
        right = container[key]
        for container[key] in WRONG:
            answers.append(taken_or_refused(path, config, weights, load, call))
        container[key] = right
    assert taken_or_refused(path, config, weights, load, call)
    return answers.count(True), answers.count(False)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Empty filters detected")
@pytest.mark.parametrize("name", NARROW)
def test_every_argument_of_a_generator_is_of_its_kind(name, folder):
    narrow(name).save("good.keras")
    mel = np.zeros((1, 3, 4), np.float32)
    taken, refused = tried(folder / "good.keras", vocoder.load, lambda network: network(mel))
    assert taken < 20 and refused > 200


@pytest.mark.slow
def test_every_argument_of_discriminators_is_of_its_kind(folder):
    from vocoder import discriminators as d

    parts = [
        d.MultiPeriodDiscriminator((2,), (2,), (3,), (1,)),
        d.MultiScaleDiscriminator(("spectral",), (2,), (3,), (1,), (1,)),
        d.MultiResolutionDiscriminator((32,), (8,), (32,), (2,), ((3, 3),), ((1, 1),), peak=0.8),
    ]
    network = d.CombinedDiscriminator(parts)
    network.build()
    network.save("good.keras")
    wave = np.ones((1, 64), np.float32)
    load = safe_files.load_discriminators
    taken, refused = tried(folder / "good.keras", load, lambda network: network(wave))
    assert taken < 30 and refused > 200


@pytest.mark.parametrize(
    ("name", "key", "wrong", "message"),
    [
        ("vocos", "dim", 8.0, "dim: must be a whole number, not 8.0"),
        ("vocos", "num_layers", 10**9, "num_layers: must be at most 256"),
        ("vocos", "dim", 2**16, "its config is of .* numbers, its weights are"),
        ("vocos", "num_layers", 2, "its config is of"),
        ("vocos", "head", TINY_VOCOS["head"] | {"name": "istft"}, "head.iterations: unknown"),
        (
            "vocos",
            "head",
            TINY_VOCOS["head"] | {"iterations": float("nan")},
            "head.iterations: must be a whole",
        ),
        ("vocos", "head", TINY_VOCOS["head"] | {"n_fft": 24}, "prior: needs"),
        ("vocos", "dtype", "float64", "dtype: unknown 'float64'"),
        ("bigvgan", "activation", ["snake"], "activation: must be"),
        ("bigvgan", "activation", "snake", "not a model that can be loaded"),
        ("hifigan", "upsample_rates", [8.0], "upsample_rates: must be a whole number, not 8.0"),
        ("hifigan", "upsample_rates", 8, "upsample_rates: must be a list"),
        ("hifigan", "resblock", True, "resblock: must be a whole number, not True"),
        ("hifigan", "istft_n_fft", 16, "unknown 'istft_n_fft'; another version"),
        ("hifigan", "head", {"activation": 3}, "head.activation: must be"),
        (
            "hifigan",
            "resblock_dilation_sizes",
            [[2**31]],
            "resblock_dilation_sizes: must be at most",
        ),
        ("hifigan", "audio", {"n_fft": 1024.0}, "audio.n_fft: must be a whole number, not 1024.0"),
        ("hifigan", "audio", {"sample_rate": 2**31}, "audio.sample_rate: must be at most"),
        (
            "hifigan",
            "audio",
            {"fmax": float("inf")},
            "audio.fmax: must be a finite number, not inf",
        ),
        ("hifigan", "audio", {"rate": 1}, "audio: must be a mapping of"),
        ("hifigan", "name", 3, "not a model that can be loaded"),
    ],
)
def test_arguments_at_fault(folder, name, key, wrong, message):
    narrow(name).save("good.keras")
    config = config_of("good.keras")
    if isinstance(wrong, dict):
        wrong = config["config"][key] | wrong
    config["config"][key] = wrong
    path = rewritten("good.keras", folder / "wrong.keras", config)
    with pytest.raises(InputError, match=f"wrong.keras: .*{message}") as error:
        vocoder.load(path)
    assert len(str(error.value).splitlines()) == 1
    vocoder.load("good.keras")  # nothing is left behind that would come in its way


@pytest.mark.parametrize("value", [np.nan, np.inf, None])
def test_weights_that_are_missing_or_not_finite(folder, good, value):
    with zipfile.ZipFile(good) as archive:
        weights = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(weights, "r+") as file:
        if value is None:
            del file["conv_post/vars/1"]
        else:
            file["conv_post/vars/1"][0] = value
    path = rewritten(good, folder / "evil.keras", weights=weights.getvalue())
    refused(path, *(["conv_post"] if value is not None else []))


def touching(x):
    __import__("pathlib").Path("touched").touch()
    return x


@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
@pytest.mark.parametrize("nested", [False, True])
def test_lambda(folder, nested):
    layer = keras.layers.Lambda(lambda x: [__import__("pathlib").Path("touched").touch(), x][1])
    inner = keras.Sequential([keras.Input((3,)), layer])
    model = keras.Sequential([keras.Input((3,)), inner]) if nested else inner
    (folder / "touched").unlink()  # building called it here, which shows that it would touch
    model.save("evil.keras")
    assert "__lambda__" in json.dumps(config_of("evil.keras"))
    refused(folder / "evil.keras", "Lambda", "can run code")


def inside(good, node):
    """A generator's config with a hostile object among its arguments."""
    config = config_of(good)
    config["config"]["audio"] = {"anything": [node]}
    return config


def test_code_inside_a_generators_arguments(folder, good):
    from keras.src.utils import python_utils

    node = {"class_name": "__lambda__", "config": {"value": python_utils.func_dump(touching)}}
    refused(rewritten(good, folder / "evil.keras", inside(good, node)), "__lambda__")


def test_tfsm_layer(folder, good):
    node = {
        "module": "keras.layers",
        "class_name": "TFSMLayer",
        "config": {"filepath": str(folder)},
        "registered_name": None,
    }
    refused(rewritten(good, folder / "evil.keras", inside(good, node)), "TFSMLayer")


@pytest.mark.parametrize(
    ("module", "name", "registered"),
    [
        ("dropped", "Layer", None),
        ("dropped", "Layer", "vocoder>HiFiGAN"),
        ("dropped", "HiFiGAN", "vocoder>Gone"),
        ("os", "system", None),
        ("builtins", "eval", None),
        ("keras.utils", "get_file", None),
        ("keras.src.saving", "Thing", None),
        ("keras.layers", "Dense", "dropped>Layer"),
        ("vocoder.train", "HiFiGAN", "vocoder>HiFiGAN"),
        (None, "Dense", None),
    ],
)
@pytest.mark.parametrize("root", [False, True])
def test_classes_by_module_path(folder, good, module, name, registered, root):
    (folder / "dropped.py").write_text("from pathlib import Path\nPath('touched').touch()\n")
    node = {"module": module, "class_name": name, "config": {}, "registered_name": registered}
    config = node if root else inside(good, node)
    refused(rewritten(good, folder / "evil.keras", config), f"holds {module}.{name}")
    assert "dropped" not in sys.modules


def test_functions_by_module_path(folder, good):
    node = {
        "module": "os",
        "class_name": "function",
        "config": "system",
        "registered_name": "system",
    }
    refused(rewritten(good, folder / "evil.keras", inside(good, node)), "os.system")


def test_whole_model_in_hdf5(folder):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.save("whole.h5")
    refused(folder / "whole.h5", "HDF5", "refused")
    (folder / "whole.h5").rename("renamed.keras")
    refused(folder / "renamed.keras", "HDF5", "refused")


@pytest.mark.parametrize(
    "name", ["../touched", "/touched", "assets/../../touched", "..\\touched", "C:\\touched"]
)
def test_members_that_lead_out(folder, good, name):
    path = rewritten(good, folder / "evil.keras", extra=[(name, "x")])
    refused(path, "leads out of the archive")


def test_other_members(folder, good):
    link = zipfile.ZipInfo("assets")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    refused(rewritten(good, folder / "a.keras", extra=[(link, "/etc")]), "symbolic link")
    path = rewritten(good, folder / "b.keras", extra=[("touched.py", "x")])
    refused(path, "'touched.py' is no part")
    with pytest.warns(UserWarning, match="Duplicate"):
        path = rewritten(good, folder / "c.keras", extra=[("config.json", "{}")])
    refused(path, "'config.json' twice")


def test_zip_bombs(folder, good, monkeypatch):
    with zipfile.ZipFile("bomb.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", json.dumps(config_of(good)))
        archive.writestr("model.weights.h5", bytes(2**24))
    refused(folder / "bomb.keras", "zip bomb")

    # One that lies about its size: what it declares is in the central directory.
    content = (folder / "bomb.keras").read_bytes()
    declared = (2**24).to_bytes(4, "little")
    assert content.count(declared) == 2
    (folder / "liar.keras").write_bytes(content.replace(declared, (2**10).to_bytes(4, "little")))
    refused(folder / "liar.keras", "not a model that can be loaded")

    monkeypatch.setattr(safe_files, "CONFIG_LIMIT", 10)
    refused(rewritten(good, folder / "config.keras"), "json is larger than the limit")
    monkeypatch.setattr(safe_files, "SIZE_LIMIT", 20_000)
    refused(rewritten(good, folder / "large.keras"), "larger than the limit")
    with zipfile.ZipFile("packed.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(range(256)) * 100)
    refused(folder / "packed.keras", "unpacks to more than the limit")


def test_broken_files(folder, good):
    content = good.read_bytes()
    for name, part in {
        "half": content[: len(content) // 2],
        "tail": content[100:],
        "empty": b"",
        "flipped": content[:3000] + bytes([content[3000] ^ 255]) + content[3001:],
    }.items():
        path = folder / f"{name}.keras"
        path.write_bytes(part)
        refused(path, "not a model that can be loaded")
    deep = rewritten(good, folder / "deep.keras")
    with zipfile.ZipFile(deep, "w") as archive:
        archive.writestr("config.json", "[" * 100_000)
        archive.writestr("model.weights.h5", "x")
    refused(deep, "not a model that can be loaded")
    refused(rewritten(good, folder / "weights.keras", weights=b"x"), "model.weights.h5")
    refused(rewritten(good, folder / "list.keras", config=[1]), "no mapping")


def external_link(file, group):
    group["0"] = h5py.ExternalLink("secret.h5", "/data")


def soft_link(file, group):
    group["0"] = h5py.SoftLink("/somewhere")


def hard_link(file, group):
    group["0"] = file["/"]


def external_storage(file, group):
    group.create_dataset("0", (8,), "f4", external=[("secret.bin", 0, 32)])


def virtual(file, group):
    layout = h5py.VirtualLayout((8,), "f4")
    layout[:] = h5py.VirtualSource("secret.h5", "data", (8,))
    group.create_virtual_dataset("0", layout)


def too_large(file, group):
    group.create_dataset("0", (2**40,), "f4", chunks=(2**10,))


def packed(file, group):
    group.create_dataset("0", data=np.zeros(2**20, "f4"), compression="gzip")


def texts(file, group):
    group.create_dataset("0", data=["a", "b"], dtype=h5py.string_dtype())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (external_link, "an external link"),
        (soft_link, "a soft link"),
        (hard_link, "a second link"),
        (external_storage, "another file"),
        (virtual, "a virtual dataset"),
        (too_large, "more than it stores"),
        (packed, "more than it stores"),
        (texts, "no numbers"),
    ],
)
def test_weights_that_are_more_than_numbers(folder, good, change, message):
    with h5py.File("secret.h5", "w") as file:
        file["data"] = np.ones(8, "f4")
    (folder / "secret.bin").write_bytes(bytes(32))
    with zipfile.ZipFile(good) as archive:
        weights = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(weights, "r+") as file:
        group = file["conv_pre/vars"]
        del group["0"]
        change(file, group)
    path = rewritten(good, folder / "evil.keras", weights=weights.getvalue())
    refused(path, message, "/conv_pre/vars/0")


class Touch:
    def __reduce__(self):
        from pathlib import Path

        return Path.touch, (Path("touched"),)


def test_pickled_mels(folder, good, capsys):
    np.save("evil.npy", np.array([[Touch()]], dtype=object), allow_pickle=True)
    with pytest.raises(SystemExit) as stop:
        synthesize.main([str(good), "evil.npy", "--out", "out"])
    assert stop.value.code == 1
    assert "evil.npy: holds object" in capsys.readouterr().err
    assert not (folder / "touched").exists()


TAG = "!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path [touched]]"


def resumed(path):
    """What a session that resumes the run of an `overrides.yaml` composes."""
    register_resolvers()
    given = [f"trainer.resume={path.parent}"]
    with initialize_config_dir(str(asset("configs")), version_base="1.3"):
        with hydra_errors_as_input_errors():
            node, overrides = with_resumed_overrides(compose("train", given), given)
        return RunConfig.from_omegaconf(node), overrides


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"- {TAG}", "can't be read as plain YAML"),
        ("- [", "can't be read as plain YAML"),
        ("\0", "can't be read as plain YAML"),
        ("seed: 1", "must be a list"),
        ("", "must be a list"),
        ("- {seed: 1}", "must be a list"),
        (["+loss.terms.x={_target_: os.system}"], "_target_: not used here, because"),
        (["+loss.terms.x._target_=os.system"], "_target_: not used here, because"),
        (["hydra.run.dir=touched"], "Hydra's own"),
        (["++hydra.searchpath=[.]"], "Hydra's own"),
        (["+hydra/launcher=basic"], "not of the plain form"),
        (["+generator@hydra.x=mine"], "not of the plain form"),
        (["data.root=${oc.env:HOME}"], "only ${KEY}"),
        (["data.root=$\\{oc.env\\:HOME\\}"], "only ${KEY}"),
        (["data.root=[a,{b: '${oc.decode:1}'}]"], "only ${KEY}"),
        (["data.root=${${seed}}"], "no override"),
        (["data.root='${${seed}}'"], "only ${KEY}"),
        (["generator=../../mine"], "no name of an option"),
        (["seed=1,2"], "a sweep"),
        (["a b c"], "no override"),
        (["--config-dir=."], "no override"),
    ],
)
def test_overrides_of_a_strangers_run(folder, monkeypatch, content, message):
    path = folder / "overrides.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    refused(path, message, load=resumed)


@pytest.mark.parametrize(
    "overrides",
    [
        ["data.include=['**/*','$','${data.include.1}{oc.env:SECRET}']",
         "data.cache='leak/${data.include.2}'"],
        ["data.include=['**/*','${trainer.best}{oc.env:SECRET}']", "trainer.best='$'"],
        ["trainer.best='$'", "data.train_list='${trainer.best}{oc.env:SECRET}'",
         "data.cache='${data.train_list}'", "data.mels='leak/${data.cache}'"],
        ["trainer.best='$'", "+loss.terms.x={a: '${trainer.best}{oc.env:SECRET}'}",
         "data.cache='${loss.terms.x.a}'"],
        ["trainer.best='${'", "data.cache='${trainer.best}oc.env:SECRET}'"],
        ["trainer.best='oc.env:SECRET'", "data.cache='${${trainer.best}}'"],
        ["data.cache='\\${oc.env:SECRET}'"],
        ["data.cache='\\\\${oc.env:SECRET}'"],
        ["data.mels='\\${seed}'"],
        ["data.cache='${asset:..}'"],
        ["data.cache='${asset:/etc}'"],
        ["data.cache=${run_folder:auto,x}"],
        ["seed='${oc.decode:${oc.env:SECRET}}'"],
    ],
)  # fmt: skip
def test_nothing_is_pieced_together_into_an_interpolation(folder, monkeypatch, overrides):
    monkeypatch.setenv("SECRET", "TOP")
    (folder / "overrides.yaml").write_text(yaml.safe_dump(overrides))
    with pytest.raises(InputError) as error:
        resumed(folder / "overrides.yaml")
    assert len(str(error.value).splitlines()) == 1 and "TOP" not in str(error.value)


def test_a_strangers_cache_folder_is_not_made(folder, caplog):
    (folder / "overrides.yaml").write_text(yaml.safe_dump(["data.cache=leak"]))
    config, kept = resumed(folder / "overrides.yaml")
    assert config.data.cache is None and kept == ["data.cache=leak"]
    assert "data.cache: the run's own, leak, holds no index" in caplog.text
    (folder / "leak").mkdir()
    (folder / "leak/index-0.npz").touch()
    assert resumed(folder / "overrides.yaml")[0].data.cache == "leak"


def test_ones_own_environment_is_kept_as_what_it_said(folder, monkeypatch):
    """So that a later session, which reads no environment, goes on with the same."""
    register_resolvers()
    monkeypatch.setenv("CORPORA", "/data/a, b")
    given = ["data=folder", "data.root=${oc.env:CORPORA}", "audio.fmax=${audio.fmin}1", "seed=1"]
    given += ["+loss.terms.x={loss: mse, weight: '${oc.env:W,2}'}"]
    with initialize_config_dir(str(asset("configs")), version_base="1.3"):
        _, kept = with_resumed_overrides(compose("train", given), given)
    (folder / "overrides.yaml").write_text(yaml.safe_dump(kept))
    monkeypatch.delenv("CORPORA")
    config, again = resumed(folder / "overrides.yaml")
    assert config.data.root == "/data/a, b" and again == kept
    assert config.loss["terms"]["x"] == {"loss": "mse", "weight": "2"}
    assert config.audio.fmax == 1


def test_plain_overrides_are_taken(folder):
    overrides = [
        "data=folder", "data.root=${asset:data/demo}", "~loss.terms.stft", "seed=3",
        "+loss.terms.mse={loss: mse, weight: 2}", "data.gain_db=[-6,0]", "trainer.max_minutes=null",
        "audio.fmax=${audio.fmin}1", "loss.terms.mel.weight=45.0", "data.train_list='a, b.txt'",
    ]  # fmt: skip
    (folder / "overrides.yaml").write_text(yaml.safe_dump(overrides))
    config, kept = resumed(folder / "overrides.yaml")
    assert kept == overrides
    assert config.seed == 3 and "stft" not in config.loss["terms"]


def test_tags_in_a_config(folder):
    (folder / "mine.yaml").write_text(f"seed: {TAG}\n")

    def load(path):
        with (
            initialize_config_dir(str(path.parent), version_base="1.3"),
            hydra_errors_as_input_errors(),
        ):
            compose(path.stem)

    refused(folder / "mine.yaml", "could not determine a constructor", load=load)


def test_targets_inside_lists(folder):
    with initialize_config_dir(str(asset("configs")), version_base="1.3"):
        register_resolvers()
        node = compose("train", ["+loss.terms.x=[{_target_: os.system}]"])
        with pytest.raises(InputError, match=r"loss.terms.x.0._target_: not used here, because"):
            RunConfig.from_omegaconf(node)
