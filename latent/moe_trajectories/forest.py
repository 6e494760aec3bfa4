"""SEM forests: trees of growth models that screen covariates before a mixture is fitted.

The template is the one-class growth model. A node's persons are split where two models describe them better than one::

    LR = 2 (log L_left + log L_right - log L_node)

Cuts are screened by the score test, which needs no further fit: with scores s_i at the node's optimum (they sum to 0)::

    LM = s_L' [V n_L n_R / n^2]^{-1} s_L,  s_L = sum of scores on the left,  V = sum_i s_i s_i'

and the best few are fitted. Importance of a covariate: how much -2 log L of the persons that a tree has not seen grows
when their values of it are permuted. After Brandmaier, Prindle, McArdle & Lindenberger (2016).
"""

import functools
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, Key

from core.checks import FINITE, Count, Natural, checked
from core.errors import ConfigError
from core.linalg import of_each_matrix
from latent.moe_trajectories import fitting, model, starts
from latent.moe_trajectories.model import Arranged, GrowthData, Mixture
from latent.moe_trajectories.optimise import minimise, scoring_inverse
from latent.moe_trajectories.units import Units, standard_data

Covariates = Annotated[Float[np.ndarray, "n c"], FINITE]


class Forest(NamedTuple):
    """Binary trees of fixed depth as arrays; node i has the children 2i + 1 and 2i + 2."""

    covariate: Int[np.ndarray, "trees nodes"]
    """Which one is cut; -1 at leaves."""
    cut: Float[np.ndarray, "trees nodes"]
    """Persons at or below it go left."""
    params: Float[np.ndarray, "trees nodes P"]
    ratio: Float[np.ndarray, "trees nodes"]
    """LR of the split."""
    weights: Float[np.ndarray, "trees n"]
    """How often each person was drawn for the tree."""
    units: Units
    """Those in which ``params`` describe the persons."""


class Candidates(NamedTuple):
    """The best cuts of a node, by the score test."""

    covariate: Int[Array, " k"]
    cut: Float[Array, " k"]
    statistic: Float[Array, " k"]


@checked
def grow(
    data: GrowthData,
    covariates: Covariates,
    key: Key[Array, ""],
    *,
    trees: Count = 128,
    tried: Count | None = None,
    smallest: Count = 50,
    depth: Count = 3,
    refitted: Count = 1,
    mixture: Mixture = Mixture(1),  # noqa: B008 - frozen
) -> Forest:
    """Grows a forest, all trees at once, one depth after the other.

    Args:
      data: persons; covariates that it names itself play no part.
      covariates: ordered candidates, complete.
      key: of the bootstrap samples and of the covariates tried at each node.
      trees: how many.
      tried: covariates tried per node; ceil(sqrt(c)) if None.
      smallest: persons, repeats counted, that each side of a cut keeps.
      depth: of splits.
      refitted: cuts per node that are compared by exact likelihood ratios after the screening.
      mixture: the template, of one class.

    Raises:
      ConfigError: where covariates are missing or the template has several classes.
    """
    model.require_sound(data)
    n, c = covariates.shape
    if mixture.classes != 1 or n != data.persons:
        raise ConfigError(
            f"a forest needs a template of one class, not {mixture.classes}, and a row of covariates for each of the "
            f"{data.persons} persons, not {n}"
        )
    tried = tried or int(np.ceil(np.sqrt(c)))
    key_draw, key_try, key_start = jax.random.split(key, 3)
    drawn = np.asarray(jax.random.randint(key_draw, (trees, n), 0, n))
    weights = np.stack([np.bincount(row, minlength=n) for row in drawn]).astype(float)
    offered = np.asarray(jax.vmap(lambda k: jax.random.permutation(k, c))(
        jax.random.split(key_try, trees * (2**depth - 1)))).reshape(trees, -1, c) < tried  # fmt: skip
    with jax.enable_x64(True):
        units, arranged, _ = fitting.standardise(mixture, fitting.double(_outcomes_alone(data)))
        found = fitting.descend(mixture, fitting.draw_starts(mixture, key_start, arranged, 1), arranged)[0]
        root = jax.tree.map(lambda leaf: leaf[0], found)
        host = jax.tree.map(np.asarray, units)
        return _grown(
            mixture, arranged, host, np.asarray(covariates, float), weights, offered, root, depth, smallest, refitted
        )


