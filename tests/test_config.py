"""Every config is found, composed and built; every mistake is one line that names the key."""

import dataclasses
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from vocoder import registry
from vocoder.config import (
    DataConfig,
    RunConfig,
    TrainerConfig,
    asset,
    hydra_errors_as_input_errors,
    register_resolvers,
)
from vocoder.errors import InputError

CONFIGS = asset("configs")
OPTIONS = sorted(path.relative_to(CONFIGS) for path in CONFIGS.glob("*/*.yaml"))


def composed(*overrides):
    register_resolvers()
    with (
        initialize_config_dir(str(CONFIGS), version_base="1.3"),
        hydra_errors_as_input_errors(),
    ):
        return compose("train", list(overrides))


def needed(option: Path) -> list[str]:
    """What has to be given beside an option."""
    group, name = option.parent.name, option.stem
    if group == "data" and name != "demo":
        extra = ["data.root=x"]
        if name == "filelist":
            extra += ["data.train_list=a", "data.validation_list=b"]
        return extra
    if group == "experiment" and name not in ("demo", "demo_gan"):
        given = ["data.mels=y", "trainer.pretrained=z"] if name == "finetune" else []
        return ["data.root=x", *given]
    if name == "44k_128":  # a hop of 512
        return ["generator.istft_hop_length=64", "generator.istft_n_fft=256"]
    if group == "loss" and (name == "hifigan" or name.endswith("_gan")):
        return ["discriminator=small"]
    if group == "discriminator" and name != "none":
        return ["loss=hifigan"]
    return []


@pytest.mark.parametrize("option", OPTIONS, ids=str)
def test_every_option_composes_and_builds(option):
    from vocoder.discriminators.build import build_discriminators
    from vocoder.losses.build import build_discriminator_loss, build_multi_loss
    from vocoder.training.optimizer import build_optimizer

    override = f"{option.parent.name}={option.stem}"
    config = RunConfig.from_omegaconf(composed(override, *needed(option)))
    provided = {"audio": dataclasses.asdict(config.audio), "dtype": config.trainer.precision}
    generator = registry.build(
        registry.GENERATORS, config.generator, "generator", provided=provided
    )
    assert generator.hop_length == config.audio.hop_length
    discriminators = build_discriminators(config.discriminator, config.trainer.precision)
    subs = discriminators.sub_discriminators if discriminators else ()
    loss = build_multi_loss(config.loss, config.audio.sample_rate, config.data.segment_length, subs)
    if discriminators:
        build_discriminator_loss(loss)
    assert any(part.weight for part in loss.parts)
    build_optimizer(config.trainer)


@pytest.mark.parametrize(("group", "cls"), [("data", DataConfig), ("trainer", TrainerConfig)])
def test_every_key_of_a_frame_stands_in_its_yaml(group, cls):
    node = composed("data=folder", "data.root=x")[group]
    assert list(node) == [field.name for field in dataclasses.fields(cls)]


def test_defaults_of_code_and_yaml_agree():
    config = RunConfig.from_omegaconf(composed("data=folder", "data.root=x"))
    assert config.trainer == TrainerConfig()
    assert config.data == DataConfig(root="x")
    assert config.audio == type(config.audio)()


def test_sweeps_on_slurm_compose():
    pytest.importorskip(
        "hydra_plugins.hydra_submitit_launcher", reason="pip install vocoder[slurm]"
    )
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        node = compose("train", ["hydra/launcher=slurm"], return_hydra_config=True)
    launcher = node.hydra.launcher
    assert launcher._target_.endswith("SlurmLauncher")
    assert (launcher.gpus_per_node, launcher.timeout_min, launcher.max_num_timeout) == (1, 1440, 20)


def test_terms_are_added_changed_and_removed():
    from vocoder.losses.build import build_multi_loss

    node = composed(
        "loss.terms.mel.weight=45",
        "~loss.terms.stft",
        "+loss.terms.mse={loss: mean_squared_error, weight: 1}",
        "+loss.terms.log_mel={loss: mel, weight: 0, n_mels: 20}",
    )
    config = RunConfig.from_omegaconf(node)
    multi = build_multi_loss(config.loss, 24000, 8192)
    assert {part.name: part.weight for part in multi.parts} == {
        "waveform": 1,
        "mel": 45,
        "mse": 1,
        "log_mel": 0,
    }
    assert multi.parts[-1].loss.sample_rate == 24000


