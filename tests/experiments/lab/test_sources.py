"""A digest of source changes when, and only when, what Python does may change."""

import ast
import time
from pathlib import Path

import pytest

from core import safetensors
from core.datasets import observed
from core.errors import DataError
from core.lm import config, loading, tokenizers
from experiments.lab import registry, sources
from experiments.lab.system import ShownByTest

PAPER = '''
"""A paper."""
import dataclasses
from typing import TYPE_CHECKING
from mylab import claims
from mylab.method import trained
from . import beside
if TYPE_CHECKING:
    from mylab import typed

@dataclasses.dataclass
class Config:
    """Settings."""
    steps: int = 3
    """Of training."""

RATE = 0.1

def run(config, context):
    """Runs."""
    from mylab import late
    return helper(config)

def helper(config):
    return trained(config, RATE)

def figures(frame):
    return claims.judge(frame)

SYSTEM = (run, figures)
'''
FILES = {
    "__init__": "",
    "paper": PAPER,
    "method": "import numpy\nfrom mylab.deep import mean\ndef trained(config, rate):\n    return mean(rate)\n",
    "deep/__init__": "from .inner import mean\n",
    "deep/inner": "def mean(x):\n    return x\n",
    "claims": "def judge(frame):\n    return True\n",
    "beside": "x = 1\n",
    "late": "y = 1\n",
    "typed": "z = 1\n",
}
ENTRIES = ["mylab.paper:run", "mylab.paper:Config"]
COUNTED = {"mylab.paper", "mylab.method", "mylab.deep", "mylab.deep.inner", "mylab.late"}


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """Writes files of a package that may be imported; gives the digests that its system depends on."""
    monkeypatch.setattr(sources, "_root", lambda top: tmp_path if top == "mylab" else sources.ROOT)

    def written(**changes: str) -> dict[str, str]:
        for name, text in {**FILES, **{k.replace("__", "/"): v for k, v in changes.items() if k != "__init__"}}.items():
            path = tmp_path / "mylab" / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists() or path.read_text() != text:
                path.write_text(text)
        return sources.of_run(ENTRIES)

    return written


def test_what_run_needs_counts_and_nothing_else(lab):
    assert set(lab()) == COUNTED


SAME = {
    "comment": {"method": FILES["method"] + "# a remark\n"},
    "docstring": {"method": FILES["method"].replace(":\n", ':\n    """What it does."""\n')},
    "formatting": {"method": FILES["method"].replace("config, rate", "config,\n        rate,\n    ")},
    "text under a field": {"paper": PAPER.replace("Of training.", "Of all training.")},
    "figures": {"paper": PAPER.replace("claims.judge(frame)", "None")},
    "claims": {"claims": "def judge(frame):\n    return False\n"},
    "a module beside": {"beside": "x = 2\n"},
    "types": {"typed": "z = 2\n"},
}
OTHER = {
    "method": ({"method": FILES["method"].replace("mean(rate)", "-mean(rate)")}, "mylab.method"),
    "deep": ({"deep__inner": "def mean(x):\n    return 2 * x\n"}, "mylab.deep.inner"),
    "import inside a function": ({"late": "y = 2\n"}, "mylab.late"),
    "constant": ({"paper": PAPER.replace("0.1", "0.2")}, "mylab.paper"),
    "helper": ({"paper": PAPER.replace("trained(config", "trained(None")}, "mylab.paper"),
    "method of a configuration": ({"paper": PAPER.replace("steps: int = 3", "steps: int = 4")}, "mylab.paper"),
    "on import": ({"paper": PAPER + "\nprint('x')\n"}, "mylab.paper"),
}


@pytest.mark.parametrize("case", SAME)
def test_a_change_of_words_or_of_figures_is_none(case, lab):
    before = lab()
    assert lab(**SAME[case]) == before


@pytest.mark.parametrize("case", OTHER)
def test_a_change_of_what_is_computed_is_named(case, lab):
    before, (change, module) = lab(), OTHER[case]
    assert sources.different(before, lab(**change)) == [module]


def test_a_native_kernel_belongs_to_the_module_that_names_it(tmp_path):
    (tmp_path / "kernel.c").write_text("int f() { return 1; }")
    (tmp_path / "test_x.py").write_text("SOURCE = 'kernel.c'\n")
    before = sources.of_test("test_x.py", tmp_path)
    (tmp_path / "kernel.c").write_text("int f() { return 2; }")
    sources._part.cache_clear()
    assert sources.of_test("test_x.py", tmp_path) != before


