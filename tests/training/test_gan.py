"""The adversarial step, against the original's and on several replicas, and its recipes."""

from pathlib import Path

import hifigan_recipe
import keras
import numpy as np
import pytest
import tensorflow as tf
from odd import OddGenerator, Spoilt
from running import TINY_GENERATOR, configured

from configs import optimizing
from vocoder.discriminators import (
    CombinedDiscriminator,
    MultiPeriodDiscriminator,
    MultiScaleDiscriminator,
)
from vocoder.errors import InputError
from vocoder.generators import HiFiGAN
from vocoder.losses import LossCfg, MultiLoss, WaveformL1Loss
from vocoder.losses.adversarial import LeastSquaresLoss
from vocoder.losses.terms import FEATURES, WAVEFORM, build_discriminator_loss, build_multi_loss
from vocoder.paths import asset
from vocoder.training.build import build_trainer
from vocoder.training.checkpoints import Checkpoints, complete
from vocoder.training.distribution import worker
from vocoder.training.gan import AdversarialTrainer
from vocoder.training.optimizer import build_discriminator_optimizer, build_optimizer
from vocoder.training.validation import check_measured, directions

EXPERIMENTS = sorted(path.stem for path in asset("configs").glob("experiment/*.yaml"))
NARROW = {
    "mpd": ["channels=[2,4,4,4,4]"],
    "msd": ["channels=[4,4,4,4,4,4,4]", "groups=[1,2,2,2,2,2,1]"],
    "mrd": ["channels=[2,2,2,2]", "kernel_sizes=[[3,5],[3,5],[3,5],[3,3]]",
            "strides=[[2,2],[2,2],[2,2],[1,1]]"],
}  # fmt: skip


TINY = [
    "generator.upsample_initial_channel=16",
    "discriminator=small",
    "discriminator.parts.mpd={name: multi_period, periods: [2], channels: [2, 4, 4], "
    "kernel_sizes: [5, 5, 5], strides: [3, 3, 3]}",
    "~discriminator.parts.mrd",
    "loss=reconstruction_gan",
    "~loss.terms.stft",
    "loss.terms.mel.n_fft=[512]",
    "loss.terms.mel.n_mels=[40]",
    "data.segment_length=4096",
    "data.batch_size=4",
    "schedule=constant",
    "optimizer.learning_rate=1e-3",
]


def tiny(*overrides, strategy=None):
    keras.utils.set_random_seed(2)
    config = configured(*TINY, *overrides)
    with (strategy or tf.distribute.get_strategy()).scope():
        return build_trainer(config)