MISTAKES = {
    "generator=hifigan_v9": "hifigan_v9",
    "loss.terms.mell.weight=3": "loss.terms.mell",
    "trainer.max_step=3": "trainer.max_step",
    "trainer.max_steps=many": "trainer.max_steps: .*many",
    "trainer.max_steps=0": "trainer.max_steps: must be at least 1",
    "trainer.learning_rate=-1": "trainer.learning_rate: must be above 0",
    "trainer.learning_rate=nan": "trainer.learning_rate: must be above 0",
    "trainer.precision=float8": "trainer.precision: unknown 'float8' .known: float32",
    "trainer.ema_momentum=1": "trainer.ema_momentum: must be in",
    "trainer.schedule=cosin": "trainer.schedule: unknown 'cosin'; did you mean 'cosine'",
    "trainer.warmup_steps=10": "trainer.warmup_steps: ",
    "trainer.validation_metrics=stoi": "trainer.validation_metrics: must be a list, such as .a,b.",
    "trainer.validation_utterances=0": "trainer.validation_utterances: must be at least 1",
    "seed=-1": "seed: ",
    "audio.win_length=2048": "audio.win_length: 2048 is longer than n_fft",
    "audio.fmax=12000": "audio.fmax: 12000 is above half the sample rate",
    "audio.n_mels=0": "audio.n_mels: must be at least 1",
    "audio.log=ln": "audio.log: ",
    "audio.padding=none": "audio.padding: ",
    "audio.hop_length=300": "generator.upsample_rates: 8 .* makes 256 .* audio.hop_length is 300",
    "generator.upsample_rates=[4]": "generator.upsample_rates: 4 .* makes 128",
    "generator.upsample_rates=8": "generator",
    "generator.name=hifigun": "generator.name: unknown 'hifigun'; did you mean 'hifigan'",
    "+generator.chanels=3": "generator.chanels: unknown",
    "~generator.name": "generator.name: missing .known: bigvgan, hifigan, vocos",
    "loss=hifigan": "loss.terms.feature_matching: needs discriminators; discriminator=mpd_msd",
    "discriminator=mpd": "mpd",
    "+discriminator.parts.x=3": "discriminator.parts.x: must be a mapping",
    "+discriminator.parts.x={name: multi_per}": "discriminator.parts.x.name: unknown 'multi",
    "+discriminator.parts.x={name: multi_scale, norms: []}": "discriminator.parts.x.norms: ",
    "+discriminator.part=3": "discriminator.part: unknown",
    "loss.terms.mel.weight=-1": "loss.terms.mel.weight: must be 0 or more",
    "loss.terms.mel.weight=x": "loss.terms.mel.weight: ",
    "loss.terms.mel.loss=mell": "loss.terms.mel.loss: unknown 'mell'; did you mean 'mel'",
    "+loss.terms.mel.n_bands=3": "loss.terms.mel.n_bands: unknown",
    "loss.terms.stft.win_length=[512,2048,2048]": "loss.terms.stft.win_length: 2048 is longer",
    "loss.terms.mel.fmax=12000": "loss.terms.mel.fmax: 12000",
    "loss.terms={}": "loss.terms: ",
    "loss.terms.mel=3": "loss.terms.mel: must be a mapping",
    "+loss.term={}": "loss.term: unknown 'term'|loss.term: unknown",
    "data.segment_length=512": "loss.terms.mel: .*length=512 .* a segment of 1025 or more would do",
    "data.root=???": "data.root: missing",
    "+loss.terms.x={_target_: os.system, loss: mse}": "loss.terms.x._target_: not used",
    "data.gain_db=loud": "data.gain_db: ",
}


@pytest.mark.parametrize("override", MISTAKES)
def test_mistakes_are_told_by_key(override):
    from vocoder.discriminators.build import build_discriminators
    from vocoder.losses.build import build_multi_loss
    from vocoder.training.optimizer import build_optimizer

    with pytest.raises(InputError, match=MISTAKES[override]) as error:
        overrides = [override]
        if override == "loss.terms={}":
            overrides = [f"~loss.terms.{name}" for name in ("waveform", "mel", "stft")]
        config = RunConfig.from_omegaconf(composed(*overrides))
        provided = {"audio": dataclasses.asdict(config.audio)}
        registry.build(registry.GENERATORS, config.generator, "generator", provided=provided)
        build_discriminators(config.discriminator)
        build_multi_loss(config.loss, config.audio.sample_rate, config.data.segment_length)
        build_optimizer(config.trainer)
    assert len(str(error.value).splitlines()) == 1
