"""The main job as a user runs it: `python -m vocoder.train` in a process of its own."""

import io
import json
import os
import shutil
import sys

import keras
import numpy as np
import pytest
import soundfile
import tensorflow as tf
from hydra import compose, initialize_config_dir
from running import SHORT, TINY, TINY_GENERATOR, configured, rows, run, scalars

import vocoder
from vocoder import registry
from vocoder.composition import register_resolvers
from vocoder.errors import InputError
from vocoder.paths import asset
from vocoder.train import train
from vocoder.training.checkpoints import latest
from vocoder.training.run_folder import complete, locked


def one_of_each() -> dict[str, str]:
    """One config for each class of generator and kind of head, with the class's name."""
    register_resolvers()
    found = {}
    with initialize_config_dir(str(asset("configs")), version_base="1.3"):
        for path in sorted((asset("configs") / "generator").glob("*.yaml")):
            node = compose("train", [f"generator={path.stem}"]).generator
            found.setdefault((node.name, node.head.name), path.stem)
    return {config: name for (name, _), config in found.items()}


GENERATORS = one_of_each()


def test_every_generator_is_tried():
    assert set(GENERATORS.values()) == set(TINY_GENERATOR) == set(registry.GENERATORS)


@pytest.fixture(scope="session")
def trained(recordings, tmp_path_factory):
    """A finished run, with EMA, clipping and a schedule: its folder and what it printed."""
    folder = tmp_path_factory.mktemp("trained")
    options = ["optimizer.use_ema=true", "optimizer.global_clipnorm=1", "schedule=cosine"]
    options += ["trainer.validation_metrics=[mr_stft,mcd]", "trainer.best=mr_stft"]
    where = ["data=folder", f"data.root={recordings}", "hydra.run.dir=run"]
    where += ["trainer.samples=1"]
    done = run(*TINY, *options, *where, f"data.cache={folder}", cwd=folder)
    assert done.returncode == 0, done.stderr
    # On the screen are our own lines; what libraries say is in the log.
    assert [line.split(":")[:2] for line in done.stderr.splitlines()] == [
        ["warning", " data.validation_fraction"]
    ]
    assert "absl" in (folder / "run/train.log").read_text()
    return folder / "run", done.stdout


def test_run_folder_holds_everything(trained):
    folder, printed = trained
    names = {path.name for path in folder.iterdir()}
    assert {
        "config.yaml", "overrides.yaml", "losses.csv", "generator.keras", "checkpoints", "samples",
        "tensorboard",
    } <= names  # fmt: skip
    steps = [path.name for path in sorted((folder / "checkpoints").iterdir())]
    assert steps[-1] == "step-00000004"
    assert "step 0" in printed and "step 4" in printed  # the table, before and after
    (original,) = (folder / "samples").rglob("*_original.wav")  # once, not at every validation
    (synthesised,) = (folder / "samples/step-00000004").glob("*_synthesised.wav")
    assert f"original run/{original.relative_to(folder)}" in printed.replace(
        f"{folder.parent}/", ""
    )
    assert synthesised.name in printed


def test_every_loss_has_its_curve(trained):
    folder, _ = trained
    parts = {"loss/total", "loss/waveform", "loss/mel", "loss/stft"}
    _, train = scalars(folder, "train")
    _, validation = scalars(folder, "validation")
    assert parts | {
        "training/learning_rate", "training/gradient_norm", "training/steps_per_second", "config",
    } <= set(train)  # fmt: skip
    assert parts <= set(validation)  # the same tags: one chart
    assert list(train["loss/mel"]) == [1, 2, 3, 4]
    assert list(validation["loss/mel"]) == [0, 2, 4]
    for step in (1, 4):
        total = train["loss/waveform"][step] + train["loss/stft"][step]
        assert train["loss/total"][step] > total  # the weighted mel is in it
    written = [row for row in rows(folder) if row["split"] == "train"]
    assert float(written[-1]["mel"]) == pytest.approx(train["loss/mel"][4], rel=1e-5)


