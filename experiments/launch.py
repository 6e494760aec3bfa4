"""Job files for clusters: TPU VM pods, Slurm and Kubernetes run the same ``relic run`` on every host."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Literal, NamedTuple

from core.errors import ConfigError
from core.fit import EXIT_PREEMPTED
from experiments import runs

Target = Literal["tpu-vm", "slurm", "gke"]
PORT = 8476
"""Where process 0 listens for the others."""


class Job(NamedTuple):
    """A run on a cluster."""

    name: str
    command: str
    """See :func:`run_command`."""
    hosts: int
    hours: int
    accelerator: str
    zone: str
    image: str
    bucket: str
    workdir: Path


def run_command(
    slug: str,
    preset: str,
    seeds: str,
    settings: Sequence[str],
    workdir: Path,
    data_dir: Path | None,
    *,
    relic: str = "relic",
    distributed: bool = False,
) -> str:
    """The command line of a run, quoted for the shell.

    Args:
      slug: and the following, as in ``relic run``.
      preset: size.
      seeds: count or list.
      settings: changes, ``key=value``.
      workdir: folder of all runs.
      data_dir: where raw data lie.
      relic: how relic is called; not quoted, so that it may be several words.
      distributed: whether the processes of a cluster are to be joined.
    """
    words = [slug, "--preset", preset, "--seeds", seeds]
    for assignment in settings:
        words += ["--set", assignment]
    words += ["--workdir", str(workdir)]
    words += ["--data-dir", str(data_dir)] if data_dir else []
    return f"{relic} run {shlex.join(words)}{' --distributed' if distributed else ''}"


def write_job(target: Target, job: Job, output: Path | None = None) -> tuple[Path, str]:
    """Writes a job file; returns its path and the command that submits it.

    Raises:
      ConfigError: where something that this kind of cluster needs is missing.
    """
    render, suffix, submit = TARGETS[target]
    path = output or job.workdir / "launch" / f"{job.name}{suffix}"
    runs.write(path, render(job))
    return path, f"{submit} {shlex.quote(str(path))}"


def slurm(job: Job) -> str:
    """A script for sbatch; runs that were preempted are queued again."""
    options = f"#SBATCH --gres={job.accelerator}\n" if job.accelerator else ""
    return Template(SLURM).substitute(
        name=job.name,
        hosts=job.hosts,
        hours=job.hours,
        options=options,
        port=PORT,
        preempted=EXIT_PREEMPTED,
        command=job.command.replace("'", "'\\''"),
    )


SLURM = """\
#!/bin/bash
#SBATCH --job-name=$name
#SBATCH --nodes=$hosts
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --time=$hours:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@120
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
$options
# One process per node, joined through these variables; process 0 writes the records.
# Two minutes before the time limit every process gets SIGTERM, saves, and the job is queued again.
set -uo pipefail
cd "$${SLURM_SUBMIT_DIR:-.}"
first=$$(scontrol show hostnames "$$SLURM_JOB_NODELIST" | head -n 1)
export JAX_COORDINATOR_ADDRESS="$$first:$port"

srun --kill-on-bad-exit=0 bash -c '
  export JAX_NUM_PROCESSES=$$SLURM_NTASKS JAX_PROCESS_ID=$$SLURM_PROCID
  exec $command'
status=$$?
if [ "$$status" -eq $preempted ]; then
  echo "stopped and saved; queued again"
  scontrol requeue "$$SLURM_JOB_ID"
fi
exit "$$status"
"""


def tpu_vm(job: Job) -> str:
    """A script which creates a TPU VM pod, installs relic on it, runs, fetches the runs and deletes the pod."""
    if not job.accelerator:
        raise ConfigError("a TPU VM pod needs --accelerator, such as v5litepod-16")
    return Template(TPU_VM).substitute(
        name=job.name,
        accelerator=shlex.quote(job.accelerator),
        zone=shlex.quote(job.zone),
        seconds=job.hours * 3600,
        bucket=shlex.quote(job.bucket),
        workdir=shlex.quote(str(job.workdir)),
        command=job.command.replace("'", "'\\''"),
    )


TPU_VM = """\
#!/bin/bash
# Run this from the project's root on a machine with gcloud. Run it again after a preemption: training goes on where it
# stopped if the working folder is a bucket. A pod of several hosts needs one, as they write their checkpoints together.
set -euo pipefail
NAME=$name ZONE=$zone BUCKET=$bucket RUNS=$workdir
tpu() { gcloud compute tpus tpu-vm "$$@" --zone="$$ZONE"; }

