import keras
import numpy as np
import pytest
import tensorflow as tf

from vocoder.config import TrainerConfig
from vocoder.training.optimizer import build_discriminator_optimizer, build_optimizer


def rates(steps, passed=None, build=build_optimizer, **arguments):
    optimizer = build(TrainerConfig(max_steps=100, learning_rate=1e-3, **arguments))
    found = []
    for step, share in zip(steps, passed or [0] * len(steps), strict=True):
        optimizer.iterations.assign(step)
        optimizer.pass_to(share)
        found.append(float(optimizer.learning_rate))
    return found


STAIRS = {"schedule": "exponential", "decay_rate": 0.5, "decay_steps": 10}
WARM = {"schedule": "cosine", "warmup_steps": 20, "final_rate": 0.1}


def test_schedules():
    assert rates([0, 99], schedule="constant") == pytest.approx([1e-3, 1e-3])
    assert rates([0, 9, 10, 25], **STAIRS) == pytest.approx([1e-3, 1e-3, 5e-4, 2.5e-4])
    assert rates([0, 10, 20, 60, 100, 150], **WARM) == pytest.approx(
        [0, 5e-4, 1e-3, 5.5e-4, 1e-4, 1e-4]
    )
    assert rates([0, 50, 100], schedule="cosine") == pytest.approx([1e-3, 5e-4, 0], abs=1e-9)


def test_a_cosine_counts_what_is_over_of_the_run():
    # Half of the run is over after 10 steps, and all of it after 30.
    assert rates([10, 20, 30, 30], [0.1, 0.6, 0.999999, 1.0], **WARM) == pytest.approx(
        [5e-4, 5.5e-4, 1e-4, 1e-4], rel=1e-4
    )
    # What is over in steps and what is over in minutes are one unit: the later of the two counts.
    assert rates([60, 60, 60], [0.0, 0.6, 0.3], **WARM) == pytest.approx([5.5e-4] * 3)
    # A warm-up goes on where it is, down from a rate that is lower already.
    assert rates([10], [0.6], **WARM) == pytest.approx([0.5 * 5.5e-4])
    assert rates([10], [1.0], **STAIRS) == pytest.approx([5e-4])  # there is no end of these
    assert rates([10], [1.0], schedule="constant") == pytest.approx([1e-3])


def test_the_discriminators_schedule_ends_with_the_run():
    later = WARM | {"discriminator_start": 40, "warmup_steps": 10, "ema_momentum": 0.9}
    build = build_discriminator_optimizer
    assert rates([0, 5, 10, 35, 60], **later, build=build) == pytest.approx(
        [0, 5e-4, 1e-3, 5.5e-4, 1e-4]
    )
    passed = [0.4, 0.75, 1.0]  # of the run, at the discriminators' own steps
    assert rates([0, 20, 25], passed, **later, build=build) == pytest.approx([0, 5.5e-4, 1e-4])
    assert not build(TrainerConfig(**later)).use_ema


def test_settings_reach_keras():
    optimizer = build_optimizer(
        TrainerConfig(
            schedule="constant",
            global_clipnorm=3.0,
            gradient_accumulation_steps=4,
            ema_momentum=0.9,
            weight_decay=0.02,
        )
    )
    assert (optimizer.beta_1, optimizer.beta_2, optimizer.weight_decay) == (0.8, 0.99, 0.02)
    assert optimizer.global_clipnorm == 3.0 and optimizer.gradient_accumulation_steps == 4
    assert optimizer.use_ema and optimizer.ema_momentum == 0.9
    assert np.isclose(float(optimizer.learning_rate), 2e-4)
    assert build_optimizer(TrainerConfig(ema_momentum=0.0)).ema_momentum == 0


@pytest.mark.parametrize("schedule", ["constant", "cosine", "exponential"])
def test_an_optimizer_is_made_again_of_its_config(schedule):
    settings = {"schedule": schedule, "max_steps": 100, "warmup_steps": 3, "final_rate": 0.1}
    optimizer = build_optimizer(TrainerConfig(**settings))
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(again) is type(optimizer) and again.get_config() == optimizer.get_config()


AVERAGED = {
    "schedule": "constant", "learning_rate": 1.0, "weight_decay": 0.0, "ema_momentum": 0.9,
}  # fmt: skip


def averages(gradients, loss_scale=False, **settings):
    """The weight and its average after each gradient; every update is by -1 or 1."""
    variable = keras.Variable(0.0)
    optimizer = build_optimizer(TrainerConfig(**AVERAGED, **settings))
    inner = optimizer
    if loss_scale:
        optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=1.0)
    optimizer.build([variable])
    found = []
    for gradient in gradients:
        optimizer.apply_gradients([(tf.constant(gradient), variable)])
        found.append((float(variable), float(inner._model_variables_moving_average[0])))
    return found


FIVE = [(-1, -1), (-2, -1.1), (-3, -1.29), (-4, -1.561), (-5, -1.9049)]


def test_weights_are_averaged_once_an_update():
    np.testing.assert_allclose(averages([1.0] * 5), FIVE, rtol=1e-3)
    found = averages([1.0] * 40, gradient_accumulation_steps=8)
    np.testing.assert_allclose(found[7::8], FIVE, rtol=1e-3)
    # Where gradients are only gathered nothing changes; before the first update there is none.
    assert found[:7] == [(0, 0)] * 7
    assert all(found[i] == found[i - 1] for i in range(8, 40) if i % 8 != 7)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_gradient_that_the_loss_scale_skips_is_no_update(accumulation):
    gradients = [float("inf"), 1.0, float("inf"), 1.0, 1.0, float("inf"), 1.0, 1.0] * 2
    found = averages(gradients, True, gradient_accumulation_steps=accumulation)
    updates = np.flatnonzero(np.isfinite(gradients))[accumulation - 1 :: accumulation]
    weight, average = found[updates[0]]
    assert average == weight < 0 and found[: updates[0]] == [(0, 0)] * updates[0]
    for i in range(updates[0] + 1, len(gradients)):
        if i in updates:
            average = 0.9 * average + 0.1 * found[i][0]
            assert found[i][0] < found[i - 1][0] - 0.9
        assert found[i] == (found[i][0], pytest.approx(average, rel=1e-5))
        assert i in updates or found[i] == found[i - 1]