def batches(steps, size=4, samples=4096):
    rng = np.random.default_rng(0)
    mel = rng.standard_normal((steps, size, samples // 256, 80)).astype(np.float32)
    wave = (0.1 * rng.standard_normal((steps, size, samples))).astype(np.float32)
    return mel, wave


def fit(trainer, mel, wave, at=0):
    """Logs of every step; the first is step `at` of the run."""
    found = []
    # A few steps take less time than their graph.
    trainer.run_eagerly = trainer.distribute_strategy.num_replicas_in_sync == 1 and len(mel) < 50
    trainer.step = at
    callback = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: found.append(dict(logs)),
    )
    size = mel.shape[1]

    def dataset(shares, of):
        rows = [np.split(np.arange(size), of)[i] for i in shares]
        return tf.data.Dataset.from_tensor_slices(
            tuple(np.concatenate([[part[r] for r in rows] for part in values])
                  for values in (mel, wave))
        )  # fmt: skip

    with worker(trainer.distribute_strategy, Path("run")) as here:
        data = here.share(dataset)
    trainer.fit(data, steps_per_epoch=len(mel), callbacks=[callback], verbose=0, shuffle=False)
    return found


@pytest.mark.slow
def test_a_step_equals_the_originals(golden):
    """Losses and gradients of the generator and of both discriminators: golden/gan_step.npz."""
    torch = pytest.importorskip("torch")
    from vocoder.convert.hifigan import layers

    path = Path(__file__).parents[1] / "golden/hifigan_tiny_rb1.pth"
    state = torch.load(path, weights_only=True)["generator"]
    generator = HiFiGAN(upsample_initial_channel=32)
    generator.build((None, None, 80))
    ours = {}
    for name, layer in layers(generator):
        for suffix, variable in (("v", layer.v), ("g", layer.g)):
            value = state[f"{name}.weight_{suffix}"].numpy()
            variable.assign(value.transpose(2, 1, 0) if suffix == "v" else value.ravel())
            ours[f"{name}.weight_{suffix}"] = variable
        layer.bias.assign(state[f"{name}.bias"].numpy())
        ours[f"{name}.bias"] = layer.bias
    parts = [MultiPeriodDiscriminator(name="mpd"), MultiScaleDiscriminator(name="msd")]
    discriminators = CombinedDiscriminator(parts)
    discriminators.build()
    for part in parts:
        hifigan_recipe.fill(part)
    names = discriminators.sub_discriminators
    loss = build_multi_loss(configured("loss=hifigan").loss, 22050, 4096, names)
    trainer = AdversarialTrainer(generator, discriminators)
    sgd = keras.optimizers.SGD
    trainer.compile(sgd(0.0), sgd(0.0), build_discriminator_loss(loss), loss=loss)
    seen = []

    def update(optimizer, variables, gradients, values, norm_name, allowed=True):
        seen.append((dict(zip(map(id, variables), gradients, strict=True)), values))
        return {}, True

    trainer.update = update
    data = golden("gan_step")
    trainer.train_step((data["mel"][None], data["audio"]))
    (of_discriminators, judged), (of_generator, values) = seen

    for kind in ("mpd", "msd"):
        found = sum(float(v) for n, v in judged.items() if n.startswith(f"discriminator/{kind}"))
        assert found == pytest.approx(float(data[f"loss_{kind}"]), rel=1e-4)
    assert float(values["mel"]) == pytest.approx(float(data["mel_l1"]), rel=1e-4)
    assert 2 * float(values["feature_matching"]) == pytest.approx(
        float(data["feature_matching"]), rel=1e-4
    )
    assert float(values["adversarial"]) == pytest.approx(float(data["adversarial"]), rel=1e-4)
    assert float(values["loss"]) == pytest.approx(float(data["total"]), rel=1e-4)

    compared = [name for name in data if name.startswith("grad/")]
    assert len(compared) == 8
    for name in compared:
        expected = data[name]
        found = np.asarray(of_generator[id(ours[name.removeprefix("grad/")])])
        found = found.transpose(2, 1, 0) if found.ndim == 3 else found.reshape(expected.shape)
        np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())
    norms = dict(
        zip(data["discriminator_grad_names"], data["discriminator_grad_norms"], strict=True)
    )
    variables = dict(pair for part in parts for pair in hifigan_recipe.parameters(part))
    assert len(norms) == 100
    for name, norm in norms.items():
        found = np.linalg.norm(np.asarray(of_discriminators[id(variables[name])]))
        assert found == pytest.approx(float(norm), rel=1e-3), name


@pytest.mark.slow
def test_two_replicas_do_as_one(two_replicas):
    mel, wave = batches(3)
    phases = ["trainer.discriminator_start=1", "trainer.discriminator_warmup=1"]
    one = fit(tiny(*phases), mel, wave)
    again = "trainer.rematerialization=true"  # which changes nothing either
    two = fit(tiny(*phases, again, strategy=two_replicas), mel, wave)
    assert "discriminator" not in one[0] and "feature_matching" not in one[1]
    assert {"discriminator", "adversarial", "feature_matching/mpd_2"} <= set(one[2])
    for logs, expected in zip(two, one, strict=True):
        assert logs == pytest.approx(expected, rel=1e-3)
    assert two[0]["loss"] == pytest.approx(one[0]["loss"], rel=1e-5)


def test_an_evaluation_has_the_reconstruction_parts_alone():
    trainer = tiny("optimizer.use_ema=true")
    mel, wave = batches(1)
    fit(trainer, mel, wave)
    found = trainer.evaluate(mel[0], wave[0], verbose=0, return_dict=True)
    assert set(found) == {"loss", "waveform", "mel"}
    total = found["waveform"] + 5 * found["mel"]
    assert found["loss"] == pytest.approx(total, rel=1e-5)


def state_of(trainer):
    optimizers = trainer.optimizer.variables + trainer.discriminator_optimizer.variables
    weights = trainer.generator.variables + trainer.discriminators.trainable_variables
    return [np.array(variable) for variable in (*weights, *optimizers)]


