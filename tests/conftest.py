"""What all tests share. Nothing is downloaded; audio is made here."""

import os
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import numpy as np
import pytest
import soundfile

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def golden():
    """Loads `tests/golden/NAME.npz`."""
    return lambda name: dict(np.load(GOLDEN / f"{name}.npz"))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def pytest_configure(config):
    if config.getoption("numprocesses", None):  # the tests run in xdist's workers, not here
        return
    import tensorflow as tf

    # Two devices of one CPU, for what must be the same on several.
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)


@pytest.fixture(autouse=True)
def seeded():
    import keras

    keras.utils.set_random_seed(0)


@pytest.fixture(scope="session")
def two_replicas():
    """A strategy of two devices; one for all tests, as two in one process mix their messages up."""
    import tensorflow as tf

    from configs import trainer_config
    from vocoder.training.distribution import build_strategy

    if len(tf.config.list_logical_devices("CPU")) < 2:
        pytest.skip("needs the two logical devices that are set up above")
    return build_strategy(trainer_config(strategy="mirrored"))


@pytest.fixture(scope="session")
def original_discriminators():
    """HiFi-GAN's discriminators with the golden weights. Not to be changed."""
    from hifigan_recipe import fill

    from vocoder.discriminators import (
        CombinedDiscriminator,
        MultiPeriodDiscriminator,
        MultiScaleDiscriminator,
    )

    discriminators = CombinedDiscriminator([MultiPeriodDiscriminator(), MultiScaleDiscriminator()])
    discriminators.build()
    for part in discriminators.parts:
        fill(part)
    return discriminators


@pytest.fixture(scope="session")
def recordings(tmp_path_factory):
    """A folder of four recordings at 22,050 Hz."""
    folder = tmp_path_factory.mktemp("recordings")
    rng = np.random.default_rng(0)
    for i in range(4):
        time = np.arange(22050) / 22050
        tone = 0.3 * np.sin(2 * np.pi * (150 + 40 * i) * time) + 0.01 * rng.standard_normal(22050)
        (folder / f"speaker{i % 2}").mkdir(exist_ok=True)
        soundfile.write(folder / f"speaker{i % 2}" / f"{i}.wav", tone, 22050)
    return folder
