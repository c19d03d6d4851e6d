"""Layers, generators, losses and audio run on Keras' other backends, with the same numbers."""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest

PROGRAM = """
import sys
import numpy as np
import keras
from vocoder.audio import MelSpectrogram
from vocoder.generators import BigVGAN, HiFiGAN, Vocos
from vocoder.losses import *

rng = np.random.default_rng(0)
true, pred = (0.1 * rng.standard_normal((2, 2, 4096))).astype("float32")
mel = rng.standard_normal((1, 12, 80)).astype("float32")
out = {"mel": MelSpectrogram()(true)}
losses = [WaveformL1Loss(), MelLoss(), MultiResolutionMelLoss(), STFTLoss(),
          MultiResolutionSTFTLoss(), STFTLoss(512, 128, 512, convergence="batch")]
out["losses"] = [float(loss(true, pred)) for loss in losses]
multi = MultiLoss([LossCfg(loss, 1 + i, str(i)) for i, loss in enumerate(losses)])
out["multi"] = [float(multi(true, pred))] + [float(m.result()) for m in multi.metrics]
tiny = {"upsample_rates": (8, 4), "upsample_kernel_sizes": (16, 8), "upsample_initial_channel": 16}
few = {"resblock_kernel_sizes": (3,), "resblock_dilation_sizes": ((1, 3),)}
vocos = {"dim": 16, "intermediate_dim": 24, "num_layers": 2}
vocos |= {"istft_n_fft": 32, "istft_hop_length": 8}
for name, generator in {
    "plain": HiFiGAN(**tiny),
    "istft": HiFiGAN(**tiny, istft_n_fft=16, istft_hop_length=4, istft_phase="sine"),
    "bigvgan": BigVGAN(**tiny, **few),
    "vocos_same": Vocos(**vocos),
    "vocos_center": Vocos(**vocos, istft_padding="center"),
}.items():
    generator.build((None, None, 80))
    for i, variable in enumerate(generator.trainable_variables):
        values = np.random.default_rng(i).standard_normal(variable.shape)
        variable.assign((0.1 * values + (variable.name == "g")).astype("float32"))
    out[name] = generator(mel)
    out[name + "_folded"] = generator.folded()(mel)
np.savez(sys.argv[1], **{k: np.array(keras.ops.convert_to_numpy(v)) for k, v in out.items()})
"""


def results(backend, path):
    environment = os.environ | {"KERAS_BACKEND": backend}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return dict(np.load(path))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_equals_tensorflow(backend, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    expected = results("tensorflow", tmp_path / "tensorflow.npz")
    found = results(backend, tmp_path / "other.npz")
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-4, err_msg=name)