def test_samples_are_to_be_heard_and_seen(trained):
    folder, _ = trained
    events, curves = scalars(folder, "validation")
    (stem,) = {tag.split("/")[1] for tag in curves if tag.startswith("mel/")}
    shown = {
        kind: {event.step: tf.make_ndarray(event.tensor_proto) for event in events.Tensors(tag)}
        for kind in ("original", "synthesised", "mel")
        for tag in [f"{kind}/{stem}"]
    }
    assert list(shown["original"]) == [0]
    assert list(shown["synthesised"]) == list(shown["mel"]) == [0, 2, 4]
    for kind in ("original", "synthesised"):
        for step, tensor in shown[kind].items():
            path = folder / f"samples/step-{step:08d}/{stem}_{kind}.wav"
            heard, rate = soundfile.read(io.BytesIO(tensor[0, 0]))
            written, written_rate = soundfile.read(path)
            assert rate == written_rate == 22050 and len(written) == 22016  # whole frames
            np.testing.assert_allclose(heard, written, atol=2**-14)
    pictures = [tf.io.decode_png(tensor[2]).numpy() for tensor in shown["mel"].values()]
    assert pictures[0].shape == pictures[-1].shape and pictures[0].shape[-1] == 3
    assert (pictures[0] != pictures[-1]).any() and pictures[0].std() > 10
    events, _ = scalars(folder, "train")
    (config,) = (tf.make_ndarray(event.tensor_proto)[()] for event in events.Tensors("config"))
    assert config.decode() == f"```\n{(folder / 'config.yaml').read_text()}\n```"


def session(folder, recordings, *overrides):
    """A session of a run in this process; its folder is `folder`."""
    options = [*TINY, "data=folder", f"data.root={recordings}", f"data.cache={folder.parent}"]
    train(configured(*options, "trainer.max_steps=2", *overrides), folder, list(overrides))


def checkpoints_of(folder):
    return [int(path.name.removeprefix("step-")) for path in complete(folder)]


@pytest.mark.slow
def test_an_earlier_checkpoint_is_gone_on_from(recordings, tmp_path, capsys):
    """Its later steps are set aside, and everything tells of the new ones alone."""
    folder = tmp_path / "r"
    often = ["trainer.checkpoint_every=1", "trainer.validate_every=1", "trainer.samples=1"]
    session(folder, recordings, *often, "trainer.max_steps=5", "trainer.keep_checkpoints=5")
    capsys.readouterr()
    earlier = f"trainer.resume={folder}/checkpoints/step-00000002"
    # Another rate, so that the two futures differ; and no validation at the step that both have.
    other = ["trainer.checkpoint_every=1", "trainer.samples=1", "optimizer.learning_rate=1e-3"]
    other += ["trainer.validate_every=4", "trainer.keep_checkpoints=1"]
    session(folder, recordings, *other, earlier, "trainer.max_steps=3")
    aside = folder / "abandoned/after-step-00000002"
    assert f"python -m vocoder.train trainer.resume={aside}" in capsys.readouterr().out
    assert checkpoints_of(aside) == [3, 4, 5]
    assert max(checkpoints_of(folder)) == 3
    session(folder, recordings, *other, "trainer.resume=auto", "trainer.max_steps=4")
    assert max(checkpoints_of(folder)) == 4
    seen = {"train": [1, 2, 3, 4], "validation": [0, 1, 2, 3, 4]}
    for split, steps in seen.items():
        _, curves = scalars(folder, split)
        written = {int(r["step"]): float(r["loss"]) for r in rows(folder) if r["split"] == split}
        assert list(written) == steps
        assert curves["loss/total"] == pytest.approx(written, rel=1e-5)
        then = {int(r["step"]): float(r["loss"]) for r in rows(aside) if r["split"] == split}
        assert then[2] == written[2] and then[4] != written[4] and 5 in then
    # What was abandoned is a run, which can go on as well.
    assert latest(aside) == aside / "checkpoints/step-00000005"
    vocoder.load(aside)


@pytest.mark.slow
def test_a_new_run_in_the_folder_of_another(recordings, tmp_path, capsys):
    folder = tmp_path / "r"
    for seed in (0, 1):
        session(folder, recordings, f"seed={seed}", "trainer.keep_checkpoints=1")
    assert checkpoints_of(folder) == [2]
    assert checkpoints_of(folder / "abandoned/after-step-00000000") == [2]
    assert [row["step"] for row in rows(folder)] == ["0", "1", "2", "2"]
    # From another run's checkpoint, nothing of this one's counts.
    third = tmp_path / "third"
    session(third, recordings, "trainer.max_steps=1")
    session(third, recordings, f"trainer.resume={folder}", "trainer.max_steps=3")
    assert checkpoints_of(third) == [2, 3]  # it begins with a validation of what it goes on from
    assert [row["step"] for row in rows(third)] == ["2", "3", "3"]