def test_a_step_with_nan_changes_neither_side():
    trainer = tiny()
    mel, wave = batches(2)
    fit(trainer, mel[:1], wave[:1])
    before = state_of(trainer)
    wave[1, 0, 7] = np.nan
    (logs,) = fit(trainer, mel[1:], wave[1:])
    assert {"loss", "discriminator", "discriminator_gradient_norm"} <= set(trainer.nonfinite(logs))
    for a, b in zip(before, state_of(trainer), strict=True):
        np.testing.assert_array_equal(a, b)


SIDES = ("waveform", "adversarial", "discriminator")


def spoilt(precision="float32", strategy=None, idle=False, **arguments):
    """A small trainer with batch statistics and spectral norms, and its losses, by name."""
    keras.utils.set_random_seed(4)
    with (strategy or tf.distribute.get_strategy()).scope():
        part = MultiPeriodDiscriminator(
            (2,), (4, 4), (3, 3), (2, 2), norm="spectral", name="mpd", dtype=precision
        )
        discriminators = CombinedDiscriminator([part])
        discriminators.build()
        judged = LossCfg(Spoilt(LeastSquaresLoss()), 1.0, "mpd_2", "mpd_2")
        loss = MultiLoss(
            [
                LossCfg(Spoilt(WaveformL1Loss()), 1.0, "waveform", WAVEFORM),
                LossCfg(MultiLoss([judged], "adversarial"), 1.0, "adversarial", FEATURES),
            ]
        )
        other = LossCfg(Spoilt(LeastSquaresLoss().discriminator_loss()), 1.0, "mpd_2", "mpd_2")
        of_discriminator = MultiLoss([LossCfg(MultiLoss([other]), 1.0, "discriminator")])
        trainer = AdversarialTrainer(
            OddGenerator(dtype=precision, idle=idle), discriminators, **arguments
        )
        settings = {"learning_rate": 1e-2, "use_ema": True, "global_clipnorm": 1.0}
        settings = optimizing(optimizer=settings)
        optimizers = build_optimizer(settings), build_discriminator_optimizer(settings)
        trainer.compile(*optimizers, of_discriminator, loss=loss)
    return trainer, dict(zip(SIDES, (loss.parts[0].loss, judged.loss, other.loss), strict=True))


def all_of(trainer):
    """Every number that a step may change, by name."""
    groups = {
        "generator": trainer.generator.variables,
        "discriminators": trainer.discriminators.variables,
        "metrics": trainer.metrics_variables,
    } | {f"optimizer {i}": one.variables for i, one in enumerate(trainer.optimizers)}
    return {
        f"{group}: {i} {v.path}": np.array(v) for group, vs in groups.items()
        for i, v in enumerate(vs)
    }  # fmt: skip


def changed(before, after):
    return {name for name in before if not np.array_equal(before[name], after[name])}


def one_batch(size=2):
    rng = np.random.default_rng(5)
    mel = rng.standard_normal((size, 8, 10)).astype(np.float32)
    return mel, (0.1 * rng.standard_normal((size, 128))).astype(np.float32)


@pytest.mark.parametrize("phase", ["warmup", "adversarial"])
@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_a_step_is_all_or_nothing(phase, precision):
    trainer, losses = spoilt(precision)
    step = {"warmup": trainer._warmup_step, "adversarial": trainer.train_step}[phase]
    for _ in range(3):
        step(one_batch())
    start = all_of(trainer)
    for name, loss in losses.items():
        if (phase, name) == ("warmup", "adversarial"):
            continue
        for where in ("forward", "backward"):
            for value in (np.nan, np.inf):
                setattr(loss, where, value)
                logs = step(one_batch())
                setattr(loss, where, 1.0)
                different = changed(start, all_of(trainer))
                if (where, precision) == ("backward", "mixed_float16"):
                    # The gradient is too large for the scale of the loss, which is halved: that
                    # of the side where it is.
                    assert not trainer.nonfinite(logs)
                    side = "optimizer 1" if name == "discriminator" else "optimizer 0"
                    passing = ("metrics", "moving_mean", "moving_variance", "state", "/u", "/v")
                    stepped = {n for n in different if not any(p in n for p in passing)}
                    names = {name.rsplit("/")[-1] for name in stepped}
                    assert all(name.startswith(side) for name in stepped)
                    assert {"dynamic_scale"} <= names <= {"dynamic_scale", "step_counter"}
                    start = all_of(trainer)
                else:
                    assert trainer.nonfinite(logs)
                    assert not different
    step(one_batch())
    groups = {name.split(":")[0] for name in changed(start, all_of(trainer))}
    assert groups == {"generator", "discriminators", "metrics", "optimizer 0", "optimizer 1"}


