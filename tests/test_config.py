"""Every config is found, composed and built; every mistake is one line that names the key."""

import dataclasses
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from vocoder import registry
from vocoder.composition import register_resolvers
from vocoder.config import PATHS, DataConfig, RunConfig, TrainerConfig
from vocoder.errors import InputError
from vocoder.overrides import hydra_errors_as_input_errors
from vocoder.paths import asset

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
        return ["generator.head.hop_length=64", "generator.head.n_fft=256"]
    if group == "loss" and (name == "hifigan" or name.endswith("_gan")):
        return ["discriminator=small"]
    if group == "discriminator" and name != "none":
        return ["loss=hifigan"]
    return []


@pytest.mark.parametrize("option", OPTIONS, ids=str)
def test_every_option_composes_and_builds(option):
    from vocoder.discriminators.combined import build_discriminators
    from vocoder.losses.terms import build_discriminator_loss, build_multi_loss
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
    build_optimizer(config)


@pytest.mark.parametrize(("group", "cls"), [("data", DataConfig), ("trainer", TrainerConfig)])
def test_every_key_of_a_frame_stands_in_its_yaml(group, cls):
    node = composed("data=folder", "data.root=x")[group]
    assert list(node) == [field.name for field in dataclasses.fields(cls)]


def test_numbers_may_be_written_with_an_exponent_and_as_texts():
    config = RunConfig.from_omegaconf(composed("trainer.max_steps=2e6", "trainer.max_minutes='.9'"))
    assert config.trainer.max_steps == 2_000_000 and isinstance(config.trainer.max_steps, int)
    assert config.trainer.max_minutes == 0.9


def test_a_home_folder_is_found_in_every_key_that_is_a_path(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    overrides = [f'{section}.{key}="~/x"' for section in PATHS for key in PATHS[section]]
    overrides = [o for o in overrides if "discriminators" not in o]
    config = RunConfig.from_omegaconf(composed(*overrides))
    for section, keys in PATHS.items():
        for key in {*keys} - {"pretrained_discriminators"}:
            assert getattr(getattr(config, section), key) == str(tmp_path / "x"), key
    with pytest.raises(InputError, match="^data.root: ~nobody-here/x: there is no home folder"):
        RunConfig.from_omegaconf(composed('data.root="~nobody-here/x"'))


def test_sweeps_on_slurm_compose():
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="pip install '.[slurm]'")
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        node = compose("train", ["hydra/launcher=slurm"], return_hydra_config=True)
    launcher = node.hydra.launcher
    assert launcher._target_.endswith("SlurmLauncher")
    assert (launcher.gpus_per_node, launcher.timeout_min, launcher.max_num_timeout) == (1, 1440, 20)


