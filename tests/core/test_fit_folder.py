"""What may be done to a run's folder: nothing of the user's is lost, and nothing that is damaged is believed."""

import itertools
import os
import shutil
import signal
import threading
import time

import numpy as np
import pytest

from core import manifests
from core.checkpoint import Checkpoints
from core.errors import CheckpointError, Preempted
from core.history import read
from tests.core.fit_process import digest
from tests.core.test_fit import quick, whole


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of 20 steps with checkpoints of 10 and 20; to be copied."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    quick(20, folder, checkpoint_every=10)
    return folder


@pytest.fixture
def folder(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def everything(folder):
    """Every file below a folder by its content; links as links."""
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def put(name, content="mine"):
    def do(folder):
        path = folder / "checkpoints" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)

    return do


def linked(name):
    """Moves an entry of the run's folder away and puts a link to it in its place."""

    def do(folder):
        path, away = folder / name, folder.parent / "elsewhere"
        path.rename(away)
        path.symlink_to(away)

    return do


FOREIGN = {
    "a file": put("best.pt"),
    "a folder": put("exports/model.bin"),
    "a folder named like a checkpoint": put("step_00000005/model.pt"),
    "a file named like a manifest": put("step_00000005.json", '{"loss": 0.5}'),
    "a pair named like a checkpoint": lambda folder: [
        put("step_00000005/model.pt")(folder), put("step_00000005.json", '{"loss": 0.5}')(folder)
    ],
    "a file in a checkpoint": put("step_00000010/best.pt"),
    "a step too short": put("step_5/model.pt"),
    "a link to a file": lambda folder: (folder / "checkpoints" / "data").symlink_to("/etc/hostname"),
    "a link as a checkpoint": linked("checkpoints/step_00000010"),
    "a link as a manifest": linked("checkpoints/step_00000010.json"),
    "a link as the folder": linked("checkpoints"),
}  # fmt: skip


@pytest.mark.parametrize("harm", FOREIGN.values(), ids=FOREIGN.keys())
def test_a_folder_of_checkpoints_with_other_things_is_refused_and_left_as_it_is(harm, folder):
    harm(folder)
    before = everything(folder.parent)
    with pytest.raises(CheckpointError, match=r"move that elsewhere|is a link"):
        quick(40, folder, checkpoint_every=10)
    assert everything(folder.parent) == before


