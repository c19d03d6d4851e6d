import keras
import numpy as np
import pytest
import tensorflow as tf

from configs import optimizing
from vocoder import registry
from vocoder.errors import InputError
from vocoder.training.optimizer import Trained, build_discriminator_optimizer, build_optimizer


def rates(steps, passed=None, build=build_optimizer, schedule=None, **arguments):
    arguments = {"max_steps": 100, "optimizer": {"learning_rate": 1e-3}} | arguments
    optimizer = build(optimizing(schedule, **arguments))
    found = []
    for step, share in zip(steps, passed or [0] * len(steps), strict=True):
        optimizer.iterations.assign(step)
        optimizer.go_to(share)
        found.append(float(optimizer.learning_rate))
    return found


STAIRS = {"name": "exponential", "decay_rate": 0.5, "decay_steps": 10}
WARM = {"name": "cosine", "warmup_steps": 20, "final_rate": 0.1}


def test_schedules():
    assert rates([0, 99]) == pytest.approx([1e-3, 1e-3])
    assert rates([0, 9, 10, 25], schedule=STAIRS) == pytest.approx([1e-3, 1e-3, 5e-4, 2.5e-4])
    assert rates([0, 10, 20, 60, 100, 150], schedule=WARM) == pytest.approx(
        [0, 5e-4, 1e-3, 5.5e-4, 1e-4, 1e-4]
    )
    cosine = {"name": "cosine"}
    assert rates([0, 50, 100], schedule=cosine) == pytest.approx([1e-3, 5e-4, 0], abs=1e-9)


def test_a_cosine_counts_what_is_over_of_the_run():
    # Half of the run is over after 10 steps, and all of it after 30.
    found = rates([10, 20, 30, 30], [0.1, 0.6, 0.999999, 1.0], schedule=WARM)
    assert found == pytest.approx([5e-4, 5.5e-4, 1e-4, 1e-4], rel=1e-4)
    # What is over in steps and what is over in minutes are one unit: the later of the two counts.
    assert rates([60, 60, 60], [0.0, 0.6, 0.3], schedule=WARM) == pytest.approx([5.5e-4] * 3)
    # A warm-up goes on where it is, down from a rate that is lower already.
    assert rates([10], [0.6], schedule=WARM) == pytest.approx([0.5 * 5.5e-4])
    assert rates([10], [1.0], schedule=STAIRS) == pytest.approx([5e-4])  # there is no end of these
    assert rates([10], [1.0]) == pytest.approx([1e-3])


def test_the_discriminators_schedule_ends_with_the_run():
    later = {"schedule": WARM | {"warmup_steps": 10}, "discriminator_start": 40}
    build = build_discriminator_optimizer
    assert rates([0, 5, 10, 35, 60], **later, build=build) == pytest.approx(
        [0, 5e-4, 1e-3, 5.5e-4, 1e-4]
    )
    passed = [0.4, 0.75, 1.0]  # of the run, at the discriminators' own steps
    assert rates([0, 20, 25], passed, **later, build=build) == pytest.approx([0, 5.5e-4, 1e-4])


def test_the_discriminators_inherit_what_is_not_theirs():
    averaged = {"use_ema": True, "global_clipnorm": 3.0, "beta_1": 0.7}
    build = build_discriminator_optimizer
    same = build(optimizing(optimizer=averaged, discriminators={"learning_rate": 1e-5}))
    assert type(same).__name__ == "AdamW" and not same.use_ema
    assert (same.global_clipnorm, same.beta_1) == (3.0, 0.7)
    assert float(same.learning_rate) == pytest.approx(1e-5)
    other = {"name": "sgd", "learning_rate": 0.1, "momentum": 0.5}
    other = build(optimizing(optimizer=averaged, discriminators=other))
    assert type(other).__name__ == "SGD" and other.global_clipnorm is None


