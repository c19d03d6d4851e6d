"""Trains a generator: `python -m vocoder.train [GROUP=OPTION] [KEY=VALUE] ...`.

`--help` lists the groups; the run's folder gets the config, checkpoints, TensorBoard logs,
losses.csv, samples and generator.keras.
"""

import contextlib
import dataclasses
import os
import sys
import traceback
from pathlib import Path

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from vocoder.composition import OVERRIDES, register_resolvers, with_resumed_overrides
from vocoder.config import RunConfig
from vocoder.errors import BROKEN_PIPE, InputError
from vocoder.overrides import command as command_line
from vocoder.overrides import hydra_errors_as_input_errors, prepared, values_of
from vocoder.paths import asset
from vocoder.startup import check_run_folder, command, import_keras, training_log
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
    import keras

    from vocoder.data.pipeline import AudioPipeline, reading_errors
    from vocoder.evaluation.metric import build_metrics
    from vocoder.training import distribution
    from vocoder.training.build import build_callbacks, build_trainer
    from vocoder.training.checkpoints import Checkpoints, done, to_resume
    from vocoder.training.log import RunLog
    from vocoder.training.run_folder import GENERATOR, locked, offer, set_aside
    from vocoder.training.session import Session
    from vocoder.training.validation import (
        Samples,
        UtteranceMetrics,
        check_measured,
        directions,
    )

    strategy = distribution.build_strategy(config.trainer)
    with (
        distribution.worker(strategy, run) as worker,
        locked(worker.folder),
        reading_errors(),
    ):
        text = yaml.safe_dump(dataclasses.asdict(config), sort_keys=False)
        resume = to_resume(config.trainer.resume, run)
        worker.check_agreement(f"{resume and resume.name}\n{text}")
        if resume and (limit := done(resume, config.trainer)):
            if config.trainer.resume != "auto":
                raise InputError(f"{limit}; a larger number goes on")
            if worker.is_chief:
                with contextlib.suppress(OSError):  # it was killed before it could
                    offer(resume, run)
            print(f"done already; {limit}, and a larger number goes on")
            return
        metrics = build_metrics(config.trainer.validation_metrics, "trainer.validation_metrics")
        keras.utils.set_random_seed(config.seed)
        with strategy.scope():
            trainer = build_trainer(config, new=resume is None)
        measured = directions(trainer, metrics)
        check_measured(config.trainer.best, "trainer.best", measured)
        callbacks = build_callbacks(config, measured)
        pipeline = AudioPipeline(config.data, config.audio, config.seed, worker.quarantine)
        checkpoints = Checkpoints(
            worker.folder,
            trainer,
            config.trainer.keep_checkpoints,
            writes=worker.is_chief,
            measure=config.trainer.best,
            higher_is_better=measured[config.trainer.best],
        )
        if resume:
            checkpoints.restore(resume)
        # A checkpoint may be another folder's; then this one's steps are all to come.
        own = resume is not None and resume.resolve().parents[1] == run.resolve()
        kept_step = trainer.step if own else 0
        if aside := set_aside(worker.folder, kept_step):
            how = command_line(trainer__resume=aside)
            print(f"what was here of later steps is set aside, and can be gone on from: {how}")

        names = [metric.name for metric in trainer.metrics]
        count = config.trainer.validation_utterances if worker.is_chief and metrics else 0
        utterances = pipeline.utterances(count)
        rated = UtteranceMetrics(metrics, utterances, config.audio.sample_rate)
        log = RunLog(worker.folder, names, kept_step, rated.names)
        log.keep("config.yaml", text)
        log.keep(OVERRIDES, yaml.safe_dump(overrides))
        log.text("config", text)
        log.hparams(values_of(overrides))
        parameters = f"{trainer.generator.count_params():,} parameters"
        print(f"{pipeline.reader.description}; {parameters}; run folder {run}")
        heard = pipeline.utterances(config.trainer.samples if worker.is_chief else 0)
        samples = Samples(heard, config.audio, log)
        session = Session(
            config.trainer,
            log,
            checkpoints,
            worker.share(pipeline.validation),
            pipeline.validation_steps,
            rated,
            samples,
            pipeline.files_of,
            interruption,
        )

        def batches(step):
            return worker.share(lambda **share: pipeline.train(step, **share))

        session.fit(trainer, batches, callbacks)

        if session.stopped:
            print(f"stopped; to go on: {command_line(trainer__resume=run)}")
            sys.exit(BROKEN_PIPE if interruption.code == BROKEN_PIPE else 0)
        print(f"\n{log.table()}\n")
        for original, synthesised in samples.paths:
            print(f"original {original}  synthesised {synthesised}")
        print(f"generator: {run / GENERATOR}")


def main(node: DictConfig) -> None:
    """One job of Hydra's: the whole command, or one of a sweep."""
    # As they are: read as values, texts with `${` in them would be resolved once more.
    hydra_config = OmegaConf.to_container(HydraConfig.get(), resolve=False)
    run = Path(hydra_config["runtime"]["output_dir"])
    overrides = hydra_config["overrides"]["task"]
    with command(), Interruption() as interruption:
        if isinstance(job := hydra_config["job"]["num"], int):  # of a sweep
            print(f"job {job}: {' '.join(overrides)}")
        try:
            node, overrides = with_resumed_overrides(node, overrides)
            config = RunConfig.from_omegaconf(node)
            check_run_folder(run)
            with training_log(run) as log:
                import_keras("training", log)
                train(config, run, overrides, interruption)
        except KeyboardInterrupt as interrupted:
            if any(run.glob("checkpoints/step-*")):
                line = f"stopped; to go on: {command_line(trainer__resume=run)}"
            else:
                line = "stopped before anything was saved; the same command begins again"
            print(f"\n{line}", file=sys.stderr)
            sys.exit(getattr(interrupted, "code", 130))
        except (InputError, MemoryError, OSError):
            raise
        except Exception:  # a bug; here, as Hydra would say more, and take it for its own
            traceback.print_exc()
            sys.exit(1)


if __name__ == "__main__":
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions come out to us, not to Hydra's own printing
    with command(), hydra_errors_as_input_errors():
        register_resolvers()
        sys.argv[1:] = prepared(sys.argv[1:])
        hydra.main(config_path=str(asset("configs")), config_name="train", version_base="1.3")(
            main
        )()
