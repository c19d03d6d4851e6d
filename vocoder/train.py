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
from omegaconf import DictConfig, OmegaConf

from vocoder.config import (
    OVERRIDES,
    RunConfig,
    asset,
    register_resolvers,
    with_resumed_overrides,
)
from vocoder.errors import BROKEN_PIPE, InputError, exit_on_input_error
from vocoder.overrides import command, hydra_errors_as_input_errors
from vocoder.training.interruption import Interruption


def train(
    config: RunConfig,
    run: Path,
    overrides: list[str],
    interruption: Interruption | None = None,
) -> None:
    """Trains into the folder `run`, from a checkpoint on if `config` resumes one.

    Args:
        interruption: What may end it from outside; by default nothing does.
    """
    interruption = interruption or Interruption()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # less of CUDA on machines without it
    for name in ("absl", "tensorflow"):
        logging.getLogger(name).setLevel(logging.ERROR)  # what matters to a user, we say
    import keras

    from vocoder.data.pipeline import AudioPipeline, reading_errors
    from vocoder.evaluation.metric import build_metrics
    from vocoder.training import distribution
    from vocoder.training.build import build_trainer
    from vocoder.training.checkpoints import GENERATOR, Checkpoints, to_resume
    from vocoder.training.log import RunLog
    from vocoder.training.loop import TrainingLoop
    from vocoder.training.validation import Ratings, higher_is_better

    strategy = distribution.build_strategy(config.trainer)
    with distribution.worker(strategy, run) as worker, reading_errors():
        metrics = build_metrics(config.trainer.validation_metrics, "trainer.validation_metrics")
        keras.utils.set_random_seed(config.seed)
        with strategy.scope():
            trainer = build_trainer(config)
        best = config.trainer.best, higher_is_better(config.trainer.best, trainer, metrics)
        pipeline = AudioPipeline(config.data, config.audio, config.seed, worker.quarantine)
        checkpoints = Checkpoints(
            worker.folder, trainer, config.trainer.keep_checkpoints, worker.is_chief, *best
        )
        resume = to_resume(config.trainer.resume, run)
        start_step = checkpoints.restore(resume) if resume else 0
        text = yaml.safe_dump(dataclasses.asdict(config), sort_keys=False)
        worker.check_agreement(f"step {start_step}\n{text}")
        steps = config.trainer.max_steps - start_step
        if steps < 1:
            raise InputError(
                f"trainer.max_steps: {config.trainer.max_steps} were done when {resume} was saved; "
                "a larger number goes on"
            )
        minutes = config.trainer.max_minutes
        if minutes is not None and trainer.seconds >= 60 * minutes:
            raise InputError(
                f"trainer.max_minutes: {minutes:g} were over when {resume} was saved; a larger "
                "number goes on"
            )

        names = [metric.name for metric in trainer.metrics]
        count = config.trainer.validation_utterances if worker.is_chief and metrics else 0
        ratings = Ratings(metrics, pipeline.utterances(count), config.audio.sample_rate)
        log = RunLog(worker.folder, names, start_step, ratings.names)
        (worker.folder / "config.yaml").write_text(text)
        (worker.folder / OVERRIDES).write_text(yaml.safe_dump(overrides))
        log.text("config", text)
        parameters = f"{trainer.generator.count_params():,} parameters"
        print(f"{pipeline.description}; {parameters}; run folder {run}")
        batches = worker.share(lambda **share: pipeline.train(start_step, **share))
        utterances = pipeline.utterances(config.trainer.samples if worker.is_chief else 0)
        data = worker.share(pipeline.validation), utterances, pipeline.files_of, ratings
        data += interruption, pipeline.validation_steps
        loop = TrainingLoop(config.trainer, config.audio, log, checkpoints, *data)
        trainer.fit(batches, steps_per_epoch=steps, shuffle=False, verbose=0, callbacks=[loop])

        if loop.stopped:
            print(f"stopped; to go on: {command(trainer__resume=run)}")
            sys.exit(BROKEN_PIPE if interruption.code == BROKEN_PIPE else 0)
        print(f"\n{log.table()}\n")
        for original, synthesised in loop.samples:
            print(f"original {original}  synthesised {synthesised}")
        print(f"generator: {run / GENERATOR}")


def main(node: DictConfig) -> None:
    """One job of Hydra's: the whole command, or one of a sweep."""
    # As they are: read as values, texts with `${` in them would be resolved once more.
    hydra_config = OmegaConf.to_container(HydraConfig.get(), resolve=False)
    run = Path(hydra_config["runtime"]["output_dir"])
    try:
        with exit_on_input_error(), Interruption() as interruption:
            overrides = hydra_config["overrides"]["task"]
            node, overrides = with_resumed_overrides(node, overrides)
            train(RunConfig.from_omegaconf(node), run, overrides, interruption)
    except KeyboardInterrupt as interrupted:
        if any(run.glob("checkpoints/step-*")):
            line = f"stopped; to go on: {command(trainer__resume=run)}"
        else:
            line = "stopped before anything was saved; the same command begins again"
        print(f"\n{line}", file=sys.stderr)
        sys.exit(getattr(interrupted, "code", 130))


if __name__ == "__main__":
    register_resolvers()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions come out to us, not to Hydra's own printing
    with exit_on_input_error(), hydra_errors_as_input_errors():
        hydra.main(config_path=str(asset("configs")), config_name="train", version_base="1.3")(
            main
        )()