def test_settings_reach_keras():
    settings = {"global_clipnorm": 3.0, "gradient_accumulation_steps": 4, "weight_decay": 0.02}
    settings |= {"use_ema": True, "ema_momentum": 0.9}
    optimizer = build_optimizer(optimizing(optimizer=settings))
    assert (optimizer.beta_1, optimizer.beta_2, optimizer.weight_decay) == (0.8, 0.99, 0.02)
    assert optimizer.global_clipnorm == 3.0 and optimizer.gradient_accumulation_steps == 4
    assert optimizer.use_ema and optimizer.ema_momentum == 0.9
    assert np.isclose(float(optimizer.learning_rate), 2e-4)
    one = build_optimizer(optimizing(optimizer={"gradient_accumulation_steps": 1}))
    assert one.gradient_accumulation_steps is None


@pytest.mark.parametrize(
    ("optimizer", "schedule", "message"),
    [
        ({"learning_rate": 0}, None, "optimizer.learning_rate: must be above 0, not 0"),
        ({"ema_momentum": 1}, None, "optimizer.ema_momentum: must be below 1, not 1"),
        ({"beta_1": -0.1}, None, "optimizer.beta_1: must be at least 0, not -0.1"),
        ({"gradient_accumulation_steps": 0}, None, "optimizer.gradient_accum.* at least 1"),
        ({"momentum": 0.5}, None, "optimizer.momentum: unknown 'momentum'"),
        ({"loss_scale_factor": 8}, None, "optimizer.loss_scale_factor: not used here"),
        ({"use_ema": "maybe"}, None, "optimizer.use_ema: must be true or false, not 'maybe'"),
        ({}, WARM | {"warmup_steps": 100}, "schedule.warmup_steps: 100 must be below .* 100"),
        ({}, WARM | {"final_rate": 2}, "schedule.final_rate: must be at most 1, not 2"),
        ({}, STAIRS | {"decay_steps": 1.5}, "schedule.decay_steps: must be a whole number"),
        ({}, {"name": "constant", "decay_rate": 1}, "schedule.decay_rate: unknown"),
    ],
)
def test_mistakes(optimizer, schedule, message):
    with pytest.raises(InputError, match=f"^{message}"):
        build_optimizer(optimizing(schedule, optimizer, max_steps=100))


@pytest.mark.parametrize("schedule", ["constant", "cosine", "exponential"])
@pytest.mark.parametrize("name", registry.OPTIMIZERS)
def test_an_optimizer_is_made_again_of_its_config(name, schedule):
    optimizer = build_optimizer(optimizing({"name": schedule}, {"name": name}))
    assert isinstance(optimizer, Trained)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(again) is type(optimizer) and again.get_config() == optimizer.get_config()


@pytest.mark.parametrize("name", registry.OPTIMIZERS)
def test_every_optimizer_lowers_a_loss_and_averages_its_weights(name):
    settings = {"name": name, "learning_rate": 0.02, "use_ema": True, "ema_momentum": 0.5}
    settings |= {"gradient_accumulation_steps": 2}
    optimizer = build_optimizer(optimizing(optimizer=settings))
    matrix, vector = (keras.Variable(one.astype("float32")) for one in (np.eye(3), np.ones(3)))
    optimizer.build([matrix, vector])
    losses = []
    for step in range(60):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(matrix.value**2) + tf.reduce_sum(vector.value**2)
        optimizer.apply_gradients(
            zip(tape.gradient(loss, [matrix.value, vector.value]), [matrix, vector], strict=True)
        )
        losses.append(float(loss))
        average = np.asarray(optimizer._model_variables_moving_average[1])
        if step == 1:  # the first update
            np.testing.assert_allclose(average, np.asarray(vector))
    assert losses[-1] < 0.9 * losses[0]
    assert np.abs(average - np.asarray(vector)).max() > 1e-6
    before = np.asarray(vector)
    optimizer.finalize_variable_values([matrix, vector])
    np.testing.assert_array_equal(vector, before)


AVERAGED = {"learning_rate": 1.0, "weight_decay": 0.0, "use_ema": True, "ema_momentum": 0.9}


def averages(gradients, loss_scale=False, **settings):
    """The weight and its average after each gradient; every update is by -1 or 1."""
    variable = keras.Variable(0.0)
    optimizer = build_optimizer(optimizing(optimizer=AVERAGED | settings))
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
