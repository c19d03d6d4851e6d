"""Trains a generator: `python -m vocoder.train [GROUP=OPTION] [KEY=VALUE] ...`.

`--help` lists the groups; the run's folder gets the config, checkpoints, TensorBoard logs,
losses.csv, samples and generator.keras.
"""

import dataclasses
import logging
import os
import sys
from pathlib import Path

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from vocoder.config import (
    OVERRIDES,
    RunConfig,
    asset,
    hydra_errors_as_input_errors,
    register_resolvers,
    with_resumed_overrides,
)
from vocoder.errors import InputError, exit_on_input_error


def train(config: RunConfig, run: Path, overrides: list[str]) -> None:
    """Trains into the folder `run`, from a checkpoint on if `config` resumes one."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # less of CUDA on machines without it
    logging.getLogger("absl").setLevel(logging.WARNING)
    import keras

    from vocoder import registry
    from vocoder.data.pipeline import AudioPipeline, reading_errors
    from vocoder.losses.build import build_multi_loss
    from vocoder.training.checkpoints import GENERATOR, Checkpoints, to_resume
    from vocoder.training.log import RunLog
    from vocoder.training.loop import TrainingLoop
    from vocoder.training.optimizer import build_optimizer
    from vocoder.training.trainer import ReconstructionTrainer

    resume = to_resume(config.trainer.resume, run)
    keras.utils.set_random_seed(config.seed)
    loss = build_multi_loss(config.loss, config.audio.sample_rate, config.data.segment_length)
    optimizer = build_optimizer(config.trainer)
    provided = {"audio": dataclasses.asdict(config.audio), "dtype": config.trainer.precision}
    generator = registry.build(
        registry.GENERATORS, config.generator, "generator", provided=provided
    )
    pipeline = AudioPipeline(config.data, config.audio, config.seed, run / "quarantine.csv")

    trainer = ReconstructionTrainer(generator)
    trainer.compile(
        optimizer, loss=loss, metrics=loss.metrics, jit_compile=config.trainer.jit_compile
    )
    checkpoints = Checkpoints(run, trainer, config.trainer.keep_checkpoints)
    start_step = checkpoints.restore(resume) if resume else 0
    steps = config.trainer.max_steps - start_step
    if steps < 1:
        raise InputError(
            f"trainer.max_steps: {config.trainer.max_steps} were done when {resume} was saved; "
            "a larger number goes on"
        )

    parts = [part.name for part in loss.parts]
    log = RunLog(run, ["loss", *parts], start_step)
    text = yaml.safe_dump(dataclasses.asdict(config), sort_keys=False)
    (run / "config.yaml").write_text(text)
    (run / OVERRIDES).write_text(yaml.safe_dump(overrides))
    log.text("config", text)
    print(f"{pipeline.description}; {generator.count_params():,} parameters; run folder {run}")
    utterances = pipeline.utterances(config.trainer.samples)
    data = (pipeline.validation(), utterances, pipeline.files_of)
    loop = TrainingLoop(config.trainer, config.audio, log, checkpoints, *data)
    batches = pipeline.train(start_step)
    with reading_errors():
        trainer.fit(batches, steps_per_epoch=steps, shuffle=False, verbose=0, callbacks=[loop])

    if loop.stopped:
        print(f"stopped; to go on: python -m vocoder.train trainer.resume={run}")
        sys.exit(0)
    print(f"\n{log.table()}\n")
    for original, synthesised in loop.samples:
        print(f"original {original}  synthesised {synthesised}")
    print(f"generator: {run / GENERATOR}")


def main(node: DictConfig) -> None:
    """One job of Hydra's: the whole command, or one of a sweep."""
    run = Path(HydraConfig.get().runtime.output_dir)
    try:
        with exit_on_input_error():
            node, overrides = with_resumed_overrides(node, list(HydraConfig.get().overrides.task))
            train(RunConfig.from_omegaconf(node), run, overrides)
    except KeyboardInterrupt:
        print(f"\nstopped; to go on: python -m vocoder.train trainer.resume={run}", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    register_resolvers()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions come out to us, not to Hydra's own printing
    with exit_on_input_error(), hydra_errors_as_input_errors():
        hydra.main(config_path=str(asset("configs")), config_name="train", version_base="1.3")(
            main
        )()