def test_a_finished_run_is_done_already(recordings, tmp_path, capsys):
    folder = tmp_path / "r"
    session(folder, recordings)
    (folder / "generator.keras").unlink()  # as if it had been killed before it could write that
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != ".lock"}
    capsys.readouterr()
    for limit in (2, 1):
        session(folder, tmp_path / "gone", "trainer.resume=auto", f"trainer.max_steps={limit}")
        assert capsys.readouterr().out.startswith("done already; trainer.max_steps: 2 were done")
    vocoder.load(folder)
    (folder / "generator.keras").unlink()
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != ".lock"}
    assert {k: v for k, v in before.items() if k != folder} == {
        k: v for k, v in after.items() if k != folder
    }
    with pytest.raises(InputError, match=r"^trainer\.max_steps: 2 were done .* a larger number"):
        session(folder, recordings, f"trainer.resume={folder}")


@pytest.mark.slow
def test_what_a_run_began_with_is_not_needed_to_go_on(recordings, tmp_path):
    session(tmp_path / "before", recordings, "trainer.max_steps=1")
    begin = [f"trainer.pretrained={tmp_path}/before"]
    session(tmp_path / "r", recordings, *begin)
    shutil.rmtree(tmp_path / "before")
    session(tmp_path / "r", recordings, *begin, "trainer.resume=auto", "trainer.max_steps=3")
    assert checkpoints_of(tmp_path / "r")[-1] == 3
    with pytest.raises(InputError, match=r"^trainer\.pretrained: .*before"):
        session(tmp_path / "new", recordings, *begin)


@pytest.mark.slow
def test_the_loss_of_a_run_may_change(recordings, tmp_path):
    folder = tmp_path / "r"
    session(folder, recordings)
    terms = ["~loss.terms.stft", "+loss.terms.mse={loss: mean_squared_error, weight: 1}"]
    session(folder, recordings, *terms, "trainer.resume=auto", "trainer.max_steps=3")
    session(folder, recordings, "trainer.resume=auto", "trainer.max_steps=4")
    for split, count in {"train": 4, "validation": 4}.items():
        found = [row for row in rows(folder) if row["split"] == split]
        assert len(found) == count
        assert [bool(row["stft"]) for row in found] == [row["step"] != "3" for row in found]
        assert [bool(row["mse"]) for row in found] == [row["step"] == "3" for row in found]


@pytest.mark.slow
def test_a_validation_clip_may_be_shorter_than_anything(tmp_path, caplog):
    """Than the window of the picture's mel, than a frame, than what metrics need."""
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    lengths = [1, 2, 255, 256, 257, 500, 700, 2000]
    rng = np.random.default_rng(0)
    for length in (*lengths, 20_000):
        soundfile.write(corpus / f"{length}.wav", 0.3 * rng.standard_normal(length), 22050)
    (tmp_path / "held_out").write_text("\n".join(f"{length}.wav" for length in lengths))
    session(
        tmp_path / "r", corpus, f"data.validation_list={tmp_path}/held_out",
        f"trainer.samples={len(lengths)}", "trainer.max_steps=1", "data.validation_segments=8",
        "trainer.validation_metrics=[mr_stft,mcd]",
    )  # fmt: skip
    made = (tmp_path / "r/samples/step-00000001").glob("*_synthesised.wav")
    assert len(list(made)) == len(lengths) and not caplog.records
    for row in rows(tmp_path / "r"):
        assert np.isfinite(float(row["loss"])) and row["mcd"] == ""


