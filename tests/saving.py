"""`python saving.py RUN` forks a process for each line it reads, to save checkpoints until killed.

TensorFlow takes seconds to import and a fork no time, so this process only imports. It must not run
an operation, and BLAS must not start its threads (OPENBLAS_NUM_THREADS=1): a fork has no threads.

A saving process prints "restored STEP PID", then "saved STEP" time and again; once it has ended,
this one prints "gone".
"""

import os
import sys
from pathlib import Path

import numpy as np
from running import SHORT, TINY_GENERATOR, configured

import vocoder.generators
import vocoder.losses  # noqa: F401  both before a fork rather than after each
from vocoder.training.build import build_trainer
from vocoder.training.checkpoints import Checkpoints, to_resume


def save(config, run):
    """Saves step after step; every weight is the number of its step."""
    trainer = build_trainer(config)
    weights = trainer.generator.trainable_variables
    checkpoints = Checkpoints(run, trainer, keep=2)
    newest = to_resume("auto", run)
    if newest:
        checkpoints.restore(newest)
    step = trainer.step
    assert not newest or all((weight.numpy() == step).all() for weight in weights)
    print("restored", step, os.getpid(), flush=True)
    while True:
        step += 1
        for weight in weights:
            weight.assign(np.full(weight.shape, step))
        checkpoints.save(step, float(step))  # the first is the best, and stays
        print("saved", step, flush=True)


def main(run):
    config = configured(*SHORT, *TINY_GENERATOR["hifigan"], "loss=stft_only")
    for _ in sys.stdin:
        assert os.listdir("/proc/self/task") == [str(os.getpid())]  # threads would be lost
        process = os.fork()
        if process == 0:
            save(config, run)
        os.waitpid(process, 0)
        print("gone", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
