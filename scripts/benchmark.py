"""Measures speed and prints a table: `python scripts/benchmark.py [--rows ROW ...] [--out JSON]`.

Everything is a ratio within one run, of things timed in turns, since absolute times say more of
the machine than of the code.

pipeline    examples a second: 16 segments of 8192 samples and their mels, from WAV files
step        a training step with MultiLoss, against the same losses summed by hand with none of
            them shown, and against Keras metrics that compute each part once more
synthesis   multiples of real time, and the share of the machine's sgemm rate that this is
adversarial a step of 4 x 8192 samples against HiFi-GAN's discriminators, and its parts
memory      peak of a step with and without rematerialization, and its time, with over without
scaling     the gradients of a step, their time on a network, and the step's here (16 x 8192 samples
            if it doesn't say otherwise)
"""

import argparse
import dataclasses
import json
import multiprocessing
import os
import platform
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from vocoder.startup import command, import_keras

if __name__ in ("__main__", "__mp_main__"):  # before anything else imports it
    with command():
        import_keras("the benchmark")

import keras
import numpy as np
import soundfile
import tensorflow as tf
from hydra import compose, initialize_config_dir

from vocoder import registry
from vocoder.composition import register_resolvers
from vocoder.config import RunConfig
from vocoder.data.pipeline import AudioPipeline
from vocoder.errors import InputError
from vocoder.losses.terms import build_multi_loss
from vocoder.paths import asset, replacing, user_path
from vocoder.synthesize import WINDOWS, Vocoder
from vocoder.training.build import build_trainer
from vocoder.training.optimizer import build_optimizer
from vocoder.training.trainer import ReconstructionTrainer

# What the rows measure if no --generators are given; GENERATORS is for synthesis and scaling.
GENERATORS = (
    "hifigan_v1",
    "hifigan_v2",
    "hifigan_v3",
    "hifigan_istft",
    "istftnet_c8c8i",
    "istftnet_c8c1i",
    "vocos",
    "vocos_small",
    "vocos_griffin_lim",
    "bigvgan_base",
)
TRAINED = ("hifigan_istft", "hifigan_v3", "vocos", "vocos_small", "vocos_griffin_lim")
ADVERSARIAL = ("hifigan_v1", "hifigan_v3")
REMATERIALIZED = ("hifigan_v1", "bigvgan_base")
# A step with 16 segments takes minutes and some 14 GB.
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
    """The weighted sum of losses, and besides whatever metrics there are."""

    def __init__(self, parts, metrics):
        super().__init__(name="summed")
        self.parts = parts
        self.metrics = metrics

    def compute(self, y_true, y_pred):
        """The total, and parts that the trainer looks at: none."""
        return self(y_true, y_pred), {}

    def call(self, y_true, y_pred):
        for metric in self.metrics:
            metric.update_state(y_true, y_pred)
        return sum(part.weight * part.loss.call(y_true, y_pred) for part in self.parts)


def training_steps(config: RunConfig, batch) -> dict:
    """The same training step, from the same weights, in three ways to sum the losses up.

    Returns:
        Name -> function, whose result is the step's logs: "multi_loss", "summed_by_hand" with
        nothing shown, and "computed_again" by a Keras metric for each part.
    """
    steps = {}
    for name in ("multi_loss", "summed_by_hand", "computed_again"):
        keras.utils.set_random_seed(0)
        multi = build_multi_loss(config.loss, config.audio.sample_rate, config.data.segment_length)
        trainer = ReconstructionTrainer(built(config))
        loss = multi
        if name == "summed_by_hand":
            loss = SummedByHand(multi.parts, [])
        if name == "computed_again":
            metric = keras.metrics.MeanMetricWrapper
            again = [metric(part.loss.call, name=part.name) for part in multi.parts]
            loss = SummedByHand(multi.parts, again)
        trainer.compile(build_optimizer(config), loss=loss)
        trainer.train_step(batch)
        steps[name] = tf.function(lambda trainer=trainer: trainer.train_step(batch))
    return steps