@pytest.mark.parametrize("name", ["metrics.jsonl", ".lock-0", "identity.json", "tensorboard"])
def test_nothing_is_written_behind_a_link(name, folder, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir() if name == "tensorboard" else mine.write_text("mine")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(mine)
    before = everything(tmp_path)
    with pytest.raises(CheckpointError, match="is a link, and a run writes nothing behind one"):
        quick(40, folder, checkpoint_every=10, tensorboard=True)
    assert everything(tmp_path) == before


def test_what_is_put_beside_checkpoints_during_a_run_outlives_their_removal(tmp_path, caplog):
    def progress(done, total):
        if done == 25:
            put("best.pt")(tmp_path)
            put("step_00000010/best.pt")(tmp_path)

    quick(40, tmp_path, checkpoint_every=10, progress=progress)
    left = everything(tmp_path / "checkpoints")
    assert left["best.pt"] == left["step_00000010/best.pt"] == b"mine"
    assert [name for name in left if name.startswith("step_00000010")] == ["step_00000010/best.pt"]
    assert "holds other files (best.pt), which are left there" in caplog.text


LEFT_BEHIND = (
    "step_00000030.orbax-checkpoint-tmp/d/part", ".step_00000020.json.0123456789ab", ".step_00000010.removed/_METADATA"
)  # fmt: skip


def test_what_a_kill_left_behind_is_removed_and_hidden_files_of_others_are_not(folder):
    for name in (*LEFT_BEHIND, ".DS_Store"):
        path = folder / "checkpoints" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text("")
    (folder / "checkpoints" / "step_00000010.json").unlink()  # as between the first and the second step of a removal
    quick(20, folder, checkpoint_every=10)
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == [
        ".DS_Store", "step_00000020", "step_00000020.json"
    ]  # fmt: skip


def test_a_checkpoint_under_the_name_of_another_step_is_not_believed(folder, caplog):
    for old in list((folder / "checkpoints").glob("step_00000010*")):
        copy = shutil.copytree if old.is_dir() else shutil.copy
        copy(old, old.with_name(old.name.replace("10", "30")))
    assert digest(quick(20, folder, checkpoint_every=10)) == digest(whole(20))
    assert "it is the checkpoint of step 10 under another name" in caplog.text


def test_checkpoints_from_step_100_000_000_on_are_found_and_kept(tmp_path):
    checkpoints, state = Checkpoints(tmp_path), {"w": np.arange(3.0)}
    for step in (99_999_999, 100_000_000, 2_000_000_000):
        checkpoints.save(step, state)
    checkpoints.wait()
    checkpoints.require_own()
    checkpoints.clean()
    assert checkpoints.steps() == [2_000_000_000, 100_000_000]
    restored = checkpoints.restore(state)
    checkpoints.close()
    assert restored is not None
    assert restored.step == 2_000_000_000


IDENTITIES = {
    "empty": b"", "cut": b'{"data": {"sha', "a list": b"[1, 2]", "a number": b"5", "null": b"null", "nothing": b"{}",
    "latin-1": b'{"caf\xe9": 1}', "NUL": b"\0" * 50, "brackets": b"[" * 200_000,
}  # fmt: skip


@pytest.mark.parametrize("content", IDENTITIES.values(), ids=IDENTITIES.keys())
def test_a_damaged_identity_is_one_clear_error(content, folder):
    (folder / "identity.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"identity\.json is damaged, .*use another workdir or delete"):
        quick(20, folder, checkpoint_every=10)


def test_a_folder_without_an_identity_is_refused_for_its_metrics_too(folder):
    (folder / "identity.json").unlink()
    shutil.rmtree(folder / "checkpoints")
    with pytest.raises(CheckpointError, match=r"has metrics\.jsonl, but no identity\.json"):
        quick(20, folder, checkpoint_every=10)


LINES = ["5", "null", "[1, 2]", '"text"', "{}", '{"loss": 1.0}', '{"step": null}', '{"step": "5"}', '{"step": true}',
         "[" * 100_000, "\x00", '{"step": 1e3}']  # fmt: skip


def test_lines_of_metrics_that_are_no_rows_are_passed_over(folder):
    path = folder / "metrics.jsonl"
    good = read(path)
    with open(path, "ab") as file:
        file.write("\n".join(LINES).encode() + b"\n\xff\xfe\n")
    assert read(path) == good
    assert quick(20, folder, checkpoint_every=10).history == whole(20).history


KINDS = [ValueError, RuntimeError, TypeError, KeyError, AttributeError, AssertionError, OSError, Exception]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stage", ["save", "wait_until_finished"])
def test_whatever_orbax_raises_is_one_error_with_path_and_remedy(kind, stage, folder, monkeypatch):
    def fail(*args, **kwargs):
        raise kind("RESOURCE_EXHAUSTED: no room")

    monkeypatch.setattr(f"orbax.checkpoint.StandardCheckpointer.{stage}", fail)
    checkpoints = Checkpoints(folder / "checkpoints")

    def save():
        checkpoints.save(30, {"w": np.ones(3)})
        checkpoints.wait()

    with pytest.raises(CheckpointError, match=r"the disk is full; .*step_00000020; free space") as caught:
        save()
    assert str(folder) in str(caught.value)
    monkeypatch.undo()
    checkpoints.close()


def test_a_checkpoint_that_cannot_be_restored_is_named(folder, monkeypatch):
    def fail(*args, **kwargs):
        raise KeyError("ocdbt")

    monkeypatch.setattr("orbax.checkpoint.StandardCheckpointer.restore", fail)
    with pytest.raises(CheckpointError, match=r"cannot restore .*step_00000020: 'ocdbt'"):
        quick(20, folder, checkpoint_every=10)


def test_no_thread_waits_for_a_folder_that_cannot_be_made(folder, monkeypatch):
    """Such a thread would hold the process back for minutes after its error."""

    def fail(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    before = set(threading.enumerate())
    monkeypatch.setattr("etils.epath.backend._OsPathBackend.makedirs", fail)
    with pytest.raises(CheckpointError, match="Permission denied"):
        quick(40, folder, checkpoint_every=10)
    deadline = time.monotonic() + 3
    while left := [thread for thread in set(threading.enumerate()) - before if not thread.daemon]:
        assert time.monotonic() < deadline, left
        time.sleep(0.02)


@pytest.mark.parametrize("seconds", [-1e4, 1e4])
def test_a_clock_that_is_set_during_a_save_changes_nothing(seconds, folder, monkeypatch):
    true, calls = time.time, itertools.count()
    monkeypatch.setattr(time, "time", lambda: true() + seconds * next(calls))
    assert digest(quick(40, folder, checkpoint_every=10)) == digest(whole(40))


def test_a_closed_terminal_saves_like_a_request_to_stop(tmp_path):
    def hang_up(done, total):
        os.kill(os.getpid(), signal.SIGHUP)

    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # it is ignored where the tests run under nohup
    try:
        with pytest.raises(Preempted, match="saved step 5 of 20"):
            quick(20, tmp_path, progress=hang_up)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)
    assert manifests.steps(tmp_path / "checkpoints") == [5]


def test_under_nohup_a_closed_terminal_is_ignored(tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        quick(10, tmp_path, progress=lambda done, total: os.kill(os.getpid(), signal.SIGHUP))
    finally:
        signal.signal(signal.SIGHUP, before)
    assert manifests.steps(tmp_path / "checkpoints") == [10]