def _outcomes_alone(data: GrowthData) -> GrowthData:
    return data.without("expert", "gating")._replace(tvc=np.zeros((data.persons, 0)))


def _grown(mixture, arranged, units, covariates, weights, offered, root, depth, smallest, refitted) -> Forest:
    trees, _ = weights.shape
    nodes = 2 ** (depth + 1) - 1
    flat = np.asarray(ravel_pytree(root)[0])
    cut, value, ratio = (np.full((trees, nodes), np.nan) for _ in range(3))
    params = np.full((trees, nodes, len(flat)), np.nan)
    forest = Forest(np.full((trees, nodes), -1), cut, params, ratio, weights, units)
    here = {(b, 0): weights[b] for b in range(trees)}
    where = list(here)
    fitted = _fit_weighted(mixture, arranged, np.stack(list(here.values())), np.tile(flat, (trees, 1)))
    for place, (x, v) in zip(where, zip(*fitted, strict=True), strict=True):
        forest.params[place], value[place] = x, v
    for _ in range(depth):
        places = [p for p, w in here.items() if w.sum() >= 2 * smallest]
        if not places:
            break
        w = np.stack([here[p] for p in places])
        x = np.stack([forest.params[p] for p in places])
        allowed = np.stack([offered[p] for p in places])
        best = jax.tree.map(np.asarray, _screen(mixture, arranged, jnp.asarray(covariates), _padded(w), _padded(x),
                                                 _padded(allowed), smallest, refitted))  # fmt: skip
        best = Candidates(*(leaf[: len(places)] for leaf in best))
        left = np.stack(
            [covariates[:, v] <= cut for v, cut in zip(best.covariate.ravel(), best.cut.ravel(), strict=True)]
        )
        shared = np.repeat(w, refitted, 0)
        sides = np.stack([shared * left, shared * ~left], 1).reshape(-1, w.shape[1])
        fits, values = _fit_weighted(mixture, arranged, sides, np.repeat(np.repeat(x, refitted, 0), 2, 0))
        fits, values = fits.reshape(len(places), refitted, 2, -1), values.reshape(len(places), refitted, 2)
        sides = sides.reshape(len(places), refitted, 2, -1)
        here = {}
        for i, (b, node) in enumerate(places):
            ratios = np.where(np.isfinite(best.statistic[i]), 2 * (value[b, node] - values[i].sum(1)), -np.inf)
            j = int(np.argmax(ratios))
            if not ratios[j] > 0:
                continue
            forest.covariate[b, node], forest.cut[b, node] = best.covariate[i, j], best.cut[i, j]
            forest.ratio[b, node] = ratios[j]
            for side in (0, 1):
                child = (b, 2 * node + 1 + side)
                here[child] = sides[i, j, side]
                forest.params[child], value[child] = fits[i, j, side], values[i, j, side]
    return forest


def _padded(x: np.ndarray) -> Array:
    """Repeats the last row up to the next power of two, so that few shapes are compiled."""
    size = max(8, 1 << (len(x) - 1).bit_length())
    return jnp.asarray(np.concatenate([x, np.repeat(x[-1:], size - len(x), 0)]))


def _fit_weighted(mixture, arranged, weights, first):
    x, value = _descend_weighted(mixture, arranged, _padded(weights), _padded(first))
    return np.asarray(x)[: len(weights)], np.asarray(value)[: len(weights)]


@functools.partial(jax.jit, static_argnums=0)
def _descend_weighted(mixture: Mixture, arranged: Arranged, weights, first):
    """The template fitted to every row of weights: optimum and -log L."""
    unravel = _unravel(mixture, arranged)

    def fun(x, i):
        return -model.log_likelihood(mixture, unravel(x), arranged, weights[i])

    def information(pair):
        x, w = pair
        s = fitting.scores(mixture, unravel(x), arranged)
        return (s * w[:, None]).T @ s

    inverses = of_each_matrix(scoring_inverse, jax.lax.map(information, (first, weights)))
    found = minimise(fun, first, inverses, lanes=16, tolerance=1e-4, max_evaluations=100)
    return found.x, found.value


