"""Job files for clusters: TPU VM pods, Slurm and Kubernetes run the same ``relic run`` on every host."""

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Annotated, Any, Literal, NamedTuple

from core.checks import checked
from core.errors import ConfigError
from core.fit import EXIT_PREEMPTED
from core.kinds import Range
from experiments.lab import registry, runner, runs, settings

Target = Literal["tpu-vm", "slurm", "gke"]
PORT = 8476
"""Where process 0 listens for the others."""
TEMPLATES = Path(__file__).with_name("templates") / "launch"
LONGEST_NAME = 40
"""Characters of a job's name: Kubernetes adds to it, and takes no more than 63."""


class Job(NamedTuple):
    """A run on a cluster; see :func:`job`."""

    name: str
    """A label: letters, digits and ``-``."""
    command: str
    """See :func:`run_command`."""
    hosts: int
    hours: int
    accelerator: str
    zone: str
    image: str
    bucket: str
    workdir: Path


@checked
def job(
    slug: str,
    *,
    preset: str = "paper",
    seeds: str = "3",
    assignments: Sequence[str] = (),
    workdir: Path = Path("runs"),
    data_dir: Path | None = None,
    hosts: Annotated[int, Range(1, 100_000)] = 2,
    hours: Annotated[int, Range(1, 10_000)] = 12,
    accelerator: str = "",
    zone: str = "us-central1-a",
    image: str = "",
    bucket: str = "",
    relic: str = "relic",
) -> Job:
    """A job whose every part was checked as ``relic run`` checks it.

    Args:
      slug: and the following five, as in ``relic run``.
      preset: size.
      seeds: count or list.
      assignments: changes, ``key=value``.
      workdir: folder of all runs.
      data_dir: where raw data lie.
      hosts: number of processes.
      hours: time limit.
      accelerator: type of TPU, Slurm's ``--gres``, or GKE's accelerator/topology.
      zone: of a TPU VM.
      image: container image for GKE.
      bucket: Cloud Storage bucket of TPU VMs.
      relic: how relic is called, one or several words.

    Raises:
      ConfigError: for the first part that cannot be used.
    """
    texts = {"slug": slug, "preset": preset, "seeds": seeds, "workdir": str(workdir), "data_dir": str(data_dir or "")}
    texts |= {f"set {i}": text for i, text in enumerate(assignments)} | {"relic": relic}
    for name, text in texts.items():
        if not text.isprintable():
            raise ConfigError(f"{name} must have no line ends and no control characters in a job file, not {text!r}")
    allowed = {"accelerator": r"[\w.:,/=-]*", "zone": r"[a-z0-9-]+", "image": r"[\w.:/@-]*", "bucket": r"[a-z0-9._-]*"}
    for name, text in {"accelerator": accelerator, "zone": zone, "image": image, "bucket": bucket}.items():
        if not re.fullmatch(allowed[name], text, re.ASCII):
            raise ConfigError(f"{name} must be a name (characters {allowed[name][:-1]}), not {text!r}")
    found = registry.load(slug)
    runner.configured(found.system, preset, assignments)
    settings.seeds(seeds)
    label = re.sub(r"[^a-z0-9]+", "-", f"relic-{found.system.slug}-{preset}".lower())[:LONGEST_NAME].strip("-")
    command = run_command(slug, preset, seeds, assignments, workdir, data_dir, relic=relic, distributed=True)
    return Job(label, command, hosts, hours, accelerator, zone, image, bucket, workdir)


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
      relic: how relic is called, one or several words.
      distributed: whether the processes of a cluster are to be joined.

    Raises:
      ConfigError: where ``relic`` has a quotation mark without its partner.
    """
    try:
        words = [*shlex.split(relic), "run", slug, "--preset", preset, "--seeds", seeds]
    except ValueError as error:
        raise ConfigError(f"relic must be words of a command line, not {relic!r}: {error}") from error
    for assignment in settings:
        words += ["--set", assignment]
    words += ["--workdir", str(workdir)]
    words += ["--data-dir", str(data_dir)] if data_dir else []
    words += ["--distributed"] if distributed else []
    return shlex.join(words)


def write_job(target: Target, job: Job, output: Path | None = None) -> tuple[Path, str]:
    """Writes a job file; returns its path and the command that submits it.

    Raises:
      ConfigError: where something that this kind of cluster needs is missing, or the file cannot be written.
    """
    render, suffix, submit = TARGETS[target]
    path = output or job.workdir / "launch" / f"{job.name}{suffix}"
    runs.write(path, render(job), job.workdir if output is None else None)
    return path, f"{submit} {shlex.quote(str(path))}"


def slurm(job: Job) -> str:
    """A script for sbatch; runs that were preempted are queued again."""
    options = f"#SBATCH --gres={job.accelerator}\n" if job.accelerator else ""
    process = f"export JAX_NUM_PROCESSES=$SLURM_NTASKS JAX_PROCESS_ID=$SLURM_PROCID\nexec {job.command}"  # of each node
    return _filled(
        "slurm.sbatch",
        name=job.name,
        hosts=job.hosts,
        hours=job.hours,
        options=options,
        port=PORT,
        preempted=EXIT_PREEMPTED,
        process=shlex.quote(process),
    )


def tpu_vm(job: Job) -> str:
    """A script which creates a TPU VM pod, installs relic on it, runs, fetches the runs and deletes the pod."""
    if not job.accelerator:
        raise ConfigError("a TPU VM pod needs --accelerator, such as v5litepod-16")
    runs_there = shlex.quote(f"relic/{job.workdir}")  # from the home folder, where ssh begins
    seconds = job.hours * 3600
    return _filled(
        "tpu_vm.sh",
        name=job.name,
        accelerator=shlex.quote(job.accelerator),
        zone=shlex.quote(job.zone),
        bucket=shlex.quote(job.bucket),
        mount=shlex.quote(f"mkdir -p {runs_there} && gcsfuse --implicit-dirs {shlex.quote(job.bucket)} {runs_there}"),
        install=shlex.quote(_template("install.sh").rstrip("\n")),
        run=shlex.quote(
            f'cd relic && export PATH="$PWD/.venv/bin:$PATH" &&\n'
            f"timeout --signal=TERM --kill-after=300 {seconds} {job.command}"
        ),
        runs=shlex.quote(f":{runs_there}"),
    )


def gke(job: Job) -> str:
    """A JobSet: one pod per host, restarted when preempted."""
    kind, slash, topology = job.accelerator.partition("/")
    if not slash or not job.image:
        raise ConfigError(
            "GKE needs --accelerator TYPE/TOPOLOGY, such as tpu-v5-lite-podslice/4x4, and --image with relic installed"
        )
    return _filled(
        "jobset.yaml",
        name=job.name,
        hosts=job.hosts,
        kind=json.dumps(kind),
        topology=json.dumps(topology),
        image=json.dumps(job.image),
        seconds=job.hours * 3600,
        preempted=EXIT_PREEMPTED,
        command=job.command.replace("$(", "$$("),  # Kubernetes would put in a variable's value
        port=PORT,
        mount=json.dumps(str(Path("/relic", job.workdir))),
    )


TARGETS = {
    "tpu-vm": (tpu_vm, ".sh", "bash"),
    "slurm": (slurm, ".sbatch", "sbatch"),
    "gke": (gke, ".yaml", "kubectl apply -f"),
}


def _template(name: str) -> str:
    return (TEMPLATES / f"{name}.txt").read_text(encoding="utf-8")


def _filled(name: str, /, **words: Any) -> str:
    return Template(_template(name)).substitute(words)
