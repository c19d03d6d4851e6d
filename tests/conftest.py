"""What all tests share. Nothing is downloaded; audio is made here."""

import os
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import numpy as np
import pytest

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def golden():
    """Loads `tests/golden/NAME.npz`."""
    return lambda name: dict(np.load(GOLDEN / f"{name}.npz"))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def pytest_configure(config):
    import tensorflow as tf

    # Two devices of one CPU, for what must be the same on several.
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)


@pytest.fixture(autouse=True)
def seeded():
    import keras

    keras.utils.set_random_seed(0)
