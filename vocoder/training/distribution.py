"""Several devices, several machines: which strategy there is, who reads what, and who writes.

How a step is split so that it is right under a strategy is in `trainer.Trainer`.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import tensorflow as tf

from vocoder.config import TrainerConfig
from vocoder.errors import InputError
from vocoder.overrides import for_shell, written


def build_strategy(trainer: TrainerConfig) -> tf.distribute.Strategy:
    """The strategy that `trainer.strategy` names.

    To be called before anything else of TensorFlow: the workers of a cluster meet here, and with
    `trainer.deterministic` operations become so for the rest of the process. The jobs of a sweep
    share a strategy of several devices: the messages of two would mix, and workers meet but once.

    Args:
        trainer: Its `strategy` is "none": one device. "mirrored": all GPUs of this machine, or all
            its logical CPUs if it has none. "multi_worker": the machines of `TF_CONFIG` or of a
            Slurm job step, with all GPUs of each. "auto": the largest of these that there is.

    Raises:
        InputError: There is no cluster, or XLA is to compile for several devices.
    """
    if trainer.deterministic:
        tf.config.experimental.enable_op_determinism()
    name = trainer.strategy
    if name == "auto":
        several = len(tf.config.list_physical_devices("GPU")) > 1
        name = "multi_worker" if _in_cluster() else "mirrored" if several else "none"
    if name == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        strategy = _mirrored(tuple(device.name for device in devices))
    elif name == "multi_worker":
        strategy = _multi_worker()
    else:
        strategy = tf.distribute.get_strategy()
    if trainer.jit_compile and strategy.num_replicas_in_sync > 1:
        raise InputError("trainer.jit_compile: works on one device only; use false with several")
    return strategy


@functools.cache
def _mirrored(devices):
    return tf.distribute.MirroredStrategy(devices)


@functools.cache
def _multi_worker():
    return tf.distribute.MultiWorkerMirroredStrategy(_cluster())


def _in_cluster() -> bool:
    return bool(_tf_config().get("cluster")) or int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1


def _tf_config() -> dict:
    try:
        config = json.loads(os.environ.get("TF_CONFIG") or "{}")
    except ValueError as error:
        raise InputError(f"TF_CONFIG: can't be read as JSON ({error})") from error
    if not isinstance(config, dict):
        raise InputError('TF_CONFIG: must be {"cluster": {"worker": [...]}, "task": {...}}')
    return config


def _cluster() -> tf.distribute.cluster_resolver.ClusterResolver:
    config = _tf_config()
    if config.get("cluster"):
        workers, task = config["cluster"].get("worker", []), config.get("task", {})
        if set(config["cluster"]) != {"worker"} or task.get("type") != "worker":
            raise InputError('TF_CONFIG: cluster and task must be of type "worker" and no other')
        if task.get("index") not in range(len(workers)):
            raise InputError(
                f"TF_CONFIG: task.index {task.get('index')} is none of the {len(workers)} workers"
            )
        return tf.distribute.cluster_resolver.TFConfigClusterResolver()
    if "SLURM_STEP_NODELIST" not in os.environ:
        raise InputError(
            "trainer.strategy: multi_worker needs a cluster: set TF_CONFIG, or start it with srun"
        )
    try:
        tasks = int(os.environ["SLURM_STEP_NUM_TASKS"])
        # Slurm has given the GPUs out. The resolver lists no more tasks of a host than it thinks
        # that there are GPUs for, so it is told of enough.
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
            gpus_per_node=tasks, gpus_per_task=1, auto_set_gpu=False
        )
        resolver.cluster_spec()  # which also finds out which task this is
    except (KeyError, RuntimeError, ValueError) as error:
        raise InputError(f"trainer.strategy: no cluster of Slurm's variables ({error})") from error
    return resolver


def several_workers(strategy: tf.distribute.Strategy) -> bool:
    """Whether there are other processes beside this one."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def of_chief(strategy: tf.distribute.Strategy, values: dict[str, float]) -> dict[str, float]:
    """The chief's values, in every worker; all have to call it, with values of the same names."""
    if not several_workers(strategy) or not values:
        return values
    mine = strategy.run(lambda: tf.constant([[*values.values()]], tf.float64))
    return dict(zip(values, strategy.gather(mine, axis=0).numpy()[0].tolist(), strict=True))


