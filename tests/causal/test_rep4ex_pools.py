"""Pools of encoders and regressions of Y on arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal import rep4ex as rep
from core.errors import ConfigError

CODER = rep.Autoencoder(2, 4, (8,))
WAY = rep.Way(CODER, steps=20, batch=50, restarts=2)


@pytest.fixture(scope="module")
def cases():
    return [rep.make_case(seed, rep.Design(m=4), 200, 60, 80) for seed in (0, 1)]


@pytest.fixture(scope="module")
def trained(cases):
    return rep.train_cases(cases, (0.0, 10.0), WAY)


def test_every_case_is_trained_with_every_lambda(cases, trained):
    assert [(case.seed, lam) for (_, case), lam in zip(trained.runs(), trained.lam, strict=True)] == [
        (0, 0.0), (0, 10.0), (1, 0.0), (1, 10.0),
    ]  # fmt: skip


def test_kept_encoders_are_those_of_least_loss_on_held_rows(cases, trained):
    """The kept one's numbers are those of its code on the held rows, and of two restarts one is kept."""
    for run, case in trained.runs():
        assert min(abs(trained.others[run] - trained.r2(run))) < 1e-5
        code = trained.code(run)(case.held)
        assert code.shape == (60, 2)
        a = jnp.asarray(case.held.a - case.rows.a_mean, jnp.float32)
        Q = rep.restriction(jnp.asarray(code), a, jnp.float32(case.rows.bandwidth))
        assert float(Q) == pytest.approx(trained.restriction[run], rel=1e-3)


def test_a_basis_of_actions_takes_their_place_everywhere(cases):
    squares = cases[0].with_basis(lambda a: np.hstack([a, a**2]))
    assert squares.sample.a.shape[1] == squares.held.a.shape[1] == squares.rows.a.shape[1] == 4
    np.testing.assert_array_equal(squares.sample.x, cases[0].sample.x)


def test_the_latents_themselves_are_recovered_and_components_are_not(cases):
    assert float(cases[0].recovered(lambda sample: sample.z).r2) > 0.999
    assert float(cases[0].recovered(cases[0].components()).r2) < 0.999


def rows(n=900):
    """E[Y | do(a)] = sum_j a_j, up to the mean of V in the sample."""
    rng = np.random.default_rng(0)
    a, v = rng.uniform(-2, 2, (n, 2)), 0.4 * rng.standard_normal((n, 2))
    w = a + v
    return w, a, w.sum(1) + v.sum(1) + 0.1 * rng.standard_normal(n)


ACTIONS = np.array([[0.0, 0.0], [2.0, 0.0], [-1.0, 2.0]])


def test_other_regressions_of_step_two_agree_where_the_outcome_is_linear():
    step = rep.SecondStep(*rows(), rep.Ridge(length=10.0))
    found = rep.other_effects(step, ACTIONS)
    assert set(found) == {
        "polynomial ridge", "kernel ridge, 1,000 rows", "2SLS on phi(X), linear", "2SLS on phi(X), cubic",
    }  # fmt: skip
    np.testing.assert_allclose(found["2SLS on phi(X), linear"], ACTIONS.sum(1), atol=0.2)
    np.testing.assert_allclose(found["kernel ridge, 1,000 rows"], ACTIONS.sum(1), atol=0.3)


def test_without_a_control_function_confounding_is_left_in():
    step = rep.SecondStep(*rows())
    controlled, left = (np.abs(each.effect(ACTIONS) - ACTIONS.sum(1)).max() for each in (step, step.uncontrolled()))
    assert controlled < 0.3 < left


def test_a_linear_outcome_is_regressed_on_actions_by_all_three_ways():
    _, a, _ = rows()
    y, way = 3 + a @ np.array([1.0, -2.0]), rep.Descent(steps=400, batch=100, learning_rate=1e-2)
    new = np.array([[0.5, 0.5], [-0.5, 0.2]])
    for predict in (rep.fit_linear(a, y), rep.fit_network(a, y, way), rep.fit_engression(a, y, way)):
        np.testing.assert_allclose(predict(new), 3 + new @ [1.0, -2.0], atol=0.25)


def test_two_networks_extrapolate_a_linear_outcome():
    found = rep.networks_effect(rep.SecondStep(*rows()), ACTIONS[:2], rep.Descent(400, 100, 1e-2))
    np.testing.assert_allclose(found, ACTIONS[:2].sum(1), atol=0.6)


def test_the_constraint_is_rejected_for_bent_codes_alone():
    samples = [rep.gen1(seed, 1_000, rep.Design())[1] for seed in range(4)]
    assert max(rep.constraint_p(s.z + 0.5 * s.z**2, s.a) for s in samples) < 0.05
    assert max(rep.constraint_p(s.z, s.a) for s in samples) > 0.2


def test_a_direct_effect_of_an_action_is_found_with_more_actions_than_codes():
    design = rep.Design(more=1)
    world, sample = rep.gen1(1, 1_000, design)
    p = [
        rep.overidentification_p(sample.z, sample.a, rep.Outcomes(bent=0.0, direct=direct).draw(world, sample, 1))
        for direct in (0.0, 1.0)
    ]
    assert p[1] < 0.05 < p[0]


def test_a_pool_holds_restarts_side_by_side(cases):
    pool = rep.pool([case.rows for case in cases], np.array([0, 1]), [0.0, 0.0])
    held = rep.Batch(*(part[:, :60] for part in pool.data), jnp.zeros(2), pool.own[1])
    found = rep.train_encoders(jax.random.key(0), pool, held, WAY._replace(steps=3))
    assert found.reconstruction.shape == found.restriction.shape == (2, 2)
    np.testing.assert_array_equal(found.kept, found.reconstruction.argmin(1))


def test_questions_know_the_truth_outside_of_the_support(cases):
    """The structural equation itself, given x, and the oracle's answer; errors by distance average to the error."""
    outcomes, actions = rep.Outcomes(), rep.outside(0, 50, 2, 1.0, 2.0)
    case = rep.make_case(3, rep.Design(m=4), 4_000, 60, 80)
    asked = rep.ask(case, outcomes, actions, 80, 2.0)
    assert (np.abs(asked.shifted.a).max(axis=1) > 1).all()
    own = outcomes.draw(case.world, asked.shifted, 5) - asked.given_x
    assert abs(own.std() - 0.3) < 0.08
    np.testing.assert_allclose(asked.truth, outcomes.simulated(case.world, case.sample.v, actions), atol=0.1)
    np.testing.assert_array_equal(asked.confounded(case.world.design.confounding), asked.y)
    found = asked.step(lambda sample: sample.z, rep.Ridge(50)).effect(actions)
    assert asked.error(found) < 0.5
    far = np.abs(actions).max(axis=1) - 1
    shares = [((far >= x - 0.125) & (far < x + 0.125)).mean() for x in asked.error_by_distance(found)]
    assert np.dot(shares, list(asked.error_by_distance(found).values())) == pytest.approx(asked.error(found))


def test_permuted_actions_are_the_same_actions_in_another_order(cases):
    placebo = cases[0].placebo(np.random.default_rng(0))
    assert not np.array_equal(placebo.rows.a, cases[0].rows.a)
    np.testing.assert_array_equal(np.sort(placebo.rows.a[:, 0]), np.sort(cases[0].rows.a[:, 0]))
    np.testing.assert_array_equal(placebo.rows.x, cases[0].rows.x)


def test_second_steps_are_refused_where_nothing_can_be_fitted():
    w, a, y = rows(50)
    with pytest.raises(ConfigError, match="agree in rows"):
        rep.SecondStep.of(w[:-1], a, y)
