"""Means over utterances, and what can tell the best checkpoint."""

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from vocoder.errors import InputError
from vocoder.evaluation.metric import Measure, Metric, build_metrics
from vocoder.generators import HiFiGAN
from vocoder.losses import LossCfg, MultiLoss, WaveformL1Loss
from vocoder.training.build import build_callbacks
from vocoder.training.distribution import of_chief
from vocoder.training.trainer import ReconstructionTrainer
from vocoder.training.validation import UtteranceMetrics, check_measured, directions

HEAD = {"name": "istft", "n_fft": 16, "hop_length": 4}

RATE = 1000


class Levels(Metric):
    """What is synthesised, at its first sample, and where the recording is silent, no mean."""

    measures = (
        Measure("level", "level", "", True),
        Measure("distance", "distance", "", False),
    )

    def compute(self, reference, synthesised, sample_rate):
        assert sample_rate == RATE
        level = synthesised[0]
        return level, abs(level - reference[0]) if reference[0] else np.nan


def utterances(*levels):
    """Recordings of a constant level, with mels of the same."""
    return [
        (f"{i}.wav", {"mel": np.full((10, 4), level)}, np.full(500, level))
        for i, level in enumerate(levels)
    ]


def half(features):
    return np.full(480, features["mel"][0, 0] / 2)


def test_means_are_over_the_utterances_where_a_measure_is_defined():
    ratings = UtteranceMetrics([Levels()], utterances(0.2, 0.0, 0.8), RATE)
    assert ratings.names == ["level", "distance"]
    found = ratings(half)
    assert found["level"] == pytest.approx((0.1 + 0.0 + 0.4) / 3)
    assert found["distance"] == pytest.approx((0.1 + 0.4) / 2)


def test_undefined_everywhere_is_nan():
    found = UtteranceMetrics([Levels()], utterances(0.0, 0.0), RATE)(half)
    assert found["level"] == 0 and np.isnan(found["distance"])
    broken = UtteranceMetrics([Levels()], utterances(0.2), RATE)(lambda mel: half(mel) * np.nan)
    assert np.isnan(list(broken.values())).all()
    # As in workers that get the chief's values.
    assert np.isnan(list(UtteranceMetrics([Levels()], [], RATE)(half).values())).all()
    assert UtteranceMetrics([], utterances(0.2), RATE)(half) == {}


class Failing(Metric):
    measures = (Measure("failing", "failing", "", True),)

    def compute(self, reference, synthesised, sample_rate):
        if reference[0] > 0.5:
            raise RuntimeError("no\x1b[31m\nspeech")
        return (1.0,)


def test_a_metric_that_fails_costs_a_value_and_not_the_run(caplog):
    found = UtteranceMetrics([Failing(), Levels()], utterances(0.2, 0.8), RATE)(half)
    assert found["failing"] == 1.0 and found["level"] == pytest.approx(0.25)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("trainer.validation_metrics: failing of 1.wav failed")
    assert "speech" in line and line.isprintable()


def test_tiny_clips_have_no_measures():
    for length in (1, 2, 100, 249):
        tiny = [("a.wav", {"mel": np.zeros((1, 4))}, np.full(length, 0.2))]
        assert np.isnan(list(UtteranceMetrics([Levels()], tiny, RATE)(half).values())).all()


def test_one_process_is_its_own_chief():
    values = {"level": 0.1, "distance": float("nan")}
    assert of_chief(tf.distribute.get_strategy(), values) is values


def trainer_on(term):
    generator = HiFiGAN((4,), (8,), 4, head=HEAD, n_mels=4)
    trainer = ReconstructionTrainer(generator)
    trainer.compile("sgd", loss=MultiLoss([LossCfg(WaveformL1Loss(), 1, term)]))
    return trainer


def test_the_measure_says_which_way_is_up():
    trainer = trainer_on("l1")
    metrics = build_metrics(["mr_stft", "mr_stft"], "k")
    assert len(metrics) == 1
    metrics.append(Levels())
    expected = {"loss": False, "l1": False, "mr_stft": False, "distance": False, "level": True}
    assert directions(trainer, metrics) == expected


def test_what_is_not_measured_can_not_be_best():
    trainer = trainer_on("l1")
    message = r"^trainer\.best: validation has no 'pesq_wb' .it has: loss, l1, level, distance; "
    with pytest.raises(InputError, match=message):
        check_measured("pesq_wb", "trainer.best", directions(trainer, [Levels()]))
    with pytest.raises(InputError, match=r"^trainer\.best: .* 'gradient_norm' .it has: loss, l1;"):
        check_measured("gradient_norm", "trainer.best", directions(trainer, []))


def test_a_term_has_another_name_than_a_measure():
    with pytest.raises(InputError, match=r"^loss\.terms\.level: trainer\.validation_metrics"):
        directions(trainer_on("level"), [Levels()])


@pytest.mark.parametrize("name", ["step", "split", "gradient_norm", "learning_rate"])
def test_a_term_has_another_name_than_what_is_logged_besides(name):
    with pytest.raises(InputError, match=rf"^loss\.terms\.{name}: a run logs something else"):
        directions(trainer_on(name), [])


def stopping(**arguments):
    node = {"callback": "early_stopping"} | arguments
    measured = directions(trainer_on("l1"), [Levels()])
    (callback,) = build_callbacks(SimpleNamespace(callbacks={"stop": node}), measured)
    callback.set_model(trainer_on("l1"))
    callback.on_train_begin()
    return callback.mode


def test_callbacks_are_told_which_way_is_up():
    assert stopping() == stopping(monitor="val_l1") == "min"
    assert stopping(monitor="val_level", patience=3, min_delta=0.1) == "max"
    assert stopping(monitor="val_level", mode="min") == "min"
    message = r"^callbacks\.stop\.monitor: validation has no 'val_l2' .it has: loss, l1, level"
    with pytest.raises(InputError, match=message.replace("val_", "")):
        stopping(monitor="val_l2")
    with pytest.raises(InputError, match=r"^callbacks\.stop\.patience: must be a whole number"):
        stopping(patience="many")