def test_the_tests_around_count(tmp_path):
    (tmp_path / "tests").mkdir()
    for name in ("conftest", "tests/__init__", "tests/conftest", "tests/shared", "tests/test_x"):
        (tmp_path / f"{name}.py").write_text("from tests import shared\n")
    assert set(sources.of_test("tests/test_x.py", tmp_path)) == {
        "conftest", "tests", "tests.conftest", "tests.shared", "tests.test_x",
    }  # fmt: skip


@pytest.mark.parametrize("slug", list(registry.available()))
def test_the_code_of_every_system_is_followed(slug):
    found = registry.load(slug)
    system = found.system
    entries = sources.entries_of(system.plan, system.config_type, found.module)
    start = time.process_time()
    modules = sources.of_run(entries)
    assert time.process_time() - start < 2
    assert all(entry.partition(":")[0] in modules for entry in entries)
    assert any(name.partition(".")[0] in ("rec", "latent", "causal", "interp") for name in modules)
    assert not modules.keys() & sources.NOTING
    assert {name for name in modules if name.startswith(sources.LAB)} <= sources.MEASURING
    assert not [name for name in modules if name.endswith("claims")]
    for claim in system.claims:
        if isinstance(claim.evidence, ShownByTest):
            path = claim.evidence.nodeid.partition("::")[0]
            assert ".".join(Path(path).with_suffix("").parts) in sources.of_test(path, sources.ROOT)


def test_the_framework_that_is_left_out_is_there():
    assert all(sources._file(module, (sources.ROOT,)) for module in sources.NOTING | sources.MEASURING)


OPENERS = {"open", "read_bytes", "read_text", "read_csv", "read_table"}
OWN_FILES = {
    "core.bench", "core.compilation", "core.history", "core.manifests", "core.sparse.native", "core.workdir",
    "experiments.bench.ekfac",
}  # fmt: skip
"""They open what a run has written itself, sources, or what the system tells of the machine."""
NOTING = {"core.lm.config", "core.lm.loading", "core.lm.tokenizers", "core.safetensors"}
"""They note what they open, see the next test."""


def test_no_system_reads_files_but_through_the_door():
    reached = {m for slug in registry.available() for m in sources.of_run(_entries(slug))} - OWN_FILES - NOTING
    opened = {
        f"{module}: {name}"
        for module in reached
        if not module.startswith("core.datasets.")  # tests/core/test_observed.py asks those
        for node in ast.walk(ast.parse(sources._file(module, (sources.ROOT,)).read_text()))
        if isinstance(node, ast.Call) and (name := getattr(node.func, "attr", getattr(node.func, "id", ""))) in OPENERS
    }
    assert not opened


def _entries(slug: str) -> list[str]:
    found = registry.load(slug)
    return sources.entries_of(found.system.plan, found.system.config_type, found.module)


def test_files_of_language_models_and_dictionaries_are_noted(tmp_path):
    (tmp_path / "m.safetensors").write_bytes(b"")
    for read, names in (
        (config.read_config, {"config.json"}),
        (tokenizers.FileTokenizer, {"tokenizer.json"}),
        (lambda folder: list(loading._tensors(folder)), {"model.safetensors.index.json", "model.safetensors"}),
        (safetensors.load_folder, {"m.safetensors", "cfg.json"}),
    ):
        with observed.observing(tmp_path) as files, pytest.raises(DataError):
            read(tmp_path)
        assert set(files) == names


def test_every_training_of_an_experiment_has_a_folder_to_resume_from():
    missing = []
    for path in sorted((sources.ROOT / "experiments").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "fit" and path.parent.name != "bench":
                given = {keyword.arg for keyword in node.keywords}
                if not given & {"workdir", None}:  # None: **options
                    missing.append(path.stem)
    assert not missing


@pytest.mark.parametrize("slug", list(registry.available()))
def test_no_figure_claim_or_style_counts_as_code_of_a_run(slug):
    found = registry.load(slug)
    modules = sources.of_run(sources.entries_of(found.system.plan, found.system.config_type, found.module))
    shown = {"figures", "claims", "style"}
    assert not [module for module in modules if module.rpartition(".")[2].rpartition("_")[2] in shown]
