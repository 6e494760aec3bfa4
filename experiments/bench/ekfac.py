"""EK-FAC beside kronfluence: every stage and the whole, on one decoder with the same weights, data and batch size.

The decoder has pre-norm blocks with separate query, key, value and output maps and a GELU block of four times the
width; all linear maps with biases are covered on both sides, in float32 with eigendecompositions in float64, targets
from the data. Both sides' scores are compared before anything is timed. Each stage starts from the former one's result;
kronfluence also writes each result to disk, which it cannot be asked not to do.
"""

import dataclasses
import functools
import logging
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from core.bench import BenchResult, Timing, first_call, interleaved, peer_module, require_agreement
from core.learner import with_sampler
from core.loop import scan_steps
from interp import ekfac
from interp.likelihoods import Task, categorical

VOCABULARY = 256
BATCH = 32
MAPS = ("query", "key", "value", "output", "up", "down")


@dataclasses.dataclass(frozen=True)
class Size:
    """A decoder and its data."""

    name: str
    layers: int
    width: int
    heads: int
    length: int
    train: int
    queries: int
    repeats: int


SIZES = {
    "small": Size("2 blocks, d=64, T=64, 256 x 16", 2, 64, 4, 64, 256, 16, 3),
    "large": Size("4 blocks, d=256, T=128, 512 x 64", 4, 256, 8, 128, 512, 64, 1),
}
STAGES = ("covariances", "eigendecomposition", "eigenvalue correction", "pairwise scores", "self-influence")


def run() -> list[BenchResult]:
    """Every stage of both sizes, the whole, and peak memory."""
    return [result for size in SIZES.values() for result in compare(size)]


def compare(size: Size) -> list[BenchResult]:
    """One size."""
    ours, peer = Ours(size), Kronfluence(size)
    compile_s = [first_call(ours.stages[stage]) for stage in STAGES]
    for stage in STAGES:
        peer.stages[stage]()
    difference = np.abs(ours.scores() - peer.scores()).max() / np.abs(peer.scores()).max()
    require_agreement(difference, 1e-2, "scores, over the largest,")
    results, total = [], (Timing(0.0, 0.0), Timing(0.0, 0.0))
    for stage, compile_time in zip(STAGES, compile_s, strict=True):
        times = interleaved(ours.stages[stage], peer.stages[stage], repeats=size.repeats)
        total = total[0] + times[0], total[1] + times[1]
        note = f"{size.name}; scores agree to {difference:.0e}" if stage == STAGES[3] else size.name
        ours_s, peer_s = times
        extra = compile_time - ours_s.median
        results.append(BenchResult.of(f"EK-FAC {stage}", ours_s, peer.name, peer_s, extra, note))
    memory = peak_megabytes("ours", size), peak_megabytes("peer", size)
    note = f"{size.name}; peak memory {memory[0]:,.0f} against {memory[1]:,.0f} MB"
    extra = sum(compile_s) - total[0].median
    return [*results, BenchResult.of("EK-FAC end to end", total[0], peer.name, total[1], extra, note)]


def peak_megabytes(side: str, size: Size) -> float:
    """Peak resident memory of one side alone in a fresh process, beyond that of its imports and model."""
    names = [name for name, known in SIZES.items() if known == size]
    command = [sys.executable, "-m", "experiments.bench.ekfac", side, *names]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def tokens(size: Size) -> tuple[np.ndarray, np.ndarray]:
    """Random sequences, one token longer than the context: training set and queries."""
    rng = np.random.default_rng(0)
    train, queries = (
        rng.integers(0, VOCABULARY, (n, size.length + 1), dtype=np.int32) for n in (size.train, size.queries)
    )
    return train, queries


def parameters(size: Size) -> dict[str, Any]:
    """Weights of the decoder."""
    rng = np.random.default_rng(1)
    d = size.width
    shapes = dict.fromkeys(MAPS, (d, d)) | {"up": (d, 4 * d), "down": (4 * d, d)}

    def linear(shape):
        return {
            "kernel": rng.normal(size=shape).astype(np.float32) / shape[0] ** 0.5,
            "bias": 0.1 * rng.normal(size=shape[1]).astype(np.float32),
        }

    return {
        "tokens": rng.normal(size=(VOCABULARY, d)).astype(np.float32),
        "positions": 0.1 * rng.normal(size=(size.length, d)).astype(np.float32),
        "layers": [{name: linear(shape) for name, shape in shapes.items()} for _ in range(size.layers)],
        "head": linear((d, VOCABULARY)),
    }