tpu describe "$$NAME" >/dev/null 2>&1 ||
  tpu create "$$NAME" --accelerator-type=$accelerator --version=tpu-ubuntu2204-base --spot
trap 'tpu delete "$$NAME" --quiet' EXIT

git archive --format=tar.gz --output=/tmp/relic.tar.gz HEAD
tpu scp /tmp/relic.tar.gz "$$NAME":/tmp/ --worker=all
tpu ssh "$$NAME" --worker=all --command='
  mkdir -p ~/relic && tar -xzf /tmp/relic.tar.gz -C ~/relic && cd ~/relic &&
  python3 -m venv .venv && .venv/bin/pip install --quiet --constraint requirements.lock -e ".[tpu]"'
if [ -n "$$BUCKET" ]; then
  tpu ssh "$$NAME" --worker=all --command="mkdir -p ~/relic/$$RUNS && gcsfuse --implicit-dirs $$BUCKET ~/relic/$$RUNS"
fi

# The same command on every host; JAX finds the hosts of a pod and their order by itself.
tpu ssh "$$NAME" --worker=all --command='
  cd ~/relic && export PATH="$$PWD/.venv/bin:$$PATH" &&
  timeout --signal=TERM --kill-after=300 $seconds $command'
tpu scp --recurse "$$NAME":"~/relic/$$RUNS" . --worker=0
"""


def gke(job: Job) -> str:
    """A JobSet: one pod per host, restarted when preempted."""
    kind, slash, topology = job.accelerator.partition("/")
    if not slash or not job.image:
        raise ConfigError(
            "GKE needs --accelerator TYPE/TOPOLOGY, such as tpu-v5-lite-podslice/4x4, and --image with relic installed"
        )
    return Template(JOBSET).substitute(
        name=job.name.replace("_", "-").replace(".", "-").lower(),
        hosts=job.hosts,
        kind=kind,
        topology=topology,
        image=job.image,
        seconds=job.hours * 3600,
        preempted=EXIT_PREEMPTED,
        command=job.command,
        port=PORT,
        mount=Path("/relic", job.workdir),
    )


JOBSET = """\
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: $name
  annotations:
    alpha.jobset.sigs.k8s.io/exclusive-topology: cloud.google.com/gke-nodepool
spec:
  failurePolicy:
    maxRestarts: 20
    rules:
    - action: FailJobSet
      onJobFailureReasons: [PodFailurePolicy]
  replicatedJobs:
  - name: hosts
    replicas: 1
    template:
      spec:
        parallelism: $hosts
        completions: $hosts
        completionMode: Indexed
        backoffLimit: 0
        activeDeadlineSeconds: $seconds
        podFailurePolicy:
          rules:
          - action: FailJob  # an error that a restart would only repeat
            onExitCodes:
              containerName: relic
              operator: In
              values: [2]
        template:
          spec:
            restartPolicy: Never
            terminationGracePeriodSeconds: 120  # SIGTERM: relic saves, exits with $preempted and is started again
            nodeSelector:
              cloud.google.com/gke-tpu-accelerator: $kind
              cloud.google.com/gke-tpu-topology: $topology
            containers:
            - name: relic
              image: $image
              workingDir: /relic
              command:
              - bash
              - -c
              - |
                export JAX_COORDINATOR_ADDRESS="$name-hosts-0-0.$name:$port"
                export JAX_NUM_PROCESSES=$hosts JAX_PROCESS_ID="$$JOB_COMPLETION_INDEX"
                exec $command
              ports:
              - containerPort: $port
              resources:
                limits:
                  google.com/tpu: 4
              volumeMounts:
              - name: runs
                mountPath: $mount
            volumes:
            - name: runs
              persistentVolumeClaim:
                claimName: relic-runs
"""

TARGETS = {
    "tpu-vm": (tpu_vm, ".sh", "bash"),
    "slurm": (slurm, ".sbatch", "sbatch"),
    "gke": (gke, ".yaml", "kubectl apply -f"),
}
