"""Whatever else is asked of a folder than what it holds is refused: of every public function that takes one."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from causal import image_cate as ic
from causal import rep4ex as rep
from causal import treatment_effects as te
from core.batches import GrainBatches
from core.errors import CheckpointError, ConfigError
from core.fit import fit
from core.learner import gradient_learner, with_sampler
from interp import ekfac
from latent import scan_eeg as eeg
from tests.examples import classifier

KEY, OTHER_KEY = jax.random.key(0), jax.random.key(1)
NUMBERS = np.random.default_rng(0)
X = NUMBERS.normal(size=(60, 3)).astype(np.float32)
Y = NUMBERS.normal(size=60).astype(np.float32)


class Folder(NamedTuple):
    """A function that takes a folder."""

    ask: Callable[..., Any]
    """``(workdir, **changes) -> arrays``."""
    changes: Mapping[str, Mapping[str, Any]]
    """What else may be asked."""


def trained(workdir, x=X, rate=0.1, power=2, key=KEY, steps=4, start=0.0, host=0, **more):
    """Least squares from arrays or from batches of the host."""

    def loss(params, key, batch):
        return jnp.mean(jnp.abs(batch @ params - 1) ** power), {}

    learner = gradient_learner(lambda key, batch: jnp.full(3, start), loss, optax.sgd(rate), batch_axes=0)
    data = GrainBatches(x, host) if host else x
    return fit(learner, data, key=key, steps=steps, workdir=workdir, **more).state.params


def sampled(workdir, draw=0):
    """Training on four examples per step, drawn by one of two rules."""
    learner = gradient_learner(
        lambda key, x: jnp.zeros(3), lambda p, key, x: (jnp.mean((x @ p - 1) ** 2), {}), optax.sgd(0.1)
    )
    learner = with_sampler(learner, lambda data, key, step: jnp.roll(data, step + draw, axis=0)[:4])
    return fit(learner, X, key=KEY, steps=4, workdir=workdir).state.params


def curvature(workdir, fisher=ekfac.exact, kind="ekfac", scale=1.0, rows=16, key=KEY, batch=8):
    task, params, examples = classifier()
    params = jax.tree.map(lambda leaf: scale * leaf, params)
    examples = jax.tree.map(lambda leaf: leaf[:rows], examples)
    found = ekfac.fit_curvature(
        task, params, examples, key=key, fisher=fisher(), kind=kind, batch_size=batch, workdir=workdir
    )
    return found.curvature


def best(workdir, k=3, scale=1.0, batch=8):
    task, params, examples = classifier()
    fitted = ekfac.fit_curvature(task, params, examples, key=KEY, kind="identity")
    queries = jax.tree.map(lambda leaf: leaf[:2], examples)
    prepared = jax.tree.map(lambda leaf: scale * leaf, ekfac.prepared_queries(fitted, queries))
    return ekfac.most_influential(fitted, prepared, examples, k, key=KEY, batch_size=batch, workdir=workdir)[2:]


def codes(workdir, key=KEY, shift=0.0, hidden=4, **settings):
    _, sample, y = rep.gen2(50, 60, rep.Design())
    method = rep.Rep4Ex(
        rep.Autoencoder(2, 10, (hidden,)), restarts=1, steps=4, batch=16, held_out=0.2, second=rep.Ridge(5)
    )
    x = sample.x + shift * sample.a[:, :1]
    return dataclasses.replace(method, **settings).fit(key, x, sample.a, y, workdir=workdir).params


def meta(workdir, key=KEY, kind="T", hidden=(4,), slope=1.0, **settings):
    t, trunk = np.arange(60) % 2.0, functools.partial(te.Mlp, hidden)
    learner = te.MetaLearner(kind, trunk, **{"steps": 2, "folds": 1, **settings})
    return learner.fit(key, x=X, t=t, y=Y + slope * t, propensity=0.5, workdir=workdir).params


def clusters(workdir, key=KEY, method="fit", prior="mixture", shift=0.0, **settings):
    x = np.random.default_rng(0).normal(size=(16, 6, 6, 2)).astype(np.float32) + shift
    image, t = np.repeat(np.arange(16), 2), np.arange(32) % 2.0
    trunk = functools.partial(ic.ConvTrunk, 3, 3, 2, channels=2)
    model = ic.ClusterModel(ic.EffectNetwork(2, trunk), likelihood=prior)
    estimator = ic.EffectClusters(model, **{"steps": 2, "batch_images": 8, "two_stages": False, **settings})
    y = np.random.default_rng(1).normal(size=32) + t
    more = {"members": 2} if method == "ensemble" else {}
    found: Any = getattr(estimator, method)(key, x, image, t, y, workdir=workdir, **more)
    return found.mu if method == "ensemble" else found.params


def cases_of_worlds(workdir, lams=(0.0,), rate=1e-3):
    way = rep.Way(rep.Autoencoder(2, 4, (4,)), steps=3, batch=16, learning_rate=rate)
    case = rep.make_case(0, rep.Design(m=4), 40, 20, 20)
    return rep.train_cases([case], lams, way, workdir=workdir).params


def plain(workdir, key=KEY, rate=3e-3):
    units = te.Units(*(jnp.asarray(part) for part in (X, np.arange(60) % 2.0, Y, np.ones(60))))
    trunk = functools.partial(te.Mlp, (4,))
    return te.plain_effects(key, units, jnp.asarray(X), trunk, 0.5, steps=2, learning_rate=rate, workdir=workdir)


def codes_of_folds(workdir, key=KEY, beta=1.0):
    x = np.random.default_rng(0).normal(size=(12, 2, 8)).astype(np.float32)
    kept = [np.arange(8), np.arange(4, 12)]
    vae = eeg.BetaVae(2, 8, 2, (2, 2), 4)
    return eeg.codes_by_fold(key, vae, x, kept, beta, optax.sgd(1e-2), steps=2, batch_size=4, workdir=workdir)


OF_CLUSTERS = Folder(
    clusters,
    {
        "key": {"key": OTHER_KEY},
        "likelihood": {"prior": "relaxed"},
        "images": {"shift": 1.0},
        "rate": {"learning_rate": 0.5},
        "batch": {"batch_images": 12},
    },
)
FOLDERS: Mapping[str, Folder] = {
    "core.fit.fit": Folder(
        trained,
        {
            "data": {"x": X + 1},
            "length": {"x": X[:40]},
            "type": {"x": X.astype(np.float16)},
            "rate": {"rate": 0.2},
            "loss": {"power": 3},
            "key": {"key": OTHER_KEY},
            "start": {"start": 0.5},
            "host batches": {"host": 8},
            "fewer steps": {"steps": 2},
        },
    ),
    "sampler": Folder(sampled, {"sampler": {"draw": 1}}),
    "host": Folder(
        functools.partial(trained, host=8), {"data": {"x": X[::-1]}, "batch size": {"host": 12}, "rate": {"rate": 0.2}}
    ),
    "interp.ekfac.influence.fit_curvature": Folder(
        curvature,
        {
            "Fisher": {"fisher": ekfac.empirical},
            "parameters": {"scale": 2.0},
            "examples": {"rows": 8},
            "key": {"key": OTHER_KEY},
            "batches": {"batch": 4},
        },
    ),
    "interp.ekfac.influence.most_influential": Folder(
        best, {"k": {"k": 2}, "queries": {"scale": 2.0}, "batches": {"batch": 4}}
    ),
    "causal.rep4ex.estimator.Rep4Ex.fit": Folder(
        codes,
        {
            "lambda": {"lam": 7.0},
            "coder": {"hidden": 5},
            "key": {"key": OTHER_KEY},
            "rows": {"shift": 1.0},
            "rate": {"learning_rate": 0.5},
            "batch": {"batch": 12},
        },
    ),
    "causal.treatment_effects.estimators.MetaLearner.fit": Folder(
        meta,
        {
            "kind": {"kind": "TARNet"},
            "trunk": {"hidden": (5,)},
            "key": {"key": OTHER_KEY},
            "outcome": {"slope": 2.0},
            "depth": {"hidden": (4, 4)},
            "rate": {"learning_rate": 0.5},
        },
    ),
    "causal.treatment_effects.plain.plain_effects": Folder(plain, {"rate": {"rate": 0.5}, "key": {"key": OTHER_KEY}}),
    "causal.rep4ex.pools.train_cases": Folder(cases_of_worlds, {"rate": {"rate": 0.5}, "lambda": {"lams": (1.0,)}}),
    "latent.scan_eeg.folds.codes_by_fold": Folder(codes_of_folds, {"beta": {"beta": 4.0}, "key": {"key": OTHER_KEY}}),
    "causal.image_cate.estimator.EffectClusters.fit": OF_CLUSTERS,
    "causal.image_cate.estimator.EffectClusters.train": OF_CLUSTERS,
    "causal.image_cate.estimator.EffectClusters.train_twice": Folder(
        functools.partial(clusters, two_stages=True), {"rate": {"learning_rate": 0.5}}
    ),
    "causal.image_cate.estimator.EffectClusters.ensemble": Folder(
        functools.partial(clusters, method="ensemble"), {"key": {"key": OTHER_KEY}, "rate": {"learning_rate": 0.5}}
    ),
}
"""By the name of the function; some of them several times, for different data."""

LONG = ("EffectClusters.train", "EffectClusters.ensemble")


def cases() -> list:
    found, seen = [], set()
    for name, folder in FOLDERS.items():
        for i, change in enumerate(folder.changes):
            is_long = ("core" not in name and "." in name and i > 1) or any(part in name for part in LONG)
            if (folder.ask, change) not in seen:
                found.append(pytest.param(name, change, id=f"{name}-{change}", marks=[pytest.mark.slow] * is_long))
            seen.add((folder.ask, change))
    return found


@functools.cache
def first(name: str, folder) -> Any:
    """What was asked first of a folder, which all changes find there."""
    return FOLDERS[name].ask(folder)


@pytest.fixture(scope="module")
def used(tmp_path_factory):
    root = tmp_path_factory.mktemp("folders")
    return lambda name: root / name


@pytest.mark.parametrize(("name", "change"), cases())
def test_anything_else_asked_of_a_folder_is_refused(name, change, used):
    folder = used(name)
    first(name, folder)
    with pytest.raises((CheckpointError, ConfigError), match=r"belongs to another run|longer than"):
        FOLDERS[name].ask(folder, **FOLDERS[name].changes[change])


@pytest.mark.parametrize("name", ["core.fit.fit", "sampler", "host", "interp.ekfac.influence.fit_curvature"])
def test_the_same_asked_again_is_what_the_folder_holds(name, used):
    folder = used(name)
    before = first(name, folder)
    jax.tree.map(np.testing.assert_array_equal, FOLDERS[name].ask(folder), before)


def test_more_steps_of_the_same_run_go_on_from_its_folder(tmp_path):
    trained(tmp_path, steps=4)
    seen: list[int] = []
    trained(tmp_path, steps=8, progress=lambda done, total: seen.append(done))
    assert seen == [8]


def test_another_evaluation_is_refused_and_the_same_goes_on(tmp_path):
    def run(workdir, steps=4, scale=1.0, name="norm", **more):
        return trained(workdir, steps=steps, evaluate=lambda state: {name: scale * jnp.sum(state.params**2)}, **more)

    run(tmp_path)
    run(tmp_path)
    with pytest.raises(CheckpointError, match="another evaluation: norm of step 4"):
        run(tmp_path, scale=2.0)
    with pytest.raises(CheckpointError, match="another evaluation: size of step 4 is absent there"):
        run(tmp_path, name="size")
    with pytest.raises(CheckpointError, match="no norm of step 2, which was not evaluated"):
        run(tmp_path, evaluate_every=2)
    run(tmp_path, steps=8)


def test_what_is_evaluated_later_of_a_finished_run_is_computed(tmp_path):
    trained(tmp_path)
    found: list[float] = []
    trained(tmp_path, evaluate=lambda state: found.append(1.0) or {"norm": jnp.sum(state.params**2)})
    assert found


def times(factor):
    """A learner whose step calls Python."""

    def loss(params, key, batch):
        scale = jax.pure_callback(lambda: np.float32(factor), jax.ShapeDtypeStruct((), jnp.float32))
        return scale * jnp.mean((batch @ params - 1) ** 2), {}

    return gradient_learner(lambda key, batch: jnp.zeros(3), loss, optax.sgd(0.1))


def test_what_no_digest_tells_must_be_named(tmp_path):
    class Rolling:
        """Batches that say nothing of themselves."""

        position = 0

        def __next__(self):
            self.position += 1
            return X[self.position :][:4]

        def get_state(self):
            return self.position

        def set_state(self, state):
            self.position = state

    learner = gradient_learner(lambda key, x: jnp.zeros(3), lambda p, key, x: (jnp.mean(x @ p), {}), optax.sgd(0.1))
    for asked in ((times(2.0), X), (learner, Rolling())):
        with pytest.raises(ConfigError, match=r"identity"):
            fit(*asked, key=KEY, steps=2, workdir=tmp_path / "unnamed")
        fit(*asked, key=KEY, steps=2, workdir=tmp_path / type(asked[1]).__name__, identity={"of": "this test"})


def test_checkpoints_that_nothing_says_the_run_of_are_refused(tmp_path):
    trained(tmp_path)
    (tmp_path / "identity.json").unlink()
    with pytest.raises(CheckpointError, match=r"has checkpoints, but no identity.json"):
        trained(tmp_path)


def test_host_batches_are_told_apart_by_all_their_examples(tmp_path):
    first_alike = X.copy()
    batches = GrainBatches(X, 8)
    rows = {row.tobytes() for row in next(batches)}
    first_alike[[row.tobytes() not in rows for row in X]] += 1
    trained(tmp_path, host=8)
    with pytest.raises(CheckpointError, match="belongs to another run"):
        trained(tmp_path, x=first_alike, host=8)


def test_an_init_that_cannot_be_traced_is_told_apart_by_what_it_gives(tmp_path):
    def learner(threshold):
        return gradient_learner(
            lambda key, x: x[x[:, 0] > threshold].mean(0),
            lambda p, key, x: (jnp.mean((x @ p - 1) ** 2), {}),
            optax.sgd(0.1),
        )._replace(init=lambda key, x: {"w": jnp.asarray(np.asarray(x)[np.asarray(x)[:, 0] > threshold].mean(0))})

    def step(state, x):
        return state, {"loss": jnp.sum(state["w"])}

    for threshold in (0.0, 0.0):
        fit(learner(threshold)._replace(update=step), X, key=KEY, steps=2, workdir=tmp_path)
    with pytest.raises(CheckpointError, match="its initial state is not this one"):
        fit(learner(0.5)._replace(update=step), X, key=KEY, steps=2, workdir=tmp_path)