def test_two_runs_in_one_folder(recordings, tmp_path):
    common = [*TINY, "data=folder", f"data.root={recordings}", f"data.cache={tmp_path}"]
    with locked(tmp_path / "r"):
        done = run(*common, "trainer.resume=auto", "hydra.run.dir=r", cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "r: another run is writing here" in line and f"pid {os.getpid()}" in line
    assert {path.name for path in (tmp_path / "r").iterdir()} <= {".lock", "train.log"}


def test_metrics_of_whole_utterances_at_every_validation(trained):
    folder, printed = trained
    _, curves = scalars(folder, "validation")
    written = [row for row in rows(folder) if row["split"] == "validation"]
    for name in ("mr_stft", "mcd"):
        curve = curves[f"metric/{name}"]
        assert list(curve) == [0, 2, 4] and all(0 < value < 100 for value in curve.values())
        assert [float(row[name]) for row in written] == pytest.approx([*curve.values()], rel=1e-5)
    assert not any(row["mcd"] for row in rows(folder) if row["split"] == "train")
    for path in (folder / "checkpoints").iterdir():
        info = json.loads((path / "info.json").read_text())
        value = curves["metric/mr_stft"][info["step"]]
        assert info.pop("seconds") > 0
        assert info == {
            "step": info["step"], "measure": "mr_stft", "value": pytest.approx(value, rel=1e-6),
        }  # fmt: skip
    lines = [line.split() for line in printed.splitlines()]
    assert sum(line[:2] == ["validation", "at"] and "mr_stft" in line for line in lines) == 3
    assert [line[0] for line in lines if line[:1] in (["mr_stft"], ["mcd"])] == ["mr_stft", "mcd"]


def test_generator_alone_makes_audio(trained, tmp_path):
    folder, _ = trained
    model = vocoder.load(folder / "generator.keras")
    assert isinstance(model.generator, keras.Model)
    assert (model.audio.sample_rate, model.audio.n_mels) == (22050, 80)
    audio = 0.1 * np.random.default_rng(0).standard_normal((2, 8192)).astype(np.float32)
    mel = model.mel(audio)
    assert mel.shape == (2, 32, 80) and model.mel(audio[0]).shape == (32, 80)
    wave = model.synthesize(mel)
    assert wave.shape == (2, 8192) and np.isfinite(wave).all()
    np.testing.assert_allclose(model.synthesize(mel[0]), wave[0], atol=1e-5)
    for other in (folder, folder / "checkpoints/step-00000004"):
        np.testing.assert_array_equal(vocoder.load(other).synthesize(mel), wave)


@pytest.mark.slow
def test_resuming_goes_on_as_if_never_stopped(recordings, tmp_path):
    """Four steps straight, and two, stop, two: the same curves, from the same batches."""
    common = [*TINY, "data=folder", f"data.root={recordings}", f"data.cache={tmp_path}"]
    common += ["optimizer.use_ema=true", "optimizer.gradient_accumulation_steps=2"]
    straight = run(*common, "hydra.run.dir=straight", cwd=tmp_path)
    assert straight.returncode == 0, straight.stderr
    halves = [
        run(*common, "trainer.max_steps=2", "hydra.run.dir=halves", cwd=tmp_path),
        run("trainer.resume=halves", "trainer.max_steps=4", cwd=tmp_path),
    ]
    assert [half.returncode for half in halves] == [0, 0], halves[1].stderr
    folders = [tmp_path / "straight", tmp_path / "halves"]
    assert [p.name for p in tmp_path.iterdir() if p.name == "outputs"] == []  # all in its folder
    drop = {"steps_per_second"}
    first, second = (
        [{k: v for k, v in row.items() if k not in drop} for row in rows(folder)]
        for folder in folders
    )
    assert first == second
    waves = [vocoder.load(folder).synthesize(np.zeros((20, 80), np.float32)) for folder in folders]
    np.testing.assert_allclose(*waves, atol=1e-6)  # sums depend on where buffers lie


@pytest.mark.slow
def test_steps_that_a_resumed_run_does_again_are_written_once(recordings, tmp_path):
    common = [*TINY, "data=folder", f"data.root={recordings}", f"data.cache={tmp_path}"]
    assert run(*common, "hydra.run.dir=r", cwd=tmp_path).returncode == 0
    again = run("trainer.resume=r/checkpoints/step-00000002", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    steps = [(row["step"], row["split"]) for row in rows(tmp_path / "r")]
    assert len(steps) == len(set(steps)) == 7


@pytest.mark.slow
def test_last_and_best_checkpoints_are_kept(recordings, tmp_path):
    common = [*TINY, "data=folder", f"data.root={recordings}", f"data.cache={tmp_path}"]
    # A rate that makes it worse after the first steps, so that the best is not among the last.
    options = ["trainer.max_steps=8", "trainer.keep_checkpoints=2"]
    options += ["schedule.decay_rate=1", "optimizer.learning_rate=1"]
    done = run(*common, *options, "hydra.run.dir=r", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    kept = sorted(path.name for path in (tmp_path / "r/checkpoints").iterdir())
    losses = {
        int(r["step"]): float(r["loss"]) for r in rows(tmp_path / "r") if r["split"] == "validation"
    }
    best = min((step for step in losses if step), key=losses.get)
    assert kept == sorted({f"step-{step:08d}" for step in (best, 6, 8)})


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(recordings, tmp_path, precision):
    common = [*TINY, "data=folder", f"data.root={recordings}", f"data.cache={tmp_path}"]
    done = run(*common, f"trainer.precision={precision}", "hydra.run.dir=r", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    again = run("trainer.resume=r", "trainer.max_steps=5", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert all(np.isfinite(float(row["loss"])) for row in rows(tmp_path / "r"))


@pytest.mark.slow
@pytest.mark.parametrize("generator", GENERATORS)
def test_every_generator_end_to_end(generator, recordings, tmp_path):
    """Trains, saves, reloads, resumes and synthesises."""
    common = [*SHORT, "data=folder", f"data.root={recordings}", f"data.cache={tmp_path}"]
    common += [f"generator={generator}", *TINY_GENERATOR[GENERATORS[generator]]]
    done = run(*common, "hydra.run.dir=r", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    resumed = run("trainer.resume=r", "trainer.max_steps=6", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert rows(tmp_path / "r")[-1]["step"] == "6"
    made = run("r", recordings, "--out", "wavs", module="vocoder.synthesize", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert len(list((tmp_path / "wavs").rglob("*.wav"))) == 4


@pytest.mark.slow
def test_sweep(recordings, tmp_path):
    common = [*TINY, "data=folder", f"data.root={recordings}", f"data.cache={tmp_path}"]
    done = run("-m", *common, "seed=1,2", "hydra.sweep.dir=sweep", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    losses = [rows(tmp_path / f"sweep/{job}")[-1]["loss"] for job in (0, 1)]
    assert losses[0] != losses[1]


@pytest.mark.slow
@pytest.mark.parametrize("jit_compile", [True, False])
def test_training_lowers_the_losses(jit_compile, recordings, tmp_path):
    common = [*TINY, "data=folder", f"data.root={recordings}", f"data.cache={tmp_path}"]
    options = ["trainer.max_steps=60", "trainer.validate_every=60", "optimizer.learning_rate=2e-3"]
    options += [f"trainer.jit_compile={jit_compile}", "trainer.checkpoint_every=60"]
    done = run(*common, *options, "hydra.run.dir=r", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    first, last = (row for row in rows(tmp_path / "r") if row["split"] == "validation")
    assert float(last["mel"]) < 0.6 * float(first["mel"])
    assert float(last["stft"]) < 0.9 * float(first["stft"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data=folder"], "data.root: missing"),
        (["data=folder", "data.root=nowhere"], "data.root: nowhere is not a folder"),
        (["data=folder", "data.root=."], "data.root: no audio found"),
        (["data=filelist", "data.root=."], "data.train_list: missing"),
        (["generator=hifigan_v9"], "hifigan_v9"),
        (["loss.terms.mell.weight=3"], "mell"),
        (["trainer.resume=nowhere"], "trainer.resume: nowhere is not a folder"),
        (["audio.log=ln"], "audio.log: must be"),
        (["loss.terms.mel.weight=="], ""),
    ],
)
def test_mistakes_end_with_one_line_and_code_2(arguments, message, tmp_path):
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and message in errors[0], done.stderr
    assert not list(tmp_path.rglob("config.yaml"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "trainer.validation_metrics=[mcd,pesq]",
            "trainer.validation_metrics: unknown 'pesq'; did you mean 'pesq_wb'",
        ),
        (
            "trainer.validation_metrics=[mcd,pesq_wb]",
            "trainer.validation_metrics: pesq_wb needs pesq, which is not installed; pip install",
        ),
        ("trainer.best=pesq_wb", "trainer.best: validation has no 'pesq_wb'"),
    ],
)
def test_mistakes_about_metrics_are_told_first(override, message, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pesq", None)
    config = configured(override, "data=folder", "data.root=nowhere")
    with pytest.raises(InputError, match=f"^{message}"):
        train(config, tmp_path / "run", [])
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_file_that_breaks_while_training_is_named(recordings, tmp_path):
    (tmp_path / "corpus").mkdir()
    for i in range(3):
        tone = 0.3 * np.sin(0.1 * (i + 1) * np.arange(22050))
        soundfile.write(tmp_path / f"corpus/{i}.wav", tone, 22050)
    common = [*TINY, "data=folder", "data.root=corpus", f"data.cache={tmp_path}"]
    assert run(*common, "hydra.run.dir=r", cwd=tmp_path).returncode == 0
    for i in range(3):  # the same size and age, so that the index doesn't notice
        path = tmp_path / f"corpus/{i}.wav"
        about = path.stat()
        path.write_bytes(bytes(about.st_size))
        os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    done = run("trainer.resume=r", "trainer.max_steps=6", cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert ".wav: can't be read as audio" in done.stderr
    assert (tmp_path / "r/generator.keras").exists()


@pytest.mark.slow
def test_another_network_can_not_resume(trained, tmp_path):
    folder, _ = trained
    before = (folder / "overrides.yaml").read_text()
    done = run(f"trainer.resume={folder}", "trainer.max_steps=9",
               "generator.upsample_initial_channel=32", cwd=folder.parent)  # fmt: skip
    assert done.returncode == 2 and "does not fit this config" in done.stderr
    done = run(f"trainer.resume={folder}", cwd=folder.parent)
    assert done.returncode == 2 and "trainer.max_steps: 4 were done" in done.stderr
    assert (folder / "overrides.yaml").read_text() == before
