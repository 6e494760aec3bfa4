"""Effects on IHDP: TARNet and TNet beside CATENets, and beside EconML's causal forest.

CATENets compiles anew in every fit, so that its time is that of a fit less that of one epoch; ours is the time of the
compiled program. Both have the same layers (3 x 200 shared, 2 x 100 per arm, elu), Adam, penalty, batch size and number
of steps; root PEHE on the same held-out people is in the notes. Without the data set a simulation of its size is used.
"""

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from causal import treatment_effects as te
from core.batches import epoch_sampler
from core.bench import BenchResult, Timing, first_call, peer_module
from core.datasets import ihdp
from core.learner import with_sampler
from core.loop import scan_steps

EPOCHS, BATCH, RATE, PENALTY = 143, 100, 1e-3, 1e-4
REPLICATIONS = 3


class Problem(NamedTuple):
    """Training people, test inputs and their true effects."""

    x: np.ndarray
    t: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    effect: np.ndarray

    def error(self, estimate: Any) -> float:
        """Root PEHE."""
        return float(np.sqrt(np.mean((np.asarray(estimate).ravel() - self.effect) ** 2)))


def run() -> list[BenchResult]:
    """Both networks and the forest."""
    problems = load()
    networks = [against_catenets(problems, name) for name in ("TARNet", "TNet")]
    return [*networks, against_forest(problems)]


def load() -> list[Problem]:
    """The first replications, standardised; people of a simulation where the data are not here."""
    if ihdp.locate() is None:
        return [simulated(seed) for seed in range(REPLICATIONS)]
    found = []
    for r, replication in enumerate(ihdp.load()[:REPLICATIONS]):
        train, test = ihdp.split(r, len(replication.x))
        x = (replication.x - replication.x[train].mean(0)) / np.maximum(replication.x[train].std(0), 1e-6)
        found.append(Problem(x[train], replication.t[train], replication.y[train], x[test], replication.effect[test]))
    return found


def simulated(seed: int) -> Problem:
    """A problem of IHDP's size."""
    rng = np.random.default_rng(seed)
    x, t = rng.normal(size=(747, 25)).astype(np.float32), (rng.uniform(size=747) < 0.2) * 1
    effect = 4 + x[:, 0]
    y = np.tanh(x[:, 1]) + t * effect + rng.normal(size=747)
    return Problem(x[:672], t[:672], y[:672], x[672:], effect[672:])


def network(name: str) -> nn.Module:
    """CATENets' architecture."""
    shared, arm = functools.partial(te.Mlp, (200, 200, 200)), functools.partial(te.Mlp, (100, 100))
    return te.TarNet(shared, arm) if name == "TARNet" else te.TNet(functools.partial(te.Mlp, (200,) * 3 + (100,) * 2))


class Fitted(NamedTuple):
    """Mean error over replications, seconds of one fit, and seconds of compiling it."""

    error: float
    seconds: Timing
    compile_s: float


def ours(problems: list[Problem], name: str, penalty: float = PENALTY) -> Fitted:
    """A fit as one program, and the effects at the test inputs."""
    module, steps = network(name), EPOCHS * round(len(problems[0].x) / BATCH)
    tx = optax.chain(optax.add_decayed_weights(penalty), optax.adam(RATE))
    learner = with_sampler(te.outcome_learner(module, tx), epoch_sampler(BATCH))

    @jax.jit
    def fit(key, units, x):
        state = scan_steps(learner, steps).update(learner.init(key, units), units)[0]
        outcomes: Any = module.apply(state.params, x)
        return te.effect_of(outcomes)

    errors, seconds = [], []
    start = time.perf_counter()
    compiled: Any = None
    for problem in problems:
        units = te.Units(*map(jnp.asarray, (problem.x, problem.t * 1.0, problem.y, np.ones(len(problem.y)))))
        units = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), units)
        arguments = jax.random.key(0), units, jnp.asarray(problem.x_test, jnp.float32)
        if compiled is None:
            compiled = fit.lower(*arguments).compile()
            compile_s = time.perf_counter() - start
        seconds.append(first_call(functools.partial(compiled, *arguments)))
        errors.append(problem.error(compiled(*arguments)))
    return Fitted(float(np.mean(errors)), Timing.of(seconds), compile_s)


def timed(fn: Callable[[], Any]) -> tuple[Any, float]:
    """A result and its seconds."""
    start = time.perf_counter()
    result = jax.block_until_ready(fn())
    return result, time.perf_counter() - start


def catenets(problems: list[Problem], name: str) -> Fitted:
    """The peer's fit of as many steps; what one epoch takes counts as compilation."""
    model = getattr(peer_module("catenets.models.jax"), name)

    def fit(problem: Problem, epochs: int) -> Any:
        made = model(n_iter=epochs, batch_size=BATCH, step_size=RATE, penalty_l2=PENALTY, val_split_prop=0.0,
                     early_stopping=False, n_iter_print=10**6)  # fmt: skip
        made.fit(problem.x, problem.y, problem.t)
        return made.predict(problem.x_test)

    errors, whole, once = [], [], []
    for problem in problems:
        estimate, seconds = timed(lambda problem=problem: fit(problem, EPOCHS + 1))
        whole.append(seconds)
        once.append(timed(lambda problem=problem: fit(problem, 1))[1])
        errors.append(problem.error(estimate))
    beyond = [both - one for both, one in zip(whole, once, strict=True)]
    return Fitted(float(np.mean(errors)), Timing.of(beyond), float(np.median(once)))


def against_catenets(problems: list[Problem], name: str) -> BenchResult:
    """One network beside the peer's."""
    peer, own = catenets(problems, name), ours(problems, name)
    steps = EPOCHS * round(len(problems[0].x) / BATCH)
    note = (
        f"{steps} steps of {BATCH}; mean root PEHE {own.error:.3f}, peer {peer.error:.3f}; the peer compiles in every "
        f"fit, {peer.compile_s:.1f} s that are not counted"
    )
    return BenchResult.of(f"{name} on IHDP", own.seconds, "CATENets", peer.seconds, own.compile_s, note)


def against_forest(problems: list[Problem]) -> BenchResult:
    """Our TARNet beside a causal forest of 400 trees with boosted nuisances."""
    forest = peer_module("econml.dml").CausalForestDML
    boosting = peer_module("sklearn.ensemble")
    errors, seconds = [], []
    for problem in problems:
        made = forest(
            model_y=boosting.GradientBoostingRegressor(random_state=0),
            model_t=boosting.GradientBoostingClassifier(random_state=0),
            discrete_treatment=True, n_estimators=400, random_state=0,
        )  # fmt: skip
        estimate, elapsed = timed(lambda made=made, p=problem: np.asarray(made.fit(p.y, p.t, X=p.x).effect(p.x_test)))
        errors.append(problem.error(estimate))
        seconds.append(elapsed)
    own = ours(problems, "TARNet")
    note = f"mean root PEHE {own.error:.3f}, peer {np.mean(errors):.3f}"
    name, peer = "TARNet beside a causal forest, IHDP", "EconML CausalForestDML"
    return BenchResult.of(name, own.seconds, peer, Timing.of(seconds), own.compile_s, note)
