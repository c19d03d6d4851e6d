import numpy as np
import pytest

from vocoder.config import TrainerConfig
from vocoder.training.optimizer import build_optimizer


def rates(steps, **arguments):
    optimizer = build_optimizer(TrainerConfig(max_steps=100, learning_rate=1e-3, **arguments))
    found = []
    for step in steps:
        optimizer.iterations.assign(step)
        found.append(float(optimizer.learning_rate))
    return found


def test_schedules():
    assert rates([0, 99], schedule="constant") == pytest.approx([1e-3, 1e-3])
    stairs = {"schedule": "exponential", "decay_rate": 0.5, "decay_steps": 10}
    assert rates([0, 9, 10, 25], **stairs) == pytest.approx([1e-3, 1e-3, 5e-4, 2.5e-4])
    warm = {"schedule": "cosine", "warmup_steps": 20, "final_rate": 0.1}
    assert rates([0, 10, 20, 60, 100, 150], **warm) == pytest.approx(
        [0, 5e-4, 1e-3, 5.5e-4, 1e-4, 1e-4]
    )
    assert rates([0, 50, 100], schedule="cosine") == pytest.approx([1e-3, 5e-4, 0], abs=1e-9)


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