def test_a_step_is_all_or_nothing_without_discriminators():
    trainer, losses = spoilt(start=9)
    trainer._reconstruction_step(one_batch())
    start = all_of(trainer)
    for where in ("forward", "backward"):
        setattr(losses["waveform"], where, np.nan)
        assert trainer.nonfinite(trainer._reconstruction_step(one_batch()))
        setattr(losses["waveform"], where, 1.0)
        assert not changed(start, all_of(trainer))


def test_what_layers_add_to_the_loss_counts_against_discriminators_too():
    trainer, _ = spoilt(idle=True)
    generator = trainer.generator
    generator.drop.rate = 0.0
    mel, wave = one_batch()
    with tf.GradientTape() as tape:
        made = generator(mel, training=True)
        kernel = generator.out.kernel.value
        added = tf.reduce_mean(made**2) + 0.1 * tf.reduce_sum(kernel**2)
        total = tf.reduce_mean(tf.abs(wave - made)) + added
    unused, *variables = generator.trainable_variables
    norm = tf.linalg.global_norm(tape.gradient(total, variables))
    logs = trainer._reconstruction_step((mel, wave))
    expected = {"added_losses": added, "loss": total, "gradient_norm": norm}
    for name, value in expected.items():
        assert float(logs[name]) == pytest.approx(float(value), rel=1e-5)
    logs = trainer.train_step((mel, wave))
    parts = [float(logs[name]) for name in ("waveform", "adversarial", "added_losses")]
    assert float(logs["loss"]) == pytest.approx(sum(parts), rel=1e-5)
    np.testing.assert_array_equal(unused, np.ones(3))


@pytest.mark.parametrize("side", ["adversarial", "discriminator"])
def test_a_step_of_two_replicas_is_all_or_nothing(side, two_replicas):
    trainer, losses = spoilt(strategy=two_replicas)
    mel, wave = (part[None] for part in one_batch(4))
    fit(trainer, mel, wave)
    start = all_of(trainer)
    losses[side].forward = np.nan
    trainer.make_train_function(force=True)
    (logs,) = fit(trainer, mel, wave)
    assert trainer.nonfinite(logs)
    different = changed(start, all_of(trainer))
    # `fit` itself resets the metrics.
    assert {name.split(":")[0] for name in different} <= {"metrics"}
    assert not any(metric.count.numpy() for metric in trainer.metrics)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_trains_both_sides(precision):
    trainer = tiny(f"trainer.precision={precision}", "optimizer.global_clipnorm=1")
    scaled = precision == "mixed_float16"
    for optimizer in (trainer.optimizer, trainer.discriminator_optimizer):
        assert isinstance(optimizer, keras.optimizers.LossScaleOptimizer) == scaled
    mel, wave = batches(1)
    before = state_of(trainer)
    # The loss scale begins at 32768 and is halved until the gradients are finite.
    logs = fit(trainer, mel.repeat(16, 0), wave.repeat(16, 0))
    assert all(np.isfinite(logs[-1][name]) for name in ("loss", "discriminator"))
    changed = [(a != b).any() for a, b in zip(before, state_of(trainer), strict=True)]
    assert np.mean(changed) > 0.5


def test_checkpoint_restores_both_sides_to_the_last_bit(tmp_path):
    options = ["optimizer.use_ema=true", "optimizer.gradient_accumulation_steps=2"]
    mel, wave = batches(4)
    trainer = tiny(*options)
    fit(trainer, mel[:3], wave[:3])
    Checkpoints(tmp_path, trainer, keep=1).save(3, None)
    other = tiny(*options, "seed=5")
    Checkpoints(tmp_path, other, keep=1).restore(complete(tmp_path)[0])
    assert other.step == 3
    for a, b in zip(state_of(trainer), state_of(other), strict=True):
        np.testing.assert_array_equal(a, b)
    logs = [fit(one, mel[3:], wave[3:])[0] for one in (trainer, other)]
    assert logs[0] == pytest.approx(logs[1], rel=1e-5)


