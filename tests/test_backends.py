"""Networks, losses and audio run on Keras' other backends, with the same numbers."""

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
from vocoder.audio.settings import AudioConfig
from vocoder.discriminators import *
from vocoder.generators import BigVGAN, HiFiGAN, Vocos
from vocoder.losses import *
from vocoder.losses.terms import build_discriminator_loss, build_multi_loss

rng = np.random.default_rng(0)
true, pred = (0.1 * rng.standard_normal((2, 2, 4096))).astype("float32")
mel = rng.standard_normal((1, 12, 80)).astype("float32")
out = {"mel": MelSpectrogram()(true)}
losses = [WaveformL1Loss(), MelLoss(), MultiResolutionMelLoss(), STFTLoss(),
          MultiResolutionSTFTLoss(), STFTLoss(512, 128, 512, convergence="batch")]
out["losses"] = [float(loss(true, pred)) for loss in losses]
out["silent"] = [float(loss(0 * true, pred)) for loss in losses]
out["short"] = [float(loss(true[:, :3], pred[:, :3])) for loss in losses]
multi = MultiLoss([LossCfg(loss, 1 + i, str(i)) for i, loss in enumerate(losses)])
out["multi"] = [float(multi(true, pred))] + [float(m.result()) for m in multi.metrics]


def scramble(model, scale):
    for i, variable in enumerate(model.trainable_variables):
        values = scale * np.random.default_rng(i).standard_normal(variable.shape)
        variable.assign((values + (variable.name == "g")).astype("float32"))


discriminators = CombinedDiscriminator([
    MultiPeriodDiscriminator((2, 3), (4, 8), (5, 5), (3, 1)),
    MultiScaleDiscriminator(("spectral", "weight"), (8, 8), (15, 41), (1, 4), (1, 4)),
    MultiResolutionDiscriminator(channels=(4,) * 5),
    MultiResolutionDiscriminator((256,), (64,), (256,), spectrum="complex", bands=(0, 0.3, 1),
                                 peak=0.8, channels=(4,) * 5, name="bands"),
])
discriminators.build()
scramble(discriminators, 0.3)
for layer in discriminators._flatten_layers():
    if hasattr(layer, "u"):
        layer.u.assign(np.full(layer.u.shape, layer.u.shape[0] ** -0.5))
discriminators(true, training=True)
real, fake = discriminators(true), discriminators(pred)
for name, maps in fake.items():
    out[name + "_score"] = maps[-1]
terms = {"l1": {"loss": "mae"}, "relative": {"loss": "feature_matching", "relative": True},
         "features": {"loss": "feature_matching"}, "adversarial": {"loss": "hinge"}}
multi = build_multi_loss({"terms": terms}, 22050, 4096, discriminators.sub_discriminators)
other = build_discriminator_loss(multi)
both = multi.compute({"waveform": true, "features": real}, {"waveform": pred, "features": fake})
both = both, other.compute(real, fake)
out["gan"] = [float(total) for total, _ in both]
out["gan_parts"] = [float(value) for _, parts in both for value in parts.values()]
tiny = {"upsample_rates": (8, 4), "upsample_kernel_sizes": (16, 8), "upsample_initial_channel": 16}
few = {"resblock_kernel_sizes": (3,), "resblock_dilation_sizes": ((1, 3),)}
vocos = {"dim": 16, "intermediate_dim": 24, "num_layers": 2}
head = {"name": "istft", "n_fft": 32, "hop_length": 8}
for name, generator in {
    "plain": HiFiGAN(**tiny),
    "istft": HiFiGAN(**tiny, head={"name": "istft", "n_fft": 16, "hop_length": 4, "phase": "sine"}),
    "bigvgan": BigVGAN(**tiny, **few),
    "vocos_same": Vocos(**vocos, head=head),
    "vocos_center": Vocos(**vocos, head=head | {"padding": "center"}),
    "vocos_wavenext": Vocos(**vocos, head=head | {"name": "wavenext"}),
    "uneven": HiFiGAN(**tiny | {"upsample_kernel_sizes": (17, 7)}, uneven_stages=True),
    # The generator of `make train`, but narrow and with fewer iterations.
    "griffin_lim": Vocos(dim=16, intermediate_dim=24, num_layers=2, audio=vars(AudioConfig()),
                         prior="mel", head={"name": "griffin_lim", "iterations": 3}),
}.items():
    generator.build((None, None, 80))
    scramble(generator, 0.1)
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