@dataclasses.dataclass(frozen=True)
class Worker:
    """This process among those of a run.

    Attributes:
        strategy: Of `build_strategy`.
        is_chief: Whether it is the one that writes.
        folder: What it may write to: the run's folder, or a passing one if it isn't the chief.
        quarantine: Where it lists bad files. Each worker sees files that the others don't, so each
            has a list in the run's folder.
    """

    strategy: tf.distribute.Strategy
    is_chief: bool
    folder: Path
    quarantine: Path

    def share(
        self, batches: Callable[..., tf.data.Dataset]
    ) -> tf.data.Dataset | tf.distribute.DistributedDataset:
        """The batches for `fit` and `evaluate`, each part of them read where its replica is.

        Args:
            batches: Called with `shares` and `of`, gives these of the `of` parts of every batch,
                one after the other.
        """
        of = self.strategy.num_replicas_in_sync
        if of == 1:
            return batches(shares=(0,), of=1)

        def of_worker(context):
            local = of // context.num_input_pipelines
            first = context.input_pipeline_id * local
            return batches(shares=range(first, first + local), of=of)

        return self.strategy.distribute_datasets_from_function(of_worker)

    def check_agreement(self, what: str) -> None:
        """Checks that all workers have the same config and the same checkpoint.

        Args:
            what: Any text; it has to be the same everywhere.

        Raises:
            InputError: It is not.
        """
        if not several_workers(self.strategy):
            return
        digest = int.from_bytes(hashlib.sha256(what.encode()).digest()[:7], "big")
        mine = self.strategy.run(lambda: tf.constant([digest], tf.int64))
        if len(set(self.strategy.gather(mine, axis=0).numpy())) > 1:
            raise InputError(
                "hydra.run.dir: the workers differ in their config or in the checkpoint to go on "
                "from; give all one command, with hydra.run.dir=FOLDER on a disk that they share"
            )


@contextlib.contextmanager
def worker(strategy: tf.distribute.Strategy, run: Path):
    """This process among those of the run in the folder `run`.

    All but the chief are silent but for warnings and errors. A worker that is lost ends the others
    with a line and code 3: TensorFlow's coordination service notices within half a minute, and
    fails the step that waits for it.
    """
    resolver = strategy.cluster_resolver
    task = resolver.task_id if several_workers(strategy) else 0
    try:
        if task == 0:
            yield Worker(strategy, True, run, run / "quarantine.csv")
            return
        with (
            tempfile.TemporaryDirectory() as folder,
            open(os.devnull, "w") as nowhere,
            contextlib.redirect_stdout(nowhere),
        ):
            quarantine = run / f"quarantine-worker{task}.csv"
            yield Worker(strategy, False, Path(folder), quarantine)
    except tf.errors.OpError as error:
        sign = LOST.search(error.message)
        if not several_workers(strategy) or not sign:
            raise
        print(
            f"error: another worker is gone ({type(error).__name__}: {sign[0].strip()[:200]}); "
            f"start all of them again with trainer.resume=auto "
            f"{for_shell(written('hydra.run.dir', run))}, and they go on from the last checkpoint",
            file=sys.stderr,
            flush=True,
        )
        os._exit(3)  # the usual way out would wait for the lost worker


# The line by which the error of a step tells that another worker is lost, whatever its type: words
# of TensorFlow's coordination service, of gRPC and of NCCL.
LOST = re.compile(
    r".*(heartbeat|unhealthy|Error reported from /job|coordination service|from remote target"
    r"|connection re(set|fused)|socket closed|failed to connect to all|remote process exited).*",
    re.IGNORECASE,
)
