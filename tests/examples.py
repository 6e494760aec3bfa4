"""Every learner of the project at small size: what tests/core/test_every_learner.py runs on."""

from collections.abc import Callable, Mapping
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from core.learner import LearnerLike, gradient_learner, step_key
from experiments.system import Example
from interp import concept_space as cs
from interp import ekfac
from interp.likelihoods import Task, categorical
from latent import diffusion
from latent import jepa_linear as jepa
from latent import moe_trajectories as moe
from rec.dccf import dccf_learner
from rec.dgcf import dgcf_learner
from rec.graph import RecData
from rec.graph_contrast import sgl_learner, simgcl_learner
from rec.intents import simulate
from rec.lightgcn import lightgcn_learner


class Mlp(nn.Module):
    """Two layers, one output."""

    @nn.compact
    def __call__(self, x):
        x = nn.tanh(nn.Dense(8)(x))
        return nn.Dense(1)(x)[..., 0]


def regression() -> Example:
    """Least squares with a small net: a mean over examples, one shared leaf in the batch."""
    module = Mlp()

    def loss(params, key, batch):
        residual = module.apply(params, batch["x"]) - batch["y"] + batch["offset"]
        return jnp.mean(residual**2), {"mae": jnp.mean(jnp.abs(residual))}

    learner = gradient_learner(lambda key, batch: module.init(key, batch["x"]), loss, optax.adam(1e-2))
    x = jax.random.normal(jax.random.key(1), (16, 3))
    batch = {"x": x, "y": x[:, 0] ** 2, "offset": jnp.float32(0.1)}
    return Example(learner, batch, {"x": 0, "y": 0, "offset": None})


def recommender(learner: Callable[..., LearnerLike], **settings) -> Example:
    """A recommender which draws its own triples from a small simulated graph."""
    data, _ = simulate(0, users=40, items=30)
    return Example(learner(dim=8, batch_size=32, **settings), RecData.build(data), None)


def self_distillation(objective: jepa.Objective, decay: float | None = None) -> Example:
    """A deep linear encoder on population moments, which all replicas share."""
    features = jepa.Features(jnp.array([1.0, 0.5]), jnp.array([0.9, 0.4]))
    model = jepa.DeepLinear(2, 2, reconstructs=objective == "MAE")
    start, tx = jepa.orthogonal(model, 0.3), optax.sgd(0.1)
    if decay is not None:
        return Example(jepa.ema_target_learner(model, tx, decay, start), features.moments(), None)
    return Example(jepa.learner(objective, model, tx, start), features.moments(), None)


def classifier():
    """A two-layer net, its likelihood, parameters and 16 examples."""
    task = Task(
        lambda p, e: jnp.tanh(e["x"] @ p["a"]["kernel"] + p["a"]["bias"]) @ p["b"], categorical(lambda e: e["y"])
    )
    params = {"a": {"kernel": jnp.eye(3, 4) + 0.1, "bias": jnp.linspace(0, 1, 4)}, "b": jnp.cos(jnp.ones((4, 3)))}
    return task, params, {"x": jax.random.normal(jax.random.key(1), (16, 3)), "y": jnp.arange(16) % 3}


def ekfac_stage(kind: str) -> Example:
    """One of the stages of EK-FAC, which add up over examples."""
    task, params, examples = classifier()
    found = ekfac.capture(task.outputs, params, jax.tree.map(lambda leaf: leaf[0], examples))
    shapes = {n: (2, b.stack, b.rows, b.columns) for n, b in found.blocks.items()}
    prepared = {n: jax.random.normal(jax.random.key(2), shape) for n, shape in shapes.items()}
    learner, at = {
        "covariance": lambda: (ekfac.covariance(found, task, ekfac.sampled()), params),
        "eigenvalues": lambda: (
            ekfac.eigenvalue_correction(found, task, ekfac.sampled()), (params, ekfac.standard_basis(found)),
        ),
        "top": lambda: (
            ekfac.top(3, 2, lambda p, batch: ekfac.pairwise(found, task, p, prepared, batch)), params,
        ),
    }[kind]()  # fmt: skip
    return Example(learner, jax.tree.map(jnp.asarray, ekfac.whole(at, examples)), ekfac.BATCH_AXES)


def denoising(network: nn.Module, x: jax.Array, cond: jax.Array) -> Example:
    """A conditional diffusion model; levels and noise are functions of an example's place in the global batch."""
    losses = diffusion.denoising_loss(network.apply, diffusion.continuous_levels(diffusion.linear_logsnr(5.0, -10.0)))

    def init(key, batch):
        return network.init(key, batch["x"], jnp.zeros(batch["x"].shape[0]), cs.plain(batch["cond"]))

    def loss(params, key, batch):
        return losses(params, key, batch["x"], cs.plain(batch["cond"]))[0].mean(), {}

    learner = gradient_learner(init, loss, optax.sgd(1e-2), key_of=step_key)
    return Example(learner, {"x": x, "cond": cond})


def points() -> Example:
    """Diffusion over vectors."""
    z = jnp.asarray(cs.CLASSES[jnp.arange(16) % 4], jnp.float32)
    x = cs.draw_points(jax.random.key(1), cs.World(), z)
    return denoising(cs.PointDenoiser(8, 1), x, cs.centres(cs.World(), z))


def growth(kind: str) -> Example:
    """Two classes of growth curves, in single precision on outcomes of unit scale."""
    truth = moe.example_truth()._replace(
        means=jnp.array([[1.0, -0.5, 0.2], [1.5, 0.3, -0.4]]), covariance=0.2 * jnp.stack([jnp.eye(3)] * 2),
        effects=0.1 * jnp.ones((2, 3, 2)), residual=jnp.array([0.3, 0.3]),
    )  # fmt: skip
    data, _ = moe.simulate(jax.random.key(1), truth, 32, 8)
    start = moe.true_params(truth)
    mixture = moe.Mixture(2)
    learner = moe.em_learner(mixture, start) if kind == "em" else moe.direct_learner(mixture, start, optax.sgd(1e-3))
    return Example(learner, data)


EXAMPLES: Mapping[str, Callable[[], Example]] = {
    "regression": regression,
    "jepa": partial(self_distillation, "JEPA"),
    "jepa_averaged_target": partial(self_distillation, "JEPA", 0.9),
    "mae": partial(self_distillation, "MAE"),
    "lightgcn": partial(recommender, lightgcn_learner, layers=2),
    "sgl": partial(recommender, sgl_learner, layers=2),
    "simgcl": partial(recommender, simgcl_learner, layers=2),
    "dgcf": partial(recommender, dgcf_learner, layers=1),
    "dccf": partial(recommender, dccf_learner, layers=2, intents=4),
    "ekfac_covariance": partial(ekfac_stage, "covariance"),
    "ekfac_eigenvalues": partial(ekfac_stage, "eigenvalues"),
    "ekfac_top": partial(ekfac_stage, "top"),
    "concept_space": points,
    "growth_em": partial(growth, "em"),
    "growth_direct": partial(growth, "direct"),
}
