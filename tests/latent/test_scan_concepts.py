"""SCAN and its operators on a world whose concepts are known Gaussians.

Latent k says label k: z_k | label ~ N(+-a_k, 1 - a_k^2). The best Gaussian for people of whom the label is not known
matches the moments of the mixture, N(0, 1); all concepts, and all that the operators give, follow in closed form.
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from latent import scan_eeg as eeg
from latent.scan_eeg import Gaussian
from latent.scan_eeg.scan import AND, IGNORE, IN_COMMON, scan_loss

A = jnp.array([0.9, 0.7])
LABELS = jnp.array(list(itertools.product((0, 1), repeat=2)))


def concept(y) -> Gaussian:
    """q(z|y) in closed form: mean a (y_1 - y_0), variance 1 - a^2 where the label is mentioned, else N(0, 1)."""
    pairs = y.reshape(*y.shape[:-1], -1, 2)
    return Gaussian(A * (pairs[..., 1] - pairs[..., 0]), jnp.log1p(-(A**2) * pairs.sum(-1)))


def people(copies: int) -> eeg.Grounded:
    """Equally many of every combination of labels; q(z|x) has half of the variance of its class, its mean the rest."""
    labels = jnp.tile(LABELS, (copies, 1))
    rest = (1 - A**2) / 2
    means = A * (2.0 * labels - 1) + jnp.sqrt(rest) * jax.random.normal(jax.random.key(0), labels.shape)
    return eeg.Grounded(Gaussian(means, jnp.broadcast_to(jnp.log(rest), means.shape)), labels)


def moments(q: Gaussian, rows) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of the mixture of some posteriors, where the mean of KL(q(z|x) || .) is least."""
    mean, var = np.asarray(q.mean)[rows], np.exp(np.asarray(q.logvar)[rows])
    return mean.mean(0), var.mean(0) + mean.var(0)


@pytest.mark.parametrize("operator", [AND, IN_COMMON, IGNORE], ids=eeg.OPERATORS)
def test_people_who_teach_an_operator_are_examples_of_its_result_and_of_nothing_more(operator):
    data = people(5_000)
    drawn = eeg.draw_recombinations(jax.random.key(1), data.labels)
    pairs = np.concatenate([drawn.first, drawn.second], axis=1)
    for pair in np.unique(pairs, axis=0):
        rows = (pairs == pair).all(1) & (np.asarray(drawn.operator) == operator)
        if rows.sum() < 50:
            continue
        expected = concept(np.asarray(drawn.result)[rows][0])
        mean, var = moments(data.posterior, rows)
        bound = 5 / np.sqrt(rows.sum())
        np.testing.assert_allclose(mean, expected.mean, atol=bound)
        np.testing.assert_allclose(var, np.exp(expected.logvar), atol=2 * bound)


def test_forward_divergence_is_least_at_the_moments_of_all_examples_and_the_reverse_one_is_narrower():
    posterior = people(1).posterior
    mean, var = moments(posterior, slice(None))
    covering = Gaussian(jnp.asarray(mean), jnp.log(jnp.asarray(var)))

    def taught(c, beta_y=0.0):
        zeros = jnp.zeros((4, 1))
        rows = Gaussian(*(jnp.tile(leaf, (4, 1)) for leaf in c))
        loss, parts = scan_loss(posterior, rows, zeros, zeros, beta_y, 10.0)
        return loss - parts["symbols"]

    def reverse(c):
        return eeg.kl(c, posterior).sum(-1).mean()

    jax.tree.map(lambda slope: np.testing.assert_allclose(slope, 0, atol=1e-5), jax.grad(taught)(covering))
    assert (np.asarray(jax.grad(reverse)(covering).logvar) > 0.1).all()


def test_a_prior_term_draws_a_concept_to_where_the_closed_form_says():
    """m = lam mu / (lam + beta v) and beta v^2 + (lam - beta) v = lam S, S the mean square of the examples about m."""
    lam, beta = 10.0, 1.0
    labels = jnp.ones((64, 2), jnp.int32)
    noise = jax.random.normal(jax.random.key(0), (64, 2))
    posterior = Gaussian(A + 0.3 * noise, jnp.full((64, 2), -3.0))
    mean, mixture = moments(posterior, slice(None))
    v = mixture
    for _ in range(100):
        m = lam * mean / (lam + beta * v)
        v = (beta - lam + np.sqrt((lam - beta) ** 2 + 4 * beta * lam * (mixture + (mean - m) ** 2))) / (2 * beta)

    def loss(c):
        rows = Gaussian(*(jnp.tile(leaf, (64, 1)) for leaf in c))
        y = eeg.symbols_of(labels, jnp.ones((64, 2)))
        total, parts = scan_loss(posterior, rows, jnp.zeros_like(y), y, beta, lam)
        return total - parts["symbols"]

    slopes = jax.grad(loss)(Gaussian(jnp.asarray(m), jnp.log(jnp.asarray(v))))
    jax.tree.map(lambda slope: np.testing.assert_allclose(slope, 0, atol=1e-4), slopes)


def test_operators_learn_the_union_intersection_and_difference_of_known_concepts(record_property):
    data = eeg.Instructed(people(64), {})
    learner = eeg.recombination_learner(eeg.Recombination(), lambda _, y: concept(y), optax.adam(1e-2))
    state = learner.init(jax.random.key(2), data)
    state = jax.jit(lambda s, d: jax.lax.fori_loop(0, 1_000, lambda _, s: learner.update(s, d)[0], s))(state, data)
    drawn = eeg.draw_recombinations(jax.random.key(5), data.grounded.labels)
    first, second, wanted = (concept(y) for y in (drawn.first, drawn.second, drawn.result))
    found: Any = eeg.Recombination().apply(state.params, first, second, drawn.operator)
    words = []
    for operator, name in enumerate(eeg.OPERATORS):
        rows = np.asarray(drawn.operator) == operator
        learned, naive = (float(eeg.kl(wanted, q).sum(-1)[rows].mean()) for q in (found, first))
        assert learned < 0.02 < 0.2 < naive
        words.append(f"{name} {learned:.1e} against {naive:.2f}")
    record_property(
        "value", "divergence from the closed form after learning and of the first concept: " + ", ".join(words)
    )
