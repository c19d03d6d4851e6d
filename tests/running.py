"""Runs of the commands in processes of their own, as a user runs them."""

import csv
import subprocess
import sys

import numpy as np
from hydra import compose, initialize_config_dir
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vocoder.composition import register_resolvers
from vocoder.config import RunConfig
from vocoder.paths import asset

# Small enough for a test: short segments, narrow networks.
SHORT = [
    "trainer=smoke",
    "data.batch_size=2",
    "data.segment_length=4096",
    "data.validation_segments=3",
    "trainer.samples=0",
]
FEW_BLOCKS = [
    "generator.resblock_kernel_sizes=[3,5]",
    "generator.resblock_dilation_sizes=[[1],[2]]",
]
TINY_GENERATOR = {  # by the name in the registry
    "bigvgan": [
        "generator.upsample_initial_channel=16",
        "generator.upsample_rates=[16,16]",
        "generator.upsample_kernel_sizes=[32,32]",
        *FEW_BLOCKS,
    ],
    "hifigan": ["generator.upsample_initial_channel=16", *FEW_BLOCKS],
    "vocos": ["generator.dim=16", "generator.intermediate_dim=32", "generator.num_layers=2"],
}
FEW_LOSSES = [
    "loss.terms.mel.n_fft=[512]",
    "loss.terms.mel.n_mels=[40]",
    "loss.terms.stft.n_fft=[512]",
    "loss.terms.stft.hop_length=[128]",
    "loss.terms.stft.win_length=[512]",
]
TINY = [*SHORT, *FEW_LOSSES, *TINY_GENERATOR["hifigan"]]


def configured(*overrides):
    """The config that these overrides of `vocoder.train` make, without a run."""
    register_resolvers()
    with initialize_config_dir(str(asset("configs")), version_base="1.3"):
        return RunConfig.from_omegaconf(compose("train", list(overrides)))


def run(*arguments, module="vocoder.train", cwd):
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
    )


def rows(run_folder):
    """The rows of a run's losses.csv."""
    with (run_folder / "losses.csv").open() as file:
        return list(csv.DictReader(file))


def scalars(run_folder, split):
    """What TensorBoard shows of a run: its events, and {tag: {step: value}}."""
    events = EventAccumulator(str(run_folder / "tensorboard" / split)).Reload()
    return events, {
        tag: {event.step: tensor_value(event) for event in events.Tensors(tag)}
        for tag in events.Tags()["tensors"]
    }


def tensor_value(event):
    values = event.tensor_proto.float_val
    if values:
        return values[0]
    content = np.frombuffer(event.tensor_proto.tensor_content, np.float32)
    return content[0] if content.size else None
