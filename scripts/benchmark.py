"""Measures speed and prints a table: `python scripts/benchmark.py [--rows ROW ...] [--out JSON]`.

Everything is a ratio within one run, of things timed in turns, since absolute times say more of
the machine than of the code.

pipeline    examples a second: 16 segments of 8192 samples and their mels, from WAV files
step        a training step with MultiLoss, against the same losses summed by hand with none of
            them shown, and against Keras metrics that compute each part once more
synthesis   multiples of real time, and the share of the machine's sgemm rate that this is
"""

import argparse
import dataclasses
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from types import MappingProxyType

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import soundfile
import tensorflow as tf
from hydra import compose, initialize_config_dir

from vocoder import registry
from vocoder.config import RunConfig, asset, register_resolvers
from vocoder.data.pipeline import AudioPipeline
from vocoder.losses.build import build_multi_loss
from vocoder.synthesize import WINDOWS, Vocoder
from vocoder.training.optimizer import build_optimizer
from vocoder.training.trainer import ReconstructionTrainer

GENERATORS = (
    "hifigan_v1",
    "hifigan_v2",
    "hifigan_v3",
    "hifigan_istft",
    "istftnet_c8c8i",
    "istftnet_c8c1i",
    "vocos",
    "vocos_small",
    "bigvgan_base",
)
TRAINED = ("hifigan_istft", "hifigan_v3", "vocos", "vocos_small")
# Not among them, since it takes minutes, and with 16 segments some 14 GB.
BATCH_SIZE = {"bigvgan_base": 2}


def configured(*overrides) -> RunConfig:
    register_resolvers()
    with initialize_config_dir(str(asset("configs")), version_base="1.3"):
        return RunConfig.from_omegaconf(compose("train", list(overrides)))


def built(config: RunConfig):
    provided = {"audio": dataclasses.asdict(config.audio)}
    return registry.build(registry.GENERATORS, config.generator, "generator", provided=provided)


def pipeline_row(seconds: float) -> dict:
    """Examples a second."""
    with tempfile.TemporaryDirectory() as folder:
        for path in (asset("data/demo")).rglob("*.flac"):
            samples, rate = soundfile.read(path, dtype="int16")
            soundfile.write(Path(folder) / f"{path.stem}.wav", samples, rate)
        config = configured("data=folder", f"data.root={folder}", f"data.cache={folder}")
        batches = iter(AudioPipeline(config.data, config.audio, 0).train())
        for _ in range(30):
            next(batches)
        begin, count = time.perf_counter(), 0
        while time.perf_counter() - begin < seconds:
            next(batches)
            count += config.data.batch_size
        spent = time.perf_counter() - begin
        del batches  # which reads ahead, before the folder goes
        time.sleep(0.5)
    return {"examples_per_second": count / spent}


@keras.saving.register_keras_serializable("benchmark")
class SummedByHand(keras.losses.Loss):
    """The weighted sum of losses, and nothing else."""

    values = MappingProxyType({})  # parts that the trainer looks at: none

    def __init__(self, parts):
        super().__init__(name="summed")
        self.parts = parts

    def call(self, y_true, y_pred):
        return sum(part.weight * part.loss.call(y_true, y_pred) for part in self.parts)


def step_row(generator: str, seconds: float) -> dict:
    """Times of one training step, in turns, and the median of the ratios."""
    overrides = [f"generator={generator}"]
    if generator in BATCH_SIZE:
        overrides.append(f"data.batch_size={BATCH_SIZE[generator]}")
    config = configured(*overrides)
    rng = np.random.default_rng(0)
    size, length = config.data.batch_size, config.data.segment_length
    frames = length // config.audio.hop_length
    batch = (
        tf.constant(rng.standard_normal((size, frames, config.audio.n_mels)), tf.float32),
        tf.constant(0.1 * rng.standard_normal((size, length)), tf.float32),
    )
    steps = {}
    for name in ("multi_loss", "summed_by_hand", "computed_again"):
        keras.utils.set_random_seed(0)
        multi = build_multi_loss(config.loss, config.audio.sample_rate, length)
        trainer = ReconstructionTrainer(built(config))
        loss, metrics = multi, multi.metrics
        if name != "multi_loss":
            loss, metrics = SummedByHand(multi.parts), []
        if name == "computed_again":
            metrics = [
                keras.metrics.MeanMetricWrapper(part.loss.call, name=part.name)
                for part in multi.parts
            ]
        trainer.compile(build_optimizer(config.trainer), loss=loss, metrics=metrics)
        trainer.optimizer.build(trainer.trainable_variables)
        trainer.compute_loss(batch[0], batch[1], trainer(batch[0]))  # builds losses and metrics
        trainer.train_step(batch)
        steps[name] = tf.function(lambda trainer=trainer: trainer.train_step(batch))
        for _ in range(2):
            steps[name]()
    times = {name: [] for name in steps}
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds or len(times["multi_loss"]) < 8:
        # Each in turn, and the turn itself turned round, so that no one is always the first.
        order = list(steps) if len(times["multi_loss"]) % 2 else list(steps)[::-1]
        for name in order:
            start = time.perf_counter()
            steps[name]()["loss"].numpy()
            times[name].append(time.perf_counter() - start)
    row = {f"{name}_seconds": statistics.median(values) for name, values in times.items()}
    for name in ("summed_by_hand", "computed_again"):
        pairs = zip(times["multi_loss"], times[name], strict=True)
        row[f"multi_loss_over_{name}"] = statistics.median(a / b for a, b in pairs)
    return row | {"examples": size, "rounds": len(times["multi_loss"])}