def decoder(size: Size, params: dict[str, Any], sequence: jax.Array) -> jax.Array:
    """Logits [T, V] of one sequence."""
    causal = jnp.tril(jnp.ones((size.length, size.length), bool))

    def normed(h):
        centred = h - h.mean(-1, keepdims=True)
        return centred * jax.lax.rsqrt(jnp.mean(centred**2, -1, keepdims=True) + 1e-5)

    def linear(p, x):
        return x @ p["kernel"] + p["bias"]

    def heads(x):
        return x.reshape(size.length, size.heads, -1)

    def block(h, p):
        x = normed(h)
        q, k, v = (heads(linear(p[name], x)) for name in ("query", "key", "value"))
        weights = jnp.einsum("thd,shd->hts", q, k) / q.shape[-1] ** 0.5
        mixed = jnp.einsum("hts,shd->thd", jax.nn.softmax(jnp.where(causal, weights, -1e30)), v)
        h = h + linear(p["output"], mixed.reshape(h.shape))
        return h + linear(p["down"], jax.nn.gelu(linear(p["up"], normed(h))))

    h = params["tokens"][sequence[:-1]] + params["positions"]
    for p in params["layers"]:
        h = block(h, p)
    return linear(params["head"], normed(h))


class Ours:
    """The stages as compiled functions."""

    def __init__(self, size: Size):
        train, queries = (jnp.asarray(x) for x in tokens(size))
        params = jax.tree.map(jnp.asarray, parameters(size))
        task = Task(functools.partial(decoder, size), categorical(lambda sequence: sequence[1:]))
        where = "layers|head"
        found = ekfac.capture(task.outputs, params, train[0], where)
        measured = ekfac.capture(task.loss, params, queries[0], where)
        fisher = ekfac.empirical()
        cover = self._passes(ekfac.covariance(found, task, fisher), train)
        self.correct = self._passes(ekfac.eigenvalue_correction(found, task, fisher), train)
        self.found, self.params = found, params
        self._results: dict[str, Any] = {}

        @jax.jit
        def pairwise(params, damped, queries, train):
            gradients = ekfac.gradient_matrices(measured, params, queries, BATCH)
            prepared = ekfac.precondition(damped, gradients)
            return ekfac.in_batches(lambda b: ekfac.pairwise(found, task, params, prepared, b), train, BATCH)

        @jax.jit
        def own(params, damped, train):
            return ekfac.in_batches(lambda b: ekfac.self_scores(found, task, params, damped, b), train, BATCH)

        self.stages: dict[str, Callable[[], Any]] = {
            STAGES[0]: self._kept("covariances", lambda: cover(params)),
            STAGES[1]: self._kept(
                "basis", lambda: ekfac.eigenbasis(found, self._results["covariances"], "per_position")
            ),
            STAGES[2]: self._kept("damped", self._damped),
            STAGES[3]: self._kept("scores", lambda: pairwise(params, self._results["damped"], queries, train)),
            STAGES[4]: self._kept("own", lambda: own(params, self._results["damped"], train)),
        }

    def _damped(self):
        basis = self._results["basis"]
        return ekfac.damp(ekfac.corrected(self.found, basis, self.correct((self.params, basis))), ekfac.heuristic())

    def _passes(self, stage, train) -> Callable[[Any], Any]:
        learner = with_sampler(stage, ekfac.sweep(BATCH))
        steps = -(-len(train) // BATCH)

        @jax.jit
        def collect(params, train):
            data = ekfac.whole(params, train)
            return scan_steps(learner, steps).update(learner.init(jax.random.key(0), data), data)[0]

        return lambda params: collect(params, train)

    def _kept(self, name: str, fn: Callable[[], Any]) -> Callable[[], Any]:
        def stage():
            self._results[name] = jax.block_until_ready(fn())
            return self._results[name]

        return stage

    def scores(self) -> np.ndarray:
        """Pairwise scores."""
        return np.asarray(self._results["scores"])


class Kronfluence:
    """The same in PyTorch."""

    def __init__(self, size: Size):
        torch, kronfluence = peer_module("torch"), peer_module("kronfluence")
        logging.getLogger("kronfluence").setLevel(logging.ERROR)
        self.name = f"kronfluence {kronfluence.__version__}, PyTorch {torch.__version__}"
        arguments = peer_module("kronfluence.arguments")
        analyzer = peer_module("kronfluence.analyzer")
        train, queries = (torch.utils.data.TensorDataset(torch.from_numpy(x).long()) for x in tokens(size))
        task = _torch_task(torch)
        model = analyzer.prepare_model(_torch_decoder(torch, size), task)
        self._folder = tempfile.TemporaryDirectory()
        self._analyzer = analyzer.Analyzer(
            "bench", model, task, cpu=True, disable_tqdm=True, output_dir=self._folder.name, log_level=logging.ERROR
        )
        factors = arguments.FactorArguments(strategy="ekfac", use_empirical_fisher=True)
        score = arguments.ScoreArguments(damping_factor=None)
        of_factors = {"factors_name": "f", "overwrite_output_dir": True, "factor_args": factors}
        on_train = {**of_factors, "dataset": train, "per_device_batch_size": BATCH}
        of_scores = {"factors_name": "f", "scores_name": "s", "score_args": score, "overwrite_output_dir": True}
        a = self._analyzer
        self.stages: dict[str, Callable[[], Any]] = {
            STAGES[0]: lambda: a.fit_covariance_matrices(**on_train),
            STAGES[1]: lambda: a.perform_eigendecomposition(**of_factors),
            STAGES[2]: lambda: a.fit_lambda_matrices(**on_train),
            STAGES[3]: lambda: a.compute_pairwise_scores(
                **of_scores,
                query_dataset=queries,
                train_dataset=train,
                per_device_query_batch_size=min(size.queries, BATCH),
                per_device_train_batch_size=BATCH,
            ),
            STAGES[4]: lambda: a.compute_self_scores(
                **{**of_scores, "scores_name": "own"}, train_dataset=train, per_device_train_batch_size=BATCH
            ),
        }

    def scores(self) -> np.ndarray:
        """Pairwise scores."""
        return self._analyzer.load_pairwise_scores("s")["all_modules"].float().numpy()


def _torch_decoder(torch: Any, size: Size) -> Any:
    nn, params = torch.nn, parameters(size)

    def linear(p):
        kernel, bias = p["kernel"], p["bias"]
        module = nn.Linear(*kernel.shape)
        module.weight.data, module.bias.data = torch.from_numpy(kernel.T.copy()), torch.from_numpy(bias.copy())
        return module

    def normed(h):
        return nn.functional.layer_norm(h, h.shape[-1:])

    class Block(nn.Module):
        def __init__(self, p):
            super().__init__()
            for name in MAPS:
                setattr(self, name, linear(p[name]))

        def forward(self, h):
            x = normed(h)
            q, k, v = (m(x).unflatten(-1, (size.heads, -1)).transpose(1, 2) for m in (self.query, self.key, self.value))
            mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            h = h + self.output(mixed.transpose(1, 2).flatten(2))
            return h + self.down(nn.functional.gelu(self.up(normed(h)), approximate="tanh"))

    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("tokens", torch.from_numpy(params["tokens"]))
            self.register_buffer("positions", torch.from_numpy(params["positions"]))
            self.blocks = nn.ModuleList([Block(p) for p in params["layers"]])
            self.head = linear(params["head"])

        def forward(self, sequence):
            h = self.tokens[sequence] + self.positions
            h.requires_grad_(True)
            for block in self.blocks:
                h = block(h)
            return self.head(normed(h))

    return Decoder()


def _torch_task(torch: Any) -> Any:
    base = peer_module("kronfluence.task").Task

    class LanguageModelling(base):
        def compute_train_loss(self, batch, model, sample=False):
            (sequence,) = batch
            logits = model(sequence[:, :-1])
            return torch.nn.functional.cross_entropy(logits.flatten(0, 1), sequence[:, 1:].flatten(), reduction="sum")

        def compute_measurement(self, batch, model):
            return self.compute_train_loss(batch, model)

    return LanguageModelling()


def _main(side: str, size: str) -> None:
    """Prints the memory that all stages of one side add to that of its start, in MB."""
    chosen = (Ours if side == "ours" else Kronfluence)(SIZES[size])
    before = _peak_megabytes()
    for stage in STAGES:
        chosen.stages[stage]()
    sys.stdout.write(f"{_peak_megabytes() - before}\n")


def _peak_megabytes() -> float:
    """Of this program alone: what getrusage says counts the parent's too."""
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), float("nan"))


if __name__ == "__main__":
    _main(*sys.argv[1:])
