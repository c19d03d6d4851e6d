import json
import logging

import keras
import numpy as np
import pytest
import tensorflow as tf
from odd import OddGenerator

from configs import optimizing
from vocoder.errors import InputError
from vocoder.generators import HiFiGAN
from vocoder.losses import LossCfg, MultiLoss, STFTLoss, WaveformL1Loss
from vocoder.training import checkpoints as checkpoints_module
from vocoder.training.checkpoints import Checkpoints, complete
from vocoder.training.optimizer import build_optimizer
from vocoder.training.trainer import ReconstructionTrainer

HEAD = {"name": "istft", "n_fft": 16, "hop_length": 4}


def tiny_trainer(**arguments):
    generator = HiFiGAN((8,), (16,), 8, head=HEAD, n_mels=10)
    trainer = ReconstructionTrainer(generator)
    loss = MultiLoss(
        [LossCfg(WaveformL1Loss(), 1, "l1"), LossCfg(STFTLoss(128, 32, 128), 0.5, "stft")]
    )
    config = optimizing(optimizer={"learning_rate": 1e-2} | arguments)
    trainer.compile(build_optimizer(config), loss=loss)
    return trainer


@pytest.fixture
def batches(rng):
    mel = rng.standard_normal((6, 16, 10)).astype(np.float32)
    waveform = (0.1 * rng.standard_normal((6, 512))).astype(np.float32)
    return tf.data.Dataset.from_tensor_slices((mel, waveform)).batch(4)  # 4 + 2


def test_evaluate_shows_total_and_parts(batches):
    trainer = tiny_trainer()
    result = trainer.evaluate(batches, verbose=0, return_dict=True)
    assert set(result) == {"loss", "l1", "stft"}
    assert result["loss"] == pytest.approx(result["l1"] + 0.5 * result["stft"], rel=1e-5)
    mel, waveform = (
        np.concatenate(part) for part in zip(*batches.as_numpy_iterator(), strict=True)
    )
    expected = float(WaveformL1Loss()(waveform, trainer(mel)))
    assert result["l1"] == pytest.approx(expected, rel=1e-5)


def test_gradient_norm_is_that_before_clipping(batches):
    trainer = tiny_trainer(global_clipnorm=1e-3)
    mel, waveform = next(iter(batches))
    with tf.GradientTape() as tape:
        loss = trainer.loss(waveform, trainer(mel, training=True))
    expected = tf.linalg.global_norm(tape.gradient(loss, trainer.trainable_variables))
    logs = trainer.fit(batches.take(1), verbose=0).history
    assert logs["gradient_norm"][0] == pytest.approx(float(expected), rel=1e-4)


def odd_trainer(strategy=None, **arguments):
    keras.utils.set_random_seed(0)
    with (strategy or tf.distribute.get_strategy()).scope():
        generator = OddGenerator(**arguments)
        generator.drop.rate = 0.0
        trainer = ReconstructionTrainer(generator)
        settings = {"learning_rate": 0.1, "gradient_accumulation_steps": 2}
        settings = optimizing(optimizer=settings | {"use_ema": True, "ema_momentum": 0.9})
        loss = MultiLoss([LossCfg(WaveformL1Loss(), 2, "l1")])
        trainer.compile(build_optimizer(settings), loss=loss)
    return trainer


def odd_batch(rng):
    mel = rng.standard_normal((4, 8, 10)).astype(np.float32)
    return mel, (0.1 * rng.standard_normal((4, 128))).astype(np.float32)


def test_what_layers_add_to_the_loss_counts_and_is_shown(rng):
    trainer = odd_trainer()
    mel, wave = odd_batch(rng)
    variables = trainer.trainable_variables[1:]  # the first is the one that does nothing
    with tf.GradientTape() as tape:
        made = trainer.generator(mel, training=True)
        kernel = trainer.generator.out.kernel.value
        added = tf.reduce_mean(made**2) + 0.1 * tf.reduce_sum(kernel**2)
        total = 2 * tf.reduce_mean(tf.abs(wave - made)) + added
    norm = tf.linalg.global_norm(tape.gradient(total, variables))
    logs = trainer.train_step((mel, wave))
    assert float(logs["added_losses"]) == pytest.approx(float(added), rel=1e-5)
    assert float(logs["loss"]) == pytest.approx(float(total), rel=1e-5)
    assert float(logs["gradient_norm"]) == pytest.approx(float(norm), rel=1e-5)
    means = {metric.name: float(metric.result()) for metric in trainer.metrics}
    assert means == pytest.approx({k: float(v) for k, v in logs.items()}, rel=1e-5)
    made = np.asarray(trainer.generator(mel))
    added = np.mean(made**2) + 0.1 * np.sum(np.asarray(trainer.generator.out.kernel) ** 2)
    found = trainer.evaluate(mel, wave, batch_size=4, verbose=0, return_dict=True)
    assert set(found) == {"loss", "l1", "added_losses"}
    assert found["added_losses"] == pytest.approx(added, rel=1e-5)
    assert found["loss"] == pytest.approx(2 * np.abs(wave - made).mean() + added, rel=1e-5)
    assert "added_losses" not in {metric.name for metric in odd_trainer(adds=False).metrics}