def sgemm_rate() -> float:
    """GFLOP/s of a product of two 2048 x 2048 matrices, best of 15."""
    a = tf.random.normal((2048, 2048))
    product = tf.function(lambda: tf.reduce_sum(tf.matmul(a, a)))
    times = []
    for _ in range(16):
        begin = time.perf_counter()
        product().numpy()
        times.append(time.perf_counter() - begin)
    return 2 * 2048**3 / min(times[1:]) / 1e9


def flops_per_second_of_audio(generator) -> float:
    """GFLOP that the convolutions and products of a second of audio take, read off the graph."""
    rate, hop = generator.audio.sample_rate, generator.audio.hop_length
    frames = 64
    function = tf.function(generator).get_concrete_function(
        tf.TensorSpec((1, frames, generator.n_mels), tf.float32)
    )
    options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
    options["output"] = "none"
    counted = tf.compat.v1.profiler.profile(function.graph, options=options).total_float_ops
    return counted / 1e9 / (frames * hop / rate)


def synthesis_row(name: str, seconds: float) -> dict:
    """Speed of the folded generator on windows as `vocoder.synthesize` cuts them."""
    vocoder = Vocoder(built(configured(f"generator={name}")).folded())
    shape = (1, WINDOWS[0], vocoder.audio.n_mels)
    mel = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    vocoder.generate(mel)
    rates, times = [sgemm_rate()], []
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds or len(times) < 3:
        start = time.perf_counter()
        vocoder.generate(mel)
        times.append(time.perf_counter() - start)
    rates.append(sgemm_rate())
    audio = WINDOWS[0] * vocoder.audio.hop_length / vocoder.audio.sample_rate
    speed = audio / statistics.median(times)
    work = flops_per_second_of_audio(vocoder.generator)
    return {
        "times_real_time": speed,
        "gflop_per_second_of_audio": work,
        "sgemm_gflop_per_second": max(rates),
        "share_of_sgemm": speed * work / max(rates),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    rows = ("pipeline", "step", "synthesis")
    parser.add_argument("--rows", nargs="+", choices=rows, default=rows)
    parser.add_argument(
        "--generators",
        nargs="+",
        metavar="NAME",
        choices=sorted(path.stem for path in (asset("configs") / "generator").glob("*.yaml")),
        help="configs to measure (default: {} for synthesis, {} for step)".format(
            *(", ".join(names) for names in (GENERATORS, TRAINED))
        ),
    )
    parser.add_argument("--seconds", type=float, default=15.0, help="of each measurement")
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmark.json"))
    options = parser.parse_args()
    if not options.seconds > 0:
        print(f"error: --seconds: must be above 0, not {options.seconds}", file=sys.stderr)
        sys.exit(2)

    table = {
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "versions": {"keras": keras.__version__, "tensorflow": tf.__version__},
        "rows": {},
    }
    print(f"{table['machine']}; Keras {keras.__version__}, TensorFlow {tf.__version__}")

    def add(name, row):
        table["rows"][name] = row
        print(f"{name:<26}" + "  ".join(f"{key} {value:.4g}" for key, value in row.items()))
        sys.stdout.flush()

    if "pipeline" in options.rows:
        add("pipeline", pipeline_row(options.seconds))
    if "step" in options.rows:
        for generator in options.generators or TRAINED:
            add(f"step {generator}", step_row(generator, 4 * options.seconds))
    if "synthesis" in options.rows:
        for generator in options.generators or GENERATORS:
            add(f"synthesis {generator}", synthesis_row(generator, options.seconds))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(table, indent=2) + "\n")
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
