"""Every way to an attribution refuses examples that would give wrong numbers, by row and leaf, before any pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from core.cross_entropy import cross_entropies
from core.errors import ConfigError
from interp import attribution, ekfac
from interp.likelihoods import Task, categorical, gaussian
from tests.examples import classifier

CLASSES = 3
TASK = Task(lambda p, e: jnp.tanh(e["x"] @ p["a"]) @ p["b"], categorical(lambda e: e["y"]))
PARAMS = {"a": jnp.ones((3, 4)) / 2, "b": jnp.arange(12.0).reshape(4, CLASSES) / 6}
ROWS = {"x": jax.random.normal(jax.random.key(0), (6, 3)), "y": jnp.arange(6) % CLASSES}
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def fitted():
    return ekfac.fit_curvature(TASK, PARAMS, ROWS, key=KEY)


def vectors(rows):
    del rows
    return jax.tree.map(lambda leaf: leaf[None], PARAMS)


DOORS = {
    "fit_curvature": lambda f, bad: ekfac.fit_curvature(TASK, PARAMS, bad, key=KEY),
    "influence, train": lambda f, bad: ekfac.influence(f, ROWS, bad),
    "influence, queries": lambda f, bad: ekfac.influence(f, bad, ROWS),
    "prepared_queries": lambda f, bad: ekfac.prepared_queries(f, bad),
    "self_influence": lambda f, bad: ekfac.self_influence(f, bad),
    "most_influential": lambda f, bad: ekfac.most_influential(f, ekfac.prepared_queries(f, ROWS), bad, 2, key=KEY),
    "exact_influence": lambda f, bad: attribution.exact_influence(TASK, PARAMS, bad, ROWS, 0.1),
    "block_influence": lambda f, bad: attribution.block_influence(TASK, PARAMS, ROWS, bad, 0.1, str),
    "dot_product": lambda f, bad: attribution.dot_product(TASK, PARAMS, bad, ROWS),
    "cosine": lambda f, bad: attribution.cosine(TASK, PARAMS, ROWS, bad),
    "tracin": lambda f, bad: attribution.tracin(TASK, [PARAMS], [0.1], bad, ROWS),
    "conjugate_gradient": lambda f, bad: attribution.conjugate_gradient(TASK, PARAMS, bad, vectors(bad), 0.1, 2),
    "lissa": lambda f, bad: attribution.lissa(
        TASK, PARAMS, bad, vectors(bad), 0.1, key=KEY, sigma=1.0, batch_size=2, iterations=2
    ),
    "response": lambda f, bad: attribution.response(
        TASK, PARAMS, ROWS, ROWS, bad, damping=0.1, eps=0.1, steps=2, learning_rate=0.1
    ),
}


def with_row_2(**leaves):
    return {name: leaf.at[2].set(leaves.get(name, leaf[2])) for name, leaf in ROWS.items()}


@pytest.mark.parametrize("door", DOORS)
def test_a_label_of_no_class_is_refused_by_row(door, fitted):
    for label in (-1, CLASSES, -100):
        with pytest.raises(ConfigError, match=rf"label of row 2 is {label}, but the network has 3 classes, 0 to 2"):
            DOORS[door](fitted, with_row_2(y=label))


@pytest.mark.parametrize("door", DOORS)
def test_a_row_that_is_not_finite_is_refused_by_leaf(door, fitted):
    with pytest.raises(ConfigError, match=r"\['x'\] has nan at \[2, 0\]"):
        DOORS[door](fitted, with_row_2(x=jnp.nan))


LABELS = {
    r"\['y'\] is of type <U3, such as 'bee', not of numbers; .*np.unique": np.array(["bee"] * 6),
    "as if one-hot; pass the number of each class": np.eye(CLASSES)[np.arange(6) % CLASSES],
    r"labels must be integers, not float.*; pass labels.astype\(int\)": np.arange(6.0) % CLASSES,
    r"labels have shape \[1\], the outputs \[\]; pass labels\[..., 0\]": np.arange(6)[:, None] % CLASSES,
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("message", LABELS)
def test_labels_that_are_no_numbers_of_classes_are_refused_with_a_remedy(message, door, fitted):
    with pytest.raises(ConfigError, match=message):
        DOORS[door](fitted, {**ROWS, "y": LABELS[message]})


@pytest.mark.parametrize("door", DOORS)
def test_examples_of_another_width_are_refused(door, fitted):
    with pytest.raises(ConfigError, match="cannot be applied to an example of shapes"):
        DOORS[door](fitted, {**ROWS, "x": jnp.ones((6, 5))})


def test_features_and_margins_of_bad_rows_are_refused():
    bad = with_row_2(x=jnp.inf)
    with pytest.raises(ConfigError, match="inf at"):
        attribution.representation(lambda p, e: e["x"], PARAMS, bad, ROWS)
    pieces = attribution.label_margin(TASK), attribution.label_residual(TASK), [PARAMS]
    with pytest.raises(ConfigError, match="inf at"):
        attribution.trak(*pieces, bad, ROWS, attribution.gaussian_projection(KEY, 2))


def test_targets_of_another_shape_than_the_outputs_are_refused():
    one = Task(TASK.outputs, gaussian(lambda e: e["y"].astype(jnp.float32)))
    with pytest.raises(ConfigError, match=r"targets have shape \[\], the outputs \[3\]"):
        ekfac.fit_curvature(one, PARAMS, ROWS, key=KEY)


SEQUENCE = {"x": jax.random.normal(KEY, (4, 5, 3)), "y": jnp.arange(20).reshape(4, 5) % CLASSES}


def scores_of(likelihood, rows):
    task = Task(TASK.outputs, likelihood)
    fit = ekfac.fit_curvature(task, PARAMS, rows, key=KEY, fisher=ekfac.empirical())
    return np.asarray(ekfac.influence(fit, rows, rows))


def test_a_label_that_marks_places_is_ignored_as_a_mask_would_ignore_them():
    marked = {**SEQUENCE, "y": SEQUENCE["y"].at[:, 3:].set(-100)}
    masked = {**SEQUENCE, "mask": jnp.zeros((4, 5), bool).at[:, :3].set(True)}
    by_label = scores_of(categorical(lambda e: e["y"], ignore=-100), marked)
    by_mask = scores_of(categorical(lambda e: e["y"], lambda e: e["mask"]), masked)
    np.testing.assert_array_equal(by_label, by_mask)
    with pytest.raises(ConfigError, match="label of row 0, position 3 is -100"):
        scores_of(categorical(lambda e: e["y"], ignore=-1), marked)


def test_cross_entropies_are_nan_for_a_label_of_no_class_and_so_is_their_gradient():
    logits, labels = jax.random.normal(KEY, (5, 4)), jnp.array([0, 3, -1, 4, -100])
    plain = -jax.nn.log_softmax(logits)
    found = cross_entropies(logits, labels)
    np.testing.assert_allclose(found[:2], [plain[0, 0], plain[1, 3]], rtol=1e-6)
    assert jnp.isnan(found[2:]).all()
    gradient = jax.grad(lambda h: cross_entropies(h, labels).sum())(logits)
    assert jnp.isnan(gradient[2:]).all()
    assert jnp.isfinite(gradient[:2]).all()
    counts = jnp.array([True, False, False, False, True])
    kept = cross_entropies(logits, labels, counts, ignore=-100)
    np.testing.assert_allclose(kept, [plain[0, 0], 0, 0, 0, 0], rtol=1e-6)
    assert jnp.isfinite(jax.grad(lambda h: cross_entropies(h, labels, counts, -100).sum())(logits)).all()


def test_labels_that_are_no_integers_are_refused():
    task, params, examples = classifier()
    with pytest.raises(ConfigError, match="labels must be integers, not float32"):
        ekfac.fit_curvature(task, params, examples | {"y": examples["y"].astype("float32")}, key=jax.random.key(0))


def test_data_of_another_precision_than_the_parameters_have_the_scores_of_one_precision(fitted):
    low = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), PARAMS)
    mixed = Task(lambda p, e: TASK.outputs(p, {"x": e["x"].astype(jnp.bfloat16)}), TASK.likelihood)
    found = ekfac.influence(ekfac.fit_curvature(mixed, low, ROWS, key=KEY), ROWS, ROWS)
    plain = ekfac.influence(fitted, ROWS, ROWS)
    assert np.corrcoef(np.ravel(np.asarray(found, np.float32)), np.ravel(plain))[0, 1] > 0.99
