"""Job files run one ``relic run`` on every host; the Slurm one is executed here as two processes."""

import json
import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from core import records
from experiments.lab import launch, ledger, runs
from experiments.lab.cli import main
from experiments.lab.launch import run_command

TOY = "tests.experiments.toy"
RELIC = f"{sys.executable} -m experiments.lab.cli"
FILES = {
    "slurm": ("--accelerator", "gpu:4"),
    "tpu-vm": ("--accelerator", "v5litepod-16", "--bucket", "my-runs"),
    "gke": ("--accelerator", "tpu-v5-lite-podslice/4x4", "--hosts", "4", "--image", "image/relic:1"),
}


def job_file(target: str, folder: Path, *options: str) -> Path:
    path = folder / f"job-{target}"
    options = options if "--preset" in options else ("--preset", "small", *options)
    assert main(["launch", TOY, "--on", target, "--output", str(path), *options, *FILES[target]]) == 0
    return path


@pytest.mark.parametrize("target", FILES)
def test_every_kind_of_cluster_runs_the_same_command(target, tmp_path):
    options = ("--preset", "small", "--seeds", "0,3", "--set", "steps=20", "--set", "noise=high")
    command = run_command(TOY, "small", "0,3", ["steps=20", "noise=high"], Path("runs"), None, distributed=True)
    assert command.endswith("--set steps=20 --set noise=high --workdir runs --distributed")
    assert command in job_file(target, tmp_path, *options).read_text()


@pytest.mark.parametrize("target", ["slurm", "tpu-vm"])
def test_scripts_are_valid_shell(target, tmp_path):
    path = job_file(target, tmp_path, "--set", "source=it's $HOME")
    result = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