@pytest.mark.slow
def test_training_really_trains():
    """On four seconds of tones and noise."""
    rng = np.random.default_rng(0)
    time = np.arange(22 * 4096) / 22050
    wave = 0.3 * np.sin(2 * np.pi * (200 + 60 * np.sin(2 * np.pi * time)) * time)
    wave = (wave + 0.02 * rng.standard_normal(wave.shape)).astype(np.float32).reshape(22, 4096)
    from vocoder.audio import MelSpectrogram

    mel = np.asarray(MelSpectrogram()(wave))
    rows = rng.integers(0, 22, (100, 4))
    trainer = tiny("trainer.discriminator_warmup=100", "optimizer.learning_rate=2e-3")
    warmup = fit(trainer, mel[rows], wave[rows])
    assert warmup[-1]["discriminator/accuracy_real"] > 0.9
    assert warmup[-1]["discriminator/accuracy_synthesised"] > 0.9
    logs = fit(trainer, mel[rows], wave[rows], at=100)

    def mean(name, part):
        return np.mean([log[name] for log in part])

    assert mean("mel", logs[-10:]) < 0.7 * mean("mel", warmup[:10])
    assert mean("feature_matching", logs[-10:]) < 0.7 * mean("feature_matching", logs[:10])


def test_what_discriminators_say_can_not_be_best():
    trainer = tiny()
    assert directions(trainer, [])["mel"] is False
    with pytest.raises(InputError, match=r"^trainer\.best: .*it has: loss, waveform, mel;"):
        check_measured("adversarial", "trainer.best", directions(trainer, []))


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_steps_twice_on_tiny_widths(name):
    overrides = [f"experiment={name}"]
    if name not in ("demo", "demo_gan"):
        overrides += ["data.root=x", "data.mels=y" if name == "finetune" else "data.mels=null"]
        overrides += ["trainer.pretrained=null"]
    config = configured(*overrides)
    overrides += TINY_GENERATOR[config.generator["name"]]
    parts = config.discriminator["parts"]
    overrides += [
        f"discriminator.parts.{part}.{option}" for part in parts for option in NARROW[part]
    ]
    trainer = build_trainer(configured(*overrides))
    mel, wave = batches(2, size=2, samples=8192)
    logs = fit(trainer, mel, wave, at=10**6)
    assert len(logs) == 2 and not any(trainer.nonfinite(log) for log in logs)
    adversarial = {"adversarial", "feature_matching", "discriminator"}
    assert adversarial & set(logs[1]) == (adversarial if parts else set())


def test_a_run_begins_with_given_weights(tmp_path):
    from vocoder.convert.hifigan import layers  # every convolution

    trainer = tiny()
    mel, wave = batches(1)
    fit(trainer, mel, wave)
    trainer.generator.folded().save(tmp_path / "g.keras")
    trainer.discriminators.save(tmp_path / "d.keras")
    given = [f"trainer.pretrained={tmp_path}/g.keras",
             f"trainer.pretrained_discriminators={tmp_path}/d.keras"]  # fmt: skip
    other = tiny(*given)
    expected = np.asarray(trainer.generator(mel[0]))
    np.testing.assert_allclose(other.generator(mel[0]), expected, atol=1e-5)
    for _, layer in layers(other.generator):
        assert np.isfinite(np.asarray(layer.kernel)).all()
    for a, b in zip(trainer.discriminators.variables, other.discriminators.variables, strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(InputError, match=r"^trainer\.pretrained: .*shapes"):
        tiny(given[0], "generator.upsample_initial_channel=32")
    with pytest.raises(InputError, match=r"^trainer\.pretrained: .*no such file"):
        tiny("trainer.pretrained=gone.keras")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["loss=hifigan"], "loss.terms.feature_matching: needs discriminators"),
        (["discriminator=small"], "loss.terms: discriminators need one adversarial term, not 0"),
        (
            ["trainer.pretrained_discriminators=x"],
            "trainer.pretrained_discriminators: there are no",
        ),
        ([*TINY, "trainer.discriminator_start=2000000"], "trainer.discriminator_start: 2000000 "),
        (
            [*TINY, "trainer.discriminator_warmup=-1"],
            "trainer.discriminator_warmup: must be at least 0",
        ),
        (
            ["discriminator=mpd_mrd", "loss=hifigan", "data.segment_length=512"],
            r"^data.segment_length: 512 samples are too short for discriminator.parts.mrd; "
            r"data.segment_length=\d+ would do$",
        ),
        (["+experiment=hifigan_v9"], "hifigan_v9"),
    ],
)
def test_mistakes(overrides, message):
    from vocoder.overrides import hydra_errors_as_input_errors

    with pytest.raises(InputError, match=message), hydra_errors_as_input_errors():
        build_trainer(configured(*overrides))