def test_terms_are_added_changed_and_removed():
    from vocoder.losses.terms import build_multi_loss

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
    "trainer.ema_momentum=0.9": "^trainer.ema_momentum: is optimizer.ema_momentum now$",
    "generator.istft_n_fft=512": "^generator.istft_n_fft: is generator.head.n_fft now$",
    "trainer.max_steps=many": "trainer.max_steps: .*many",
    "trainer.max_steps=0": "trainer.max_steps: must be at least 1",
    "optimizer.learning_rate=-1": "optimizer.learning_rate: must be above 0",
    "optimizer.learning_rate=nan": "optimizer.learning_rate: must be a finite number",
    "optimizer.name=adamv": "optimizer.name: unknown 'adamv'; did you mean 'adam",
    "+optimizer.momentum=0.5": "optimizer.momentum: unknown 'momentum'",
    "optimizer=adamx": "adamx",
    "trainer.strategy=mirror": "trainer.strategy: must be .*'mirrored'.*, not 'mirror'",
    "trainer.max_minutes=0": "trainer.max_minutes: must be above 0, not 0",
    "trainer.precision=float8": "trainer.precision: must be 'float32', .*, not 'float8'",
    "optimizer.ema_momentum=1": "optimizer.ema_momentum: must be below 1",
    "schedule.name=cosin": "schedule.name: unknown 'cosin'; did you mean 'cosine'",
    "+schedule.warmup_steps=10": "schedule.warmup_steps: unknown",
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
    # Whole groups and keys that are gone or something else.
    "~generator": "generator: missing",
    "~discriminator": "discriminator: missing",
    "~loss": "loss: missing",
    "~data": "data: missing",
    "~trainer": "trainer: missing",
    "~audio": "'audio.sample_rate' not found",
    "~seed": "seed: missing",
    "~data.root": "data.root: missing",
    "generator=null": "generator=null: ",
    "discriminator=null": "discriminator=null: ",
    "trainer=null": "trainer=null: ",
    "trainer=3": "trainer=3: ",
    "loss=[]": "loss: missing",
    "=3": "=3: ",
    "+x.y=1": "x: unknown 'x'",
    "+trainr.max_steps=1": "trainr: unknown 'trainr'; did you mean 'trainer'",
    "+trainer.x=1": "trainer.x: unknown 'x'",
    "loss.terms=null": "loss.terms: there are none",
    "++loss.terms=3": "loss.terms: must be a mapping",
    "loss.terms.mel=null": "loss.terms.mel: must be a mapping",
    "++discriminator.parts=3": "discriminator.parts: must be a mapping",
    "generator.name=null": "generator.name: unknown None",
    "generator.name=[hifigan]": "generator.name: unknown",
    "generator.name={hifigan: 1}": "generator.name: unknown",
    "loss.terms.mel.loss=[mel]": "loss.terms.mel.loss: unknown",
    "seed=${nope}": "seed: .*'nope' not found",
    "seed=${oc.env:NOPE_}": "seed: .*'NOPE_' not found",
    "data.root=${asset:..}": "data.root: .*asset: unknown '..'",
    "data.root=\\${x}": "data.root: .* looks like an interpolation",
    # Other kinds than are meant.
    "seed=4294967296": "seed: must be a whole number of at least 0 and below 2.32",
    "seed=true": "seed: must be a whole number",
    "seed=1.5": "seed: must be a whole number",
    "seed={a: 1}": "seed: must be a whole number",
    "trainer.max_steps=true": "trainer.max_steps: must be a whole number, not True",
    "trainer.max_steps=1.5": "trainer.max_steps: must be a whole number, not 1.5",
    "trainer.max_steps=1e30": "trainer.max_steps: must be at most 2147483647",
    "trainer.max_steps=99999999999999999999": "trainer.max_steps: must be at most 2147483647",
    "trainer.max_steps=inf": "trainer.max_steps: must be a whole number, not inf",
    "trainer.max_steps=[1]": "trainer.max_steps: must be a whole number",
    "trainer.max_steps={a: 1}": "trainer.max_steps: must be a whole number",
    "optimizer.weight_decay=nan": "optimizer.weight_decay: must be a finite number, not nan",
    "optimizer.weight_decay=true": "optimizer.weight_decay: must be a number, not True",
    "trainer.jit_compile=2": "trainer.jit_compile: must be true or false, not 2",
    "trainer.resume=[a]": "trainer.resume: must be a text",
    "trainer.best=null": "trainer.best: must be a text, not None",
    "trainer.validation_metrics=[[mcd]]": "trainer.validation_metrics.0: must be a text",
    "data.root=2024.10": "data.root: must be a text, not 2024.1; quoted twice it is one",
    "data.root={a: 1}": "data.root: must be a text",
    "data.batch_size=3000000000": "data.batch_size: must be at most",
    "data.validation_fraction=nan": "data.validation_fraction: must be a finite number",
    "data.gain_db=[nan,1]": "data.gain_db.0: must be a finite number",
    "audio.n_mels=null": "audio.n_mels: must be a whole number, not None",
    "audio.n_fft=1024.5": "audio.n_fft: must be a whole number",
    "audio.sample_rate=9000000000": "audio.sample_rate: must be at most",
    "audio.magnitude_epsilon=inf": "audio.magnitude_epsilon: must be a finite number",
    "generator.upsample_initial_channel=true": "initial_channel: must be a whole number, not True",
    "generator.upsample_initial_channel=1e30": "initial_channel: must be at most",
    "generator.upsample_initial_channel=wide": "channel: must be a whole number, not 'wide'",
    "generator.upsample_rates=null": "generator.upsample_rates: must be a list",
    "generator.upsample_rates=[a]": "generator.upsample_rates.0: must be a whole number, not 'a'",
    "generator.upsample_rates=[{a: 1}]": "generator.upsample_rates.0: must be a whole number",
    "generator.resblock_dilation_sizes=[3]": "generator.resblock_dilation_sizes.0: must be a list",
    "generator.head.n_fft=nan": "generator.head.n_fft: must be a whole number",
    "loss.terms.mel.weight=nan": "loss.terms.mel.weight: ",
    "loss.terms.mel.weight=true": "loss.terms.mel.weight: ",
    "loss.terms.mel.weight=[1]": "loss.terms.mel.weight: ",
    "loss.terms.mel.linear_weight=inf": "loss.terms.mel.linear_weight: must be a finite number",
    "+discriminator.parts.x={name: multi_period, slope: nan}": "parts.x.slope: must be a finite",
}


@pytest.mark.parametrize("override", MISTAKES)
def test_mistakes_are_told_by_key(override):
    from vocoder.discriminators.combined import build_discriminators
    from vocoder.losses.terms import build_multi_loss
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
        build_optimizer(config)
    assert len(str(error.value).splitlines()) == 1
