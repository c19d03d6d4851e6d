"""Which checkpoint is gone on from, and what comes back of it."""

import json
import shutil

import numpy as np
import pytest

from configs import optimizing, trainer_config
from vocoder.audio.settings import AudioConfig
from vocoder.errors import InputError
from vocoder.generators import HiFiGAN
from vocoder.losses import LossCfg, MultiLoss, WaveformL1Loss
from vocoder.training.checkpoints import Checkpoints, done, latest, to_resume
from vocoder.training.optimizer import build_optimizer
from vocoder.training.trainer import ReconstructionTrainer

HEAD = {"name": "istft", "n_fft": 16, "hop_length": 4}

AUDIO = AudioConfig(n_fft=64, hop_length=16, win_length=64, n_mels=10)


def trainer_on(*terms, channels=8):
    generator = HiFiGAN(
        (4,),
        (8,),
        channels,
        head=HEAD,
        audio=vars(AUDIO),
    )
    trainer = ReconstructionTrainer(generator)
    loss = MultiLoss([LossCfg(WaveformL1Loss(), 1.0, term) for term in terms])
    trainer.compile(build_optimizer(optimizing()), loss=loss)
    return trainer


def step(trainer, level=0.1):
    return trainer.train_step((np.zeros((2, 8, 10), np.float32), np.full((2, 128), level, "f4")))


@pytest.fixture
def run(tmp_path):
    """A run with checkpoints of the steps 1 to 3."""
    checkpoints = Checkpoints(tmp_path, trainer_on("a", "b"), keep=3)
    for number in (1, 2, 3):
        checkpoints.save(number, float(number))
    return tmp_path


def folder(run, step):
    return run / f"checkpoints/step-{step:08d}"


def test_auto_is_the_newest_or_a_fresh_start(run, tmp_path_factory):
    assert to_resume("auto", run) == to_resume(str(run), run) == folder(run, 3)
    assert to_resume(str(folder(run, 2)), run) == folder(run, 2)
    assert to_resume(None, run) is None
    empty = tmp_path_factory.mktemp("empty")
    assert to_resume("auto", empty) is None
    with pytest.raises(InputError, match=rf"^trainer\.resume: no checkpoint in {empty}"):
        to_resume(str(empty), run)


def test_what_is_damaged_is_passed_over_and_told(run, caplog):
    (folder(run, 3) / "info.json").write_text("[]")
    assert to_resume("auto", run) == to_resume(str(run), run) == folder(run, 2)
    assert "step-00000003/info.json: damaged" in caplog.text and "passed over" in caplog.text
    message = r"^trainer\.resume: .*step-00000003/info\.json: damaged.*step-00000002 is whole$"
    with pytest.raises(InputError, match=message):
        latest(folder(run, 3))
    (folder(run, 3) / "state.index").unlink()
    with pytest.raises(InputError, match=r"state\.index: no such file; .*00000002 is whole$"):
        latest(folder(run, 3))


def test_a_run_whose_checkpoints_are_all_damaged_is_not_begun_again(run):
    for number in (1, 2, 3):
        (folder(run, number) / "info.json").unlink()
    for resume in ("auto", str(run)):
        with pytest.raises(InputError, match=r"no checkpoint in .* that is whole .*info\.json"):
            to_resume(resume, run)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path):
    path.write_bytes(b"")


def flipped(path):
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(x ^ 255 for x in content[middle : middle + 64])
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["state.index", "state.data-00000-of-00001"])
@pytest.mark.parametrize("damage", [cut, emptied, flipped])
def test_a_damaged_state_is_told_with_the_one_before(damage, name, run):
    damage(folder(run, 3) / name)
    message = r"^trainer\.resume: .*step-00000003 is damaged .*step-00000002$"
    with pytest.raises(InputError, match=message):
        Checkpoints(run, trainer_on("a", "b"), 1).restore(folder(run, 3))


def test_the_state_of_another_step_is_no_checkpoint(run):
    info = folder(run, 3) / "info.json"
    info.write_text(info.read_text().replace('"step": 3', '"step": 30'))
    folder(run, 3).rename(folder(run, 30))
    with pytest.raises(InputError, match=r"step-00000030/info\.json: says step 30, .* of step 3$"):
        Checkpoints(run, trainer_on("a", "b"), 1).restore(folder(run, 30))


def test_another_network_does_not_fit(run):
    with pytest.raises(InputError, match=r"step-00000003 does not fit this config's generator"):
        Checkpoints(run, trainer_on("a", "b", channels=16), 1).restore(folder(run, 3))


def test_a_run_is_done_by_its_steps_or_its_minutes(run):
    info = folder(run, 3) / "info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"seconds": 90.0}))
    limits = {
        "trainer.max_steps: 3 were done": [{"max_steps": 3}, {"max_steps": 2, "max_minutes": 9}],
        "trainer.max_minutes: 1.50 were over": [{"max_minutes": 1.5}, {"max_minutes": 0.1}],
    }
    for message, configs in limits.items():
        for config in configs:
            assert done(folder(run, 3), trainer_config(**config)).startswith(message)
    for config in ({"max_steps": 4}, {"max_minutes": 1.6}, {}):
        assert done(folder(run, 3), trainer_config(**config)) is None


def test_a_checkpoint_that_can_not_be_removed_costs_a_warning(run, monkeypatch, caplog):
    remove = shutil.rmtree

    def refuse(path, **options):
        if str(path).endswith(".old"):
            raise OSError(39, "Directory not empty")
        remove(path, **options)

    checkpoints = Checkpoints(run, trainer_on("a", "b"), keep=1)
    monkeypatch.setattr("vocoder.training.checkpoints.shutil.rmtree", refuse)
    checkpoints.save(4, None)
    assert "can't be removed (Directory not empty)" in caplog.text


def test_leftovers_of_a_killed_save_are_removed_and_no_link_is_followed(tmp_path):
    (tmp_path / "checkpoints/.step-00000001.partial").mkdir(parents=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/precious").write_text("")
    (tmp_path / "checkpoints/.step-00000002.partial").symlink_to("../mine")
    checkpoints = Checkpoints(tmp_path, trainer_on("a"), keep=1)
    assert not list((tmp_path / "checkpoints").iterdir())
    checkpoints.save(2, None)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["precious"]