def test_the_jobset_has_a_pod_per_host_and_restarts_when_preempted(tmp_path):
    job = yaml.safe_load(job_file("gke", tmp_path).read_text())
    assert (job["apiVersion"], job["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert job["spec"]["failurePolicy"]["maxRestarts"] > 0
    name = "a" * 100
    assert len(launch.job(TOY, preset="small", image=name).name) <= launch.LONGEST_NAME
    spec = job["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert (spec["parallelism"], spec["completions"], spec["completionMode"]) == (4, 4, "Indexed")
    container = spec["template"]["spec"]["containers"][0]
    assert container["image"] == "image/relic:1"
    assert f"{job['metadata']['name']}-hosts-0-0.{job['metadata']['name']}:" in container["command"][2]
    assert "relic run" in container["command"][2]
    assert container["volumeMounts"][0]["mountPath"] == "/relic/runs"


def test_what_a_cluster_needs_is_asked_for(tmp_path, capsys):
    assert main(["launch", TOY, "--on", "gke", "--preset", "small", "--output", str(tmp_path / "job")]) == 2
    assert "--image" in capsys.readouterr().err
    assert not (tmp_path / "job").exists()


SCONTROL = """#!/bin/bash
[ $1 = requeue ] && echo "requeue $2" || echo 127.0.0.1
"""
SRUN = """#!/bin/bash
# Starts the command twice, as Slurm does on two nodes.
while [[ "$1" == --* ]]; do shift; done
export SLURM_NTASKS=2 SLURM_LOCALID=0
SLURM_PROCID=0 "$@" > "$LOGS/0" 2>&1 &
first=$!
SLURM_PROCID=1 "$@" > "$LOGS/1" 2>&1 &
wait $first; a=$?
wait $!; b=$?
exit $(( a > b ? a : b ))
"""


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A Slurm of one machine: returns the result of a job script and what its two processes said."""
    for name, text in {"srun": SRUN, "scontrol": SCONTROL}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setattr(launch, "PORT", free.getsockname()[1])
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_"))},
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "LOGS": str(tmp_path),
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_SUBMIT_DIR": str(ledger.ROOT),
        "JAX_PLATFORMS": "cpu",
    }

    def sbatch(*options: str) -> tuple[subprocess.CompletedProcess, list[str]]:
        script = job_file("slurm", tmp_path, "--relic", RELIC, *options)
        result = subprocess.run(["bash", str(script)], env=environment, capture_output=True, text=True, check=False)
        return result, [(tmp_path / name).read_text() for name in "01"]

    return sbatch


def test_a_slurm_job_of_two_processes_gives_the_numbers_of_one(cluster, tmp_path):
    options = ("--preset", "smoke", "--seeds", "1", "--set", "methods=adam")
    result, (first, second) = cluster(*options, "--workdir", str(tmp_path / "two"))
    assert result.returncode == 0, result.stderr + first + second
    assert main(["run", TOY, *options, "--workdir", str(tmp_path / "one")]) == 0
    one, two = (runs.read(tmp_path / name / "toy" / "smoke,methods=adam").records for name in ("one", "two"))
    assert [(r.metric, r.seed, r.coords) for r in one] == [(r.metric, r.seed, r.coords) for r in two]
    np.testing.assert_allclose([r.value for r in two], [r.value for r in one], rtol=1e-5)
    assert "A line through points" in first
    assert "A line through points" not in second  # only the first process writes
    assert (
        len(
            {r.provenance["cell"]["write"] for r in records.read(tmp_path / "two/toy/smoke,methods=adam/records.jsonl")}
        )
        == 1
    )
    assert two[0].provenance["device"].startswith("2 x")


def test_a_job_that_was_stopped_is_queued_again(tmp_path, monkeypatch):
    (tmp_path / "srun").write_text("#!/bin/bash\nexit 75\n")
    (tmp_path / "scontrol").write_text("#!/bin/bash\necho $@\n")
    for name in ("srun", "scontrol"):
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n"}
    script = job_file("slurm", tmp_path)
    result = subprocess.run(["bash", str(script)], env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 75
    assert "requeue 7" in result.stdout


REFUSED = {
    "unknown system": (["nosuch"], "no system 'nosuch'"),
    "planned system": (["diffkg"], "planned"),
    "path": (["../../dccf"], "no system"),
    "line end in the system": (["dccf\n#SBATCH --uid=0"], "line ends"),
    "unknown preset": ([TOY, "--preset", "papper"], "no preset 'papper'"),
    "bad seeds": ([TOY, "--seeds", "-1"], "--seeds"),
    "large seeds": ([TOY, "--seeds", "4294967296,"], "--seeds"),
    "unknown setting": ([TOY, "--set", "stepps=3"], "did you mean steps"),
    "bad setting": ([TOY, "--set", "steps=many"], "steps"),
    "line end in a setting": ([TOY, "--set", "source=a\nb"], "line ends"),
    "line end in a folder": ([TOY, "--workdir", "a\nb"], "line ends"),
    "no hosts": ([TOY, "--hosts", "0"], "hosts"),
    "fewer than no hosts": ([TOY, "--hosts", "-3"], "hosts"),
    "no hours": ([TOY, "--hours", "0"], "hours"),
    "very many hours": ([TOY, "--hours", "1000000"], "hours"),
    "line end in the accelerator": ([TOY, "--accelerator", "gpu:8\n#SBATCH --uid=0"], "accelerator"),
    "command in the accelerator": ([TOY, "--accelerator", "$(id)"], "accelerator"),
    "command in the zone": ([TOY, "--zone", "a;id"], "zone"),
    "command in the image": ([TOY, "--image", 'a"\n'], "image"),
    "command in the bucket": ([TOY, "--bucket", "a b"], "bucket"),
    "half a quotation": ([TOY, "--relic", "relic '"], "relic"),
}


@pytest.mark.parametrize("target", FILES)
@pytest.mark.parametrize("case", REFUSED)
def test_a_job_that_could_not_run_is_refused_and_nothing_is_written(case, target, tmp_path, capsys, monkeypatch):
    arguments, expected = REFUSED[case]
    monkeypatch.chdir(tmp_path)
    options = {"--preset": "small", **dict(zip(FILES[target][::2], FILES[target][1::2], strict=True))}
    options |= dict(zip(arguments[1::2], arguments[2::2], strict=True))
    words = [word for pair in options.items() for word in pair]
    assert main(["launch", arguments[0], "--on", target, *words]) == 2
    said = capsys.readouterr().err
    assert expected in said
    assert said.startswith("relic: ")
    assert not list(tmp_path.iterdir())


ODD = (
    "it's",
    "$HOME",
    "`id`",
    "a;id",
    '"',
    "a b",
    "$(id)",
    "#",
    "\\",
    "%x",
    "é",
    "${A}$$",
    "*",
    "<!--",
    "~",
    "-x",
    "--x",
)
RUN_HERE = {
    "srun": """#!/bin/bash
while [[ "$1" == --* ]]; do shift; done
exec "$@"
""",
    "scontrol": "#!/bin/bash\necho host\n",
    "gcloud": """#!/bin/bash
for word in "$@"; do case "$word" in --command=*timeout*) cd "$HOME"; bash -c "${word#--command=}";; esac; done
""",
    "git": "#!/bin/bash\n",
    "relic": f"#!/bin/bash\nexec {sys.executable} -c 'import json, sys; print(json.dumps(sys.argv[1:]))' \"$@\"\n",
}


@pytest.mark.parametrize("target", FILES)
def test_every_word_of_the_command_arrives_as_it_was_given(target, tmp_path):
    for name, text in RUN_HERE.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "relic").rename(tmp_path / "my relic")
    (tmp_path / "relic" / ".venv").mkdir(parents=True)
    options = [word for text in ODD for word in ("--set", f"source={text}")]
    workdir, relic = "it's $(id) ;x", shlex.join([str(tmp_path / "my relic")])
    script = job_file(target, tmp_path, *options, "--workdir", workdir, "--relic", relic)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": str(tmp_path), "SLURM_JOB_NODELIST": "n", "A": "1"}
    command = ["bash", str(script)]
    if target == "gke":
        [job] = yaml.safe_load(script.read_text())["spec"]["replicatedJobs"]
        command = job["template"]["spec"]["template"]["spec"]["containers"][0]["command"]
        command = [word.replace("$$(", "$(") for word in command]  # as Kubernetes does
    environment |= {"SLURM_NTASKS": "1", "SLURM_PROCID": "0", "JOB_COMPLETION_INDEX": "0", "SLURM_JOB_ID": "1"}
    result = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    arrived = json.loads(result.stdout)
    assert [w.removeprefix("source=") for w in arrived if w.startswith("source=")] == list(ODD)
    assert arrived[:6] == ["run", TOY, "--preset", "small", "--seeds", "3"]
    assert arrived[-3:] == ["--workdir", workdir, "--distributed"]


def test_job_files_use_no_names_in_tmp_that_others_can_foresee(tmp_path):
    assert not [
        target for target in FILES if "/tmp/" in job_file(target, tmp_path).read_text().replace(str(tmp_path), "")
    ]
