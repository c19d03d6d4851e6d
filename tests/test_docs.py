"""What README and docs show: commands are parsed, blocks of Python run, those of YAML compose."""

import argparse
import importlib
import re
import runpy
import shlex
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser

from vocoder.composition import register_resolvers
from vocoder.paths import asset

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ELSEWHERE = {"tensorboard", "pip", "export"}  # commands that are not ours


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), flags=re.M | re.S)


def commands():
    for page in PAGES:
        for block in blocks(page, "bash"):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words:
                    yield pytest.param(words, id=f"{page.name}: {' '.join(words)}")


class Parsed(Exception):
    pass


@pytest.fixture
def parse_only(monkeypatch):
    """Makes a command stop once it has understood its arguments."""
    parse = argparse.ArgumentParser.parse_args

    def parsed(self, arguments=None, namespace=None):
        parse(self, arguments, namespace)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parsed)


@pytest.mark.parametrize("words", [*commands()])
def test_a_command_is_understood(words, parse_only, monkeypatch):
    if words[0] == "srun":
        words = words[1:]
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), flags=re.M)
    elif words[:2] == ["python", "-m"] and words[2] == "vocoder.train":
        composed([word for word in words[3:] if word != "-m"])
    elif words[:2] == ["python", "-m"]:
        package = words[2]
        module = f"{package}.__main__" if package == "vocoder.convert" else package
        with pytest.raises(Parsed):
            importlib.import_module(module.removesuffix(".__main__")).main(words[3:])
    elif words[0] == "python":
        monkeypatch.setattr("sys.argv", words[1:])
        with pytest.raises(Parsed):
            runpy.run_path(str(ROOT / words[1]), run_name="__main__")
    else:
        assert words[0] in ELSEWHERE


def composed(overrides, configs=None):
    """The config of a command line; of a sweep that of its first job."""
    plain = []
    for override in OverridesParser.create().parse_overrides(overrides):
        if override.key_or_group.startswith("hydra"):
            continue
        text = override.input_line
        if override.is_sweep_override():
            text = f"{override.key_or_group}={next(iter(override.sweep_string_iterator()))}"
        plain.append(text)
    register_resolvers()
    with initialize_config_dir(str(configs or asset("configs")), version_base="1.3"):
        return compose("train", plain)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_python_runs(page, tmp_path, monkeypatch):
    import keras

    from vocoder.generators import HiFiGAN

    code = blocks(page, "python")
    if not code:
        return
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "outputs" / "DATE" / "TIME"
    run.mkdir(parents=True)
    HiFiGAN(upsample_initial_channel=16, audio={}).folded().save(run / "generator.keras")
    inputs = keras.Input((512,))
    names = {
        "samples": np.zeros(4096, np.float32),
        "model": keras.Model(inputs, keras.layers.Dense(512)(inputs)),
    }
    names["__name__"] = "vocoder.generators.frames"  # where the page says that it is
    for block in code:
        exec(compile(block, str(page), "exec"), names)
    if "multi" in names:
        x = np.random.default_rng(0).standard_normal((4, 512)).astype("float32")
        shown = names["model"].fit(x, 2 * x, verbose=0).history
        assert {"loss", "envelope"} <= set(shown)
    if "wave" in names:
        assert names["wave"].shape == (4096,)


@pytest.fixture
def extended(tmp_path):
    """The configs with those that the page on extending shows."""
    shutil.copytree(asset("configs"), tmp_path / "configs")
    generator, head, corpus = blocks(ROOT / "docs/extending.md", "yaml")
    (tmp_path / "configs/generator/frames.yaml").write_text(generator)
    (tmp_path / "configs/generator/head/softclip.yaml").write_text(head)
    (tmp_path / "configs/data/mine.yaml").write_text(corpus)
    return tmp_path / "configs"


def test_a_corpus_of_ones_own_composes(extended):
    assert composed(["data=mine"], extended).data.root == "/corpora/mine"


def test_a_head_of_ones_own_is_any_generators(extended, monkeypatch):
    from vocoder import registry
    from vocoder.config import RunConfig
    from vocoder.training.build import build_generator

    code = next(code for code in blocks(ROOT / "docs/extending.md", "python") if "Softclip" in code)
    module = types.ModuleType("vocoder.heads.softclip")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(code, "extending.md", "exec"), vars(module))
    monkeypatch.setitem(registry.HEADS, "softclip", f"{module.__name__}:Softclip")
    overrides = ["generator=vocos_small", "generator.prior=null", "generator/head=softclip"]
    generator = build_generator(RunConfig.from_omegaconf(composed(overrides, extended)))
    mel = np.random.default_rng(0).standard_normal((1, 5, 80)).astype(np.float32)
    made = np.asarray(generator({"mel": mel}))
    assert made.shape == (1, 5 * 256) and np.abs(made).max() < 1
    twin = type(generator).from_config(generator.get_config())
    assert twin.head.get_config() == {"name": "softclip", "hop_length": 256, "slope": 1.0}


def test_a_generator_of_ones_own_trains_and_is_loaded(extended, tmp_path, monkeypatch):
    import vocoder
    from vocoder import registry
    from vocoder.config import RunConfig
    from vocoder.training.build import build_trainer

    code = next(code for code in blocks(ROOT / "docs/extending.md", "python") if "Frames" in code)
    module = types.ModuleType("vocoder.generators.frames")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(code, "extending.md", "exec"), vars(module))
    monkeypatch.setitem(registry.GENERATORS, "frames", f"{module.__name__}:Frames")
    config = RunConfig.from_omegaconf(composed(["generator=frames"], extended))
    trainer = build_trainer(config)
    rng = np.random.default_rng(0)
    mel = rng.standard_normal((2, 32, 80)).astype(np.float32)
    wave = rng.uniform(-0.5, 0.5, (2, 8192)).astype(np.float32)
    before = trainer.generator.get_weights()
    trainer.fit(tf.data.Dataset.from_tensors((mel, wave)), verbose=0)
    assert any((a != b).any() for a, b in zip(before, trainer.generator.get_weights(), strict=True))
    trainer.generator.folded().save(tmp_path / "generator.keras")
    made = vocoder.load(tmp_path / "generator.keras").synthesize(mel)
    np.testing.assert_allclose(made, np.asarray(trainer.generator(mel)), atol=1e-5)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 130