def step_row(generator: str, seconds: float) -> dict:
    """Times of one training step, in turns, and the median of the ratios."""
    overrides = [f"generator={generator}"]
    if generator in BATCH_SIZE:
        overrides.append(f"data.batch_size={BATCH_SIZE[generator]}")
    config = configured(*overrides)
    size = config.data.batch_size
    steps = training_steps(config, random_batch(config, size))
    for step in steps.values():
        for _ in range(2):
            step()
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
        {"mel": tf.TensorSpec((1, frames, generator.n_mels), tf.float32)}
    )
    options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
    options["output"] = "none"
    counted = tf.compat.v1.profiler.profile(function.graph, options=options).total_float_ops
    return counted / 1e9 / (frames * hop / rate)


def synthesis_row(name: str, seconds: float) -> dict:
    """Speed of the folded generator on windows as `vocoder.synthesize` cuts them."""
    vocoder = Vocoder(built(configured(f"generator={name}")).folded())
    shape = (1, WINDOWS[0], vocoder.audio.n_mels)
    features = {"mel": np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
    vocoder.generate(features)
    rates, times = [sgemm_rate()], []
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds or len(times) < 3:
        start = time.perf_counter()
        vocoder.generate(features)
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


def random_batch(config: RunConfig, size: int):
    """Features and waveforms of noise, `size` segments."""
    rng = np.random.default_rng(0)
    length = config.data.segment_length
    mel = rng.standard_normal((size, length // config.audio.hop_length, config.audio.n_mels))
    wave = 0.1 * rng.standard_normal((size, length))
    return {"mel": tf.constant(mel, tf.float32)}, tf.constant(wave, tf.float32)


def trainer_of(size: int, *overrides):
    """A trainer, and a batch of `size` x 8192 samples for it."""
    config = configured(*overrides)
    return build_trainer(config), random_batch(config, size)


def median_seconds(function, rounds: int, before: int = 2) -> float:
    """Median time of a call, after `before` others."""
    times = []
    for _ in range(rounds + before):
        begin = time.perf_counter()
        tf.nest.map_structure(lambda value: value.numpy(), function())
        times.append(time.perf_counter() - begin)
    return statistics.median(times[before:])


def adversarial_row(generator: str, rounds: int = 3) -> dict:
    """A step of 4 x 8192 samples against HiFi-GAN's discriminators, and what it is made of."""
    recipe = ["discriminator=mpd_msd", "loss=hifigan", f"generator={generator}"]
    trainer, batch = trainer_of(4, *recipe)
    forward = tf.function(lambda: trainer.generator(batch[0], training=True))
    judged = tf.function(lambda: trainer._update_discriminators(batch, trainer._make(batch))[0])
    whole = tf.function(lambda: trainer.train_step(batch))
    times = [median_seconds(function, rounds) for function in (forward, judged, whole)]
    return {
        "step_seconds": times[2],
        "steps_per_second": 1 / times[2],
        "generator_forward_seconds": times[0],
        "discriminator_update_seconds": times[1] - times[0],
        "generator_update_seconds": times[2] - times[1],
        "peak_memory_gib": peak_gib(),
    }


def peak_gib() -> float:
    """Largest memory of this process so far, on Linux.

    `ru_maxrss` begins with that of the process that started this one.
    """
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) / 2**20


def peak_of_step(*recipe) -> float:
    """`peak_gib` of a process in which nothing but a training step has happened."""
    trainer, batch = trainer_of(*recipe)
    tf.function(lambda: trainer.train_step(batch))()
    return peak_gib()


def memory_row(size: int, *overrides, rounds: int = 3) -> dict:
    """Memory of a step of `size` x 8192 samples with rematerialization and without."""
    row, steps = {}, []
    for value in (False, True):
        recipe = (size, *overrides, f"trainer.rematerialization={value}")
        with multiprocessing.get_context("spawn").Pool(1) as process:
            name = "recomputed_gib" if value else "kept_gib"
            row[name] = process.apply(peak_of_step, recipe)
        trainer, batch = trainer_of(*recipe)
        steps.append(tf.function(lambda t=trainer, b=batch: t.train_step(b)))
    ratios = []
    for _ in range(rounds + 1):
        kept, recomputed = (median_seconds(step, 1, before=0) for step in steps)
        ratios.append(recomputed / kept)
    return row | {"time_ratio": statistics.median(ratios[1:])}


def scaling_row(size: int, *recipe) -> dict:
    """What an update takes through the network, at 2 or more hosts, against the step's time here.

    A ring all-reduce sends and receives each gradient about twice, once in either direction. The
    gradients do not depend on the batch; its size is `size` x 8192 samples.
    """
    trainer, batch = trainer_of(size, *recipe)
    networks = [trainer.generator, getattr(trainer, "discriminators", None)]
    count = sum(int(np.prod(v.shape)) for n in networks if n for v in n.trainable_variables)
    row = {"megabytes": 4 * count / 1e6}
    for gigabits in (10, 100):
        row[f"seconds_at_{gigabits}_gigabits"] = 2 * 8 * 4 * count / (gigabits * 1e9)
    step = tf.function(lambda: trainer.train_step(batch))
    return row | {"step_seconds": median_seconds(step, 2), "examples": size}


def measured(rows: Sequence[str], generators: Sequence[str] | None, seconds: float) -> dict:
    """Measures and prints row after row, and returns them all."""
    table = {
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "versions": {"keras": keras.__version__, "tensorflow": tf.__version__},
        "rows": {},
    }
    print(f"{table['machine']}; Keras {keras.__version__}, TensorFlow {tf.__version__}")

    def add(name, row):
        table["rows"][name] = row
        print(f"{name:<28}" + "  ".join(f"{key} {value:.4g}" for key, value in row.items()))
        sys.stdout.flush()

    if "pipeline" in rows:
        add("pipeline", pipeline_row(seconds))
    if "step" in rows:
        for generator in generators or TRAINED:
            add(f"step {generator}", step_row(generator, 4 * seconds))
    if "synthesis" in rows:
        for generator in generators or GENERATORS:
            add(f"synthesis {generator}", synthesis_row(generator, seconds))
    if "adversarial" in rows:
        for generator in generators or ADVERSARIAL:
            add(f"adversarial {generator}", adversarial_row(generator))
    if "memory" in rows:
        for generator in generators or REMATERIALIZED:
            row = memory_row(BATCH_SIZE.get(generator, 16), f"generator={generator}")
            add(f"memory {generator}", row)
    if "scaling" in rows:
        for generator in generators or GENERATORS:
            row = scaling_row(BATCH_SIZE.get(generator, 16), f"generator={generator}")
            add(f"scaling {generator}", row)
        if not generators:
            recipe = ["generator=hifigan_v1", "discriminator=mpd_msd", "loss=hifigan"]
            add("scaling hifigan_v1 mpd_msd", scaling_row(4, *recipe))
    return table


def main(arguments: list[str] | None = None) -> None:
    """The command line; exits with 2 if nothing could begin."""
    with command():
        parser = argparse.ArgumentParser(
            description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        rows = ("pipeline", "step", "synthesis", "adversarial", "memory", "scaling")
        parser.add_argument("--rows", nargs="+", choices=rows, default=rows)
        parser.add_argument(
            "--generators",
            nargs="+",
            metavar="NAME",
            choices=sorted(path.stem for path in (asset("configs") / "generator").glob("*.yaml")),
            help="configs to measure (default: for each row those that tell most)",
        )
        parser.add_argument("--seconds", type=float, default=15.0, help="of each measurement")
        parser.add_argument("--out", default="outputs/benchmark.json")
        options = parser.parse_args(arguments)
        out = user_path(options.out)
        if not 0 < options.seconds < float("inf"):
            raise InputError(f"--seconds: must be above 0, not {options.seconds}")
        if out.is_dir():
            raise InputError(f"--out: {out} is a folder; give a file")
        out.parent.mkdir(parents=True, exist_ok=True)  # tells now if it can't be written to
        table = measured(options.rows, options.generators, options.seconds)
        with replacing(out) as file:
            file.write(json.dumps(table, indent=2) + "\n")
        print(f"written to {out}")


if __name__ == "__main__":
    main()
