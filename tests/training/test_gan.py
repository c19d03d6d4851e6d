"""The adversarial step, against the original's and on several replicas, and its recipes."""

from pathlib import Path

import hifigan_recipe
import keras
import numpy as np
import pytest
import tensorflow as tf
from running import TINY_GENERATOR, configured

from vocoder.config import asset
from vocoder.discriminators import Discriminators, MultiPeriodDiscriminator, MultiScaleDiscriminator
from vocoder.errors import InputError
from vocoder.generators import HiFiGAN
from vocoder.losses.build import build_discriminator_loss, build_multi_loss
from vocoder.training.build import build_trainer
from vocoder.training.checkpoints import Checkpoints, complete
from vocoder.training.distribution import worker
from vocoder.training.gan import AdversarialTrainer
from vocoder.training.validation import higher_is_better

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
    "trainer.schedule=constant",
    "trainer.learning_rate=1e-3",
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
    callback = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: trainer.at_step(at + batch),
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
    discriminators = Discriminators(parts)
    discriminators.build()
    for part in parts:
        hifigan_recipe.fill(part)
    names = discriminators.sub_discriminators
    loss = build_multi_loss(configured("loss=hifigan").loss, 22050, 4096, names)
    trainer = AdversarialTrainer(generator, discriminators)
    sgd = keras.optimizers.SGD
    trainer.compile(sgd(0.0), sgd(0.0), build_discriminator_loss(loss), loss=loss)
    seen = []

    def update(optimizer, variables, gradients, values, norms, allowed=True):
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
    trainer = tiny("trainer.ema_momentum=0.9")
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


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_trains_both_sides(precision):
    trainer = tiny(f"trainer.precision={precision}", "trainer.global_clipnorm=1")
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
    options = ["trainer.ema_momentum=0.9", "trainer.gradient_accumulation_steps=2"]
    mel, wave = batches(4)
    trainer = tiny(*options)
    fit(trainer, mel[:3], wave[:3])
    Checkpoints(tmp_path, trainer, keep=1).save(3, None)
    other = tiny(*options, "seed=5")
    assert Checkpoints(tmp_path, other, keep=1).restore(complete(tmp_path)[0]) == 3
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
    trainer = tiny("trainer.discriminator_warmup=100", "trainer.learning_rate=2e-3")
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
    assert not higher_is_better("mel", trainer, [])
    with pytest.raises(InputError, match=r"^trainer\.best: .*it has: loss, waveform, mel;"):
        higher_is_better("adversarial", trainer, [])


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
        ([*TINY, "trainer.discriminator_warmup=-1"], "trainer.discriminator_warmup: must be 0"),
        (["+experiment=hifigan_v9"], "hifigan_v9"),
    ],
)
def test_mistakes(overrides, message):
    from vocoder.config import hydra_errors_as_input_errors

    with pytest.raises(InputError, match=message), hydra_errors_as_input_errors():
        build_trainer(configured(*overrides))