def test_a_variable_without_a_gradient_is_left_out_and_told(rng, caplog):
    trainer = odd_trainer()
    before = [v.numpy() for v in trainer.trainable_variables]
    with caplog.at_level(logging.WARNING, logger="vocoder"):
        for _ in range(4):
            trainer.train_step(odd_batch(rng))
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == "odd/unused: has no part in the loss, so that it is not trained"
    changed = [(a != b).any() for a, b in zip(before, trainer.trainable_variables, strict=True)]
    assert changed == [False] + [True] * (len(before) - 1)
    assert int(trainer.optimizer.iterations) == 2
    trainer.generator.norm.trainable = trainer.generator.out.trainable = False
    with pytest.raises(InputError, match="^loss: it depends on no variable of the network"):
        trainer.train_step(odd_batch(rng))


def test_an_odd_generator_on_two_replicas_is_as_on_one(rng, two_replicas):
    mel, wave = odd_batch(rng)
    mel = np.concatenate([mel[:2]] * 2)  # batch statistics are those of a replica
    found = []
    for strategy in (tf.distribute.get_strategy(), two_replicas):
        trainer = odd_trainer(strategy)
        data = tf.data.Dataset.from_tensor_slices((mel, wave)).repeat(3).batch(4)
        trainer.fit(data, verbose=0)
        weights = [v.numpy() for v in trainer.trainable_variables]
        found.append((trainer.history.history, weights))
    (one, weights), (two, weights_of_two) = found
    assert set(one) == {"loss", "l1", "added_losses", "gradient_norm"}
    for name, values in one.items():
        assert two[name] == pytest.approx(values, rel=1e-4)
    for a, b in zip(weights, weights_of_two, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_averaged_weights_come_and_go(batches):
    trainer = tiny_trainer(use_ema=True, ema_momentum=0.9)
    mel, waveform = next(iter(batches))
    before = np.asarray(trainer(mel))
    with trainer.averaged_weights():  # there is no average yet
        np.testing.assert_array_equal(trainer(mel), before)
    for _ in range(3):
        trainer.train_step((mel, waveform))
    trained = [variable.numpy() for variable in trainer.trainable_variables]
    averages = [v.numpy() for v in trainer.optimizer._model_variables_moving_average]
    with pytest.raises(KeyError), trainer.averaged_weights():
        for variable, average in zip(trainer.trainable_variables, averages, strict=True):
            np.testing.assert_array_equal(variable, average)
        raise KeyError
    assert any((a != t).any() for a, t in zip(averages, trained, strict=True))
    for variable, value in zip(trainer.trainable_variables, trained, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_a_checkpoint_that_is_being_deleted_is_none(tmp_path, monkeypatch):
    class Killed:
        copyfile = checkpoints_module.shutil.copyfile

        def rmtree(folder):
            (folder / "info.json").unlink()
            raise KeyboardInterrupt

    checkpoints = Checkpoints(tmp_path, tiny_trainer(), keep=1)
    checkpoints.save(1, None)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoints_module, "shutil", Killed)
        checkpoints.save(2, None)
    assert [path.name for path in complete(tmp_path)] == ["step-00000002"]
    Checkpoints(tmp_path, tiny_trainer(), keep=1).save(3, None)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000003"]


def test_the_saved_generator_has_the_averaged_weights(batches, tmp_path):
    trainer = tiny_trainer(use_ema=True, ema_momentum=0.9)
    checkpoints = Checkpoints(tmp_path, trainer, keep=1)
    mel, waveform = next(iter(batches))
    for _ in range(5):
        trainer.train_step((mel, waveform))
    checkpoints.save(5, None)
    saved = np.asarray(keras.saving.load_model(tmp_path / "generator.keras")(mel))
    trained = np.asarray(trainer(mel))
    with trainer.averaged_weights():
        averaged = np.asarray(trainer(mel))
    np.testing.assert_allclose(saved, averaged, atol=1e-5)
    assert np.abs(averaged - trained).max() > 1e-3  # or the test could not tell them apart


def test_checkpoint_restores_to_the_last_bit(batches, tmp_path):
    options = {"use_ema": True, "gradient_accumulation_steps": 2, "global_clipnorm": 1.0}

    def steps(trainer, count):
        for _, batch in zip(range(count), batches.repeat(), strict=False):
            trainer.train_step(batch)

    trainer = tiny_trainer(**options)
    checkpoints = Checkpoints(tmp_path, trainer, keep=2)
    steps(trainer, 3)  # with a half-full accumulator
    checkpoints.save(3, 0.5)
    keras.utils.set_random_seed(7)
    other = tiny_trainer(**options)
    restored = Checkpoints(tmp_path, other, keep=2)
    restored.restore(complete(tmp_path)[-1])
    assert other.step == 3
    assert float(restored.best) == 0.5
    for a, b in zip(trainer.variables, other.variables, strict=True):
        if "metric" not in a.path and not a.path.startswith(("loss", "l1", "stft", "gradient")):
            np.testing.assert_array_equal(a, b, err_msg=a.path)
    for a, b in zip(trainer.optimizer.variables, other.optimizer.variables, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=a.path)
    steps(trainer, 3)
    steps(other, 3)
    for a, b in zip(trainer.trainable_variables, other.trainable_variables, strict=True):
        np.testing.assert_array_equal(a, b)


def steps_of(run):
    return [int(path.name.removeprefix("step-")) for path in complete(run)]


def test_pruning_keeps_the_best_and_the_last(tmp_path):
    checkpoints = Checkpoints(tmp_path, tiny_trainer(), keep=2)
    for step, loss in ((1, 3.0), (2, 1.0), (3, None), (4, 1.0), (5, np.nan), (6, None)):
        checkpoints.save(step, loss)
    assert steps_of(tmp_path) == [2, 5, 6]  # of two that are equal the first
    assert float(checkpoints.best) == 1.0


def test_more_of_a_measure_may_be_better(tmp_path):
    checkpoints = Checkpoints(tmp_path, tiny_trainer(), 1, True, "pesq_wb", True)
    assert not checkpoints.improves(None) and not checkpoints.improves(np.nan)
    for step, value in ((1, np.nan), (2, -1.0), (3, 2.0), (4, 2.0), (5, 1.5), (6, np.nan)):
        assert checkpoints.improves(value) == (step in (2, 3))
        checkpoints.save(step, value)
    assert steps_of(tmp_path) == [3, 6]
    assert float(checkpoints.best) == 2.0
    info = [json.loads((path / "info.json").read_text()) for path in complete(tmp_path)]
    assert info == [
        {"step": 3, "measure": "pesq_wb", "value": 2.0, "seconds": 0.0},
        {"step": 6, "measure": "pesq_wb", "value": None, "seconds": 0.0},
    ]


def test_values_of_two_measures_are_not_compared(tmp_path, capsys):
    checkpoints = Checkpoints(tmp_path, tiny_trainer(), 1)
    checkpoints.save(1, 3.0)
    checkpoints.save(2, 4.0)
    checkpoints.save(3, 5.0)
    other = Checkpoints(tmp_path, tiny_trainer(), 1, measure="mcd")
    other.restore(complete(tmp_path)[-1])
    assert capsys.readouterr().out.startswith(f"trainer.best: {tmp_path}")
    assert other.improves(9.0)
    other.save(4, 9.0)
    other.save(5, 9.5)
    assert steps_of(tmp_path) == [4, 5]  # the first had the least value, but of the loss
    again = Checkpoints(tmp_path, tiny_trainer(), 1, measure="mcd")
    again.restore(complete(tmp_path)[-1])
    assert not capsys.readouterr().out and float(again.best) == 9.0


def test_checkpoints_of_before_went_by_the_loss(tmp_path, capsys):
    checkpoints = Checkpoints(tmp_path, tiny_trainer(), 1)
    for step, loss in ((1, 1.0), (2, 4.0)):
        checkpoints.save(step, loss)
    for path in complete(tmp_path):
        info = json.loads((path / "info.json").read_text())
        old = {"step": info["step"], "validation_loss": info["value"]}
        (path / "info.json").write_text(json.dumps(old))
    again = Checkpoints(tmp_path, tiny_trainer(), 1)
    again.restore(complete(tmp_path)[-1])
    assert float(again.best) == 1.0 and not capsys.readouterr().out
    again.save(3, 2.0)
    assert steps_of(tmp_path) == [1, 3]