def _unravel(mixture: Mixture, arranged: Arranged):
    shapes = jax.eval_shape(lambda: starts.random_start(mixture, jax.random.key(0), arranged))
    return ravel_pytree(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes))[1]


@functools.partial(jax.jit, static_argnums=(0, 6, 7))
def _screen(mixture, arranged, covariates, weights, params, offered, smallest: int, kept: int) -> Candidates:
    """The cuts of largest score statistic of every node, one per covariate."""
    unravel, order = _unravel(mixture, arranged), jnp.argsort(covariates, axis=0)
    ranked = jnp.take_along_axis(covariates, order, axis=0)
    is_last = jnp.concatenate([ranked[1:] > ranked[:-1], jnp.zeros((1, ranked.shape[1]), bool)])

    def single(node):
        w, x, allowed = node
        s = fitting.scores(mixture, unravel(x), arranged)
        information = (s * w[:, None]).T @ s
        white = s @ jnp.linalg.cholesky(scoring_inverse(information, 1e-8)) * w[:, None]
        white = white - w[:, None] * white.sum(0) / w.sum()
        left = jnp.cumsum(w[order], axis=0)
        right = w.sum() - left
        sums = jnp.cumsum(white[order], axis=0)
        statistic = (sums**2).sum(-1) * w.sum() ** 2 / jnp.maximum(left * right, 1.0)
        usable = is_last & (left >= smallest) & (right >= smallest) & allowed
        statistic = jnp.where(usable, statistic, -jnp.inf)
        at = jnp.argmax(statistic, axis=0)
        each = jnp.take_along_axis(statistic, at[None], axis=0)[0]
        top = jnp.argsort(-each)[:kept]
        return Candidates(top, ranked[at[top], top], each[top])

    return jax.lax.map(single, (weights, params, offered))


def leaf_of(forest: Forest, tree: int, covariates: Float[np.ndarray, "n c"]) -> Int[np.ndarray, " n"]:
    """The leaf that each person falls into."""
    node = np.zeros(len(covariates), int)
    for _ in range(int(np.log2(forest.covariate.shape[1] + 1)) - 1):
        v = forest.covariate[tree, node]
        right = covariates[np.arange(len(node)), np.maximum(v, 0)] > forest.cut[tree, node]
        node = np.where(v < 0, node, 2 * node + 1 + right)
    return node


@checked
def importance(
    forest: Forest,
    data: GrowthData,
    covariates: Covariates,
    seed: Natural = 0,
    mixture: Mixture = Mixture(1),  # noqa: B008 - frozen
) -> Float[np.ndarray, "trees c"]:
    """Growth of -2 log L of a tree's unseen persons, per person, when a covariate is permuted among them."""
    rng = np.random.default_rng(seed)
    trees, c = len(forest.covariate), covariates.shape[1]
    found = np.zeros((trees, c))
    with jax.enable_x64(True):
        plain = standard_data(*fitting.double((forest.units, _outcomes_alone(data))))
        arranged = model.arrange(plain)
        filled = jnp.asarray(np.where(np.isnan(forest.params), forest.params[:, :1], forest.params))
        for b in range(trees):
            unseen = np.flatnonzero(forest.weights[b] == 0)
            each = np.asarray(_under_all(mixture, arranged, filled[b]))
            before = each[leaf_of(forest, b, covariates[unseen]), unseen].sum()
            for v in set(forest.covariate[b][forest.covariate[b] >= 0].tolist()):
                shuffled = covariates[unseen].copy()
                shuffled[:, v] = rng.permutation(shuffled[:, v])
                after = each[leaf_of(forest, b, shuffled), unseen].sum()
                found[b, v] = 2 * (before - after) / len(unseen)
    return found


@functools.partial(jax.jit, static_argnums=0)
def _under_all(mixture: Mixture, arranged: Arranged, params: Float[Array, "nodes P"]) -> Float[Array, "nodes n"]:
    unravel = _unravel(mixture, arranged)
    return jax.lax.map(lambda x: model.person_log_likelihoods(mixture, unravel(x), arranged), params)
