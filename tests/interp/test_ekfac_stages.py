"""Sums over examples: every order of contraction, any split of the data, padding, stacked layers, wide layers."""

import os
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import core.fit
from core.errors import CheckpointError
from core.lm.config import DecoderConfig
from core.lm.decoder import Decoder
from core.parallel import data_mesh, data_parallel, pmap_parallel, unreplicate
from interp import ekfac
from interp.ekfac.contractions import second_moments
from interp.ekfac.stages import Sums
from interp.likelihoods import Task, categorical, gaussian
from tests.interp.test_ekfac_parity import collect, gauss_newton


def net(params, example):
    h = jnp.tanh(example["x"] @ params["a"]["kernel"] + params["a"]["bias"])
    return h @ params["b"]


TASK = Task(net, categorical(lambda e: e["y"]))
SEQUENCES = Task(net, gaussian(lambda e: e["y"]))


def weights(inputs=3, hidden=4, outputs=3):
    rng = np.random.default_rng(0)
    kernel, bias, b = (rng.normal(size=s) for s in ((inputs, hidden), hidden, (hidden, outputs)))
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), {"a": {"kernel": kernel, "bias": bias}, "b": b})


def rows(n, inputs=3, classes=3):
    rng = np.random.default_rng(1)
    return {"x": jnp.asarray(rng.normal(size=(n, inputs)), jnp.float32), "y": jnp.asarray(np.arange(n) % classes)}


def sequences(n, positions, inputs=3, outputs=3):
    rng = np.random.default_rng(1)
    return {
        "x": jnp.asarray(rng.normal(size=(n, positions, inputs)), jnp.float32),
        "y": jnp.asarray(rng.normal(size=(n, positions, outputs)), jnp.float32),
    }


def captured(task, params, examples):
    return ekfac.capture(task.outputs, params, jax.tree.map(lambda leaf: leaf[0], examples))


def kfac_of(task, params, examples, fisher, batch_size=20, **options):
    """What is captured, the factors' sums and K-FAC's curvature."""
    found = captured(task, params, examples)
    sums = collect(ekfac.covariance(found, task, fisher, **options), params, examples, batch_size)
    return found, sums, ekfac.eigenbasis(found, sums)


def eigenvalues_of(task, params, examples, fisher, found, basis, **options):
    stage = ekfac.eigenvalue_correction(found, task, fisher, **options)
    return collect(stage, (params, basis), examples)


def assert_close(a, b, rtol=2e-5):
    """Equal up to rounding on the scale of each leaf."""

    def compare(x, y):
        x, y = np.asarray(x), np.asarray(y)
        np.testing.assert_allclose(x, y, rtol=rtol, atol=rtol * max(np.abs(y).max(), 1e-6))

    jax.tree.map(compare, a, b)


def assert_same_bits(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(np.asarray(x), np.asarray(y)), a, b)


def totals(sums: Sums):
    return sums.sums, sums.examples, sums.positions


sizes = st.integers(1, 4)


@settings(max_examples=6, deadline=None)
@given(stack=st.integers(1, 2), examples=sizes, positions=sizes, widths=st.tuples(sizes, sizes))
def test_second_moments_in_every_order_are_those_of_gradients_by_autodiff(stack, examples, positions, widths):
    rng = np.random.default_rng(stack)
    a, g = (jnp.asarray(rng.normal(size=(stack, examples, positions, w)), jnp.float32) for w in widths)

    @jax.jit
    def computed(a, g):
        def loss(matrix, n):
            return jnp.einsum("sti,sio,sto->", a[:, n], matrix, g[:, n])

        zeros = jnp.zeros((stack, *widths))
        expected = sum(jax.grad(loss)(zeros, n) ** 2 for n in range(examples))
        orders = ["auto", "gradient", "gram", *(["outer"] if positions == 1 else [])]
        return expected, [second_moments(a, g, widths[0], order) for order in orders]

    expected, found = computed(a, g)
    for moments in found:
        assert_close(moments, expected)


@settings(max_examples=4, deadline=None)
@given(stack=st.integers(1, 2), examples=sizes, positions=st.integers(1, 5), table=st.integers(1, 3))
def test_second_moments_of_a_lookup_are_those_of_unit_vectors(stack, examples, positions, table):
    rng = np.random.default_rng(examples)
    indices = jnp.asarray(rng.integers(table, size=(stack, examples, positions)))
    g = jnp.asarray(rng.normal(size=(stack, examples, positions, 2)), jnp.float32)
    both = jax.jit(
        lambda i, g: (second_moments(i, g, table), second_moments(jax.nn.one_hot(i, table), g, table, "gradient"))
    )
    assert_close(*both(indices, g))


def test_factors_of_a_weight_shared_over_positions_and_uses_sum_over_all_of_them():
    def twice(params, example):
        return jnp.tanh(example["x"] @ params["w"]) @ params["w"]

    task, params, examples = Task(twice, gaussian(lambda e: e["y"])), {"w": weights(3, 3)["b"]}, sequences(5, 4)
    _, sums, _ = kfac_of(task, params, examples, ekfac.empirical())

    @jax.jit
    def expected(params, examples):
        def one(example):
            def loss(first, second):
                h = jnp.tanh(example["x"] @ params["w"] + first)
                return jnp.sum((h @ params["w"] + second - example["y"]) ** 2) / 2, h

            zeros = jnp.zeros((4, 3))
            (first, second), h = jax.grad(loss, (0, 1), has_aux=True)(zeros, zeros)
            inputs, gradients = jnp.concatenate([example["x"], h]), jnp.concatenate([first, second])
            return inputs.T @ inputs, gradients.T @ gradients

        return jax.tree.map(lambda x: x.sum(axis=0), jax.vmap(one)(examples))

    assert_close((sums.sums["w"].rows[0, 0], sums.sums["w"].columns[0, 0]), expected(params, examples))
    assert float(sums.positions["w"]) == 5 * 4 * 2


@pytest.mark.parametrize(
    "task", [TASK, Task(net, gaussian(lambda e: jnp.eye(3)[e["y"]], 0.5))], ids=["softmax", "gauss"]
)
def test_the_diagonal_curvature_with_exact_fisher_is_the_diagonal_of_gauss_newton(task):
    params, train = weights(), rows(7)
    fitted = ekfac.fit_curvature(task, params, train, key=jax.random.key(0), kind="diagonal", fisher=ekfac.exact())
    found = {}
    for name, block in fitted.capture.blocks.items():
        found |= block.from_matrix(fitted.curvature[name].values)
    _, unflatten = jax.flatten_util.ravel_pytree(params)
    expected = unflatten(jnp.diag(jax.jit(lambda p, e: gauss_newton(task, p, e))(params, train)))
    assert_close({"a": {"kernel": found["a/kernel"], "bias": found["a/bias"]}, "b": found["b"]}, expected)


def test_sampled_fisher_converges_to_the_exact_one_at_the_rate_of_a_mean(record_property):
    params, train = weights(), rows(6)
    _, exact, _ = kfac_of(TASK, params, train, ekfac.exact())
    errors = {}
    for draws in (64, 4096):
        _, drawn, _ = kfac_of(TASK, params, train, ekfac.sampled(draws))
        worst = [
            float(jnp.max(jnp.abs(a.columns - b.columns)) / jnp.trace(b.columns[0, 0]))
            for a, b in zip(drawn.sums.values(), exact.sums.values(), strict=True)
        ]
        errors[draws] = max(worst)
        assert_close([f.rows for f in drawn.sums.values()], [f.rows for f in exact.sums.values()])
    record_property("value", f"relative error {errors[64]:.1e} with 64 draws, {errors[4096]:.1e} with 4,096")
    # A draw's g g^T has entries of standard deviation below its trace, and there are 6 draws x examples.
    assert all(error < 4 / (6 * draws) ** 0.5 for draws, error in errors.items())


def test_one_draw_per_example_gives_the_influence_of_the_exact_fisher(record_property):
    """Targets of their own for the eigenvalues: with those that made the basis, many outputs give .75 and 6.3."""
    rng = np.random.default_rng(0)
    params = {"w": jnp.asarray(rng.normal(size=(16, 512)) / 4, jnp.float32)}
    train = {"x": jnp.asarray(rng.normal(size=(600, 16)), jnp.float32), "y": jnp.asarray(rng.integers(0, 512, 600))}
    task = Task(lambda p, e: e["x"] @ p["w"], categorical(lambda e: e["y"]))

    def scores(fisher):
        fitted = ekfac.fit_curvature(task, params, train, key=jax.random.key(3), fisher=fisher, batch_size=100)
        return np.asarray(ekfac.influence(fitted, jax.tree.map(lambda leaf: leaf[:10], train), train, batch_size=100))

    exact, drawn = scores(ekfac.exact()).ravel(), scores(ekfac.sampled()).ravel()
    correlation, slope = np.corrcoef(exact, drawn)[0, 1], np.polyfit(exact, drawn, 1)[0]
    record_property("value", f"correlation {correlation:.3f}, slope {slope:.2f} with one draw per example, 512 outputs")
    assert correlation > 0.95
    assert 0.85 < slope < 1.2


@pytest.fixture(scope="module")
def in_one_batch():
    """Sums of both stages over 7 examples at once."""
    params, train = weights(), rows(7)
    found, sums, basis = kfac_of(TASK, params, train, ekfac.sampled(2), batch_size=7)
    return params, train, found, basis, sums, eigenvalues_of(TASK, params, train, ekfac.sampled(2), found, basis)


def stages_of(found):
    fisher = ekfac.sampled(2)
    return ekfac.covariance(found, TASK, fisher), ekfac.eigenvalue_correction(found, TASK, fisher)


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_the_batch_size_does_not_matter_nor_does_a_last_partial_batch(in_one_batch, batch_size):
    params, train, found, basis, *expected = in_one_batch
    for stage, at, whole in zip(stages_of(found), (params, (params, basis)), expected, strict=True):
        assert_close(totals(collect(stage, at, train, batch_size)), totals(whole))
        assert float(whole.examples) == 7


def test_examples_of_weight_zero_change_nothing_even_where_they_are_wild(in_one_batch):
    params, train, found, basis, *expected = in_one_batch
    wild = {"x": jnp.concatenate([train["x"], 1e3 * jnp.ones((2, 3))]), "y": jnp.append(train["y"], jnp.zeros(2, int))}
    weight = jnp.array([1.0] * 7 + [0.0] * 2)
    for stage, at, whole in zip(stages_of(found), (params, (params, basis)), expected, strict=True):
        batch = ekfac.Examples(at, wild, jnp.arange(9), weight)
        assert_close(totals(jax.jit(stage.update)(stage.init(whole.key, batch), batch)[0]), totals(whole))


def test_two_halves_merged_are_the_whole(in_one_batch):
    params, train, found, basis, *expected = in_one_batch
    for stage, at, whole in zip(stages_of(found), (params, (params, basis)), expected, strict=True):
        update, parts = jax.jit(stage.update), []
        for part in (slice(0, 4), slice(4, 7)):
            batch = ekfac.whole(at, jax.tree.map(lambda leaf, part=part: leaf[part], train), first=part.start)
            parts.append(update(stage.init(whole.key, batch), batch)[0])
        assert_close(totals(ekfac.merge(*parts)), totals(whole))


class KilledError(Exception):
    """Stands for a kill between two steps."""


def fit_in(folder, progress=None, task=TASK, hidden=4, batch_size=1, scale=1.0):
    """A curvature from 120 batches in each of two passes; checkpoints come after every chunk of 50."""
    params = jax.tree.map(lambda leaf: scale * leaf, weights(hidden=hidden))
    return ekfac.fit_curvature(
        task, params, rows(120), key=jax.random.key(3), fisher=ekfac.sampled(), batch_size=batch_size, workdir=folder,
        progress=progress,
    ).curvature  # fmt: skip


@pytest.fixture(scope="module")
def uninterrupted():
    return fit_in(None)


@pytest.fixture
def eager_saves(monkeypatch):
    monkeypatch.setattr(core.fit, "SAVE_SECONDS", 0.0)


@pytest.mark.slow
def test_a_fit_killed_in_either_pass_resumes_to_the_same_bits(tmp_path, uninterrupted, eager_saves):
    for fatal in (2, 5):  # calls of progress: three in each pass
        calls = []

        def progress(done, steps, calls=calls, fatal=fatal):
            calls.append(done)
            if len(calls) == fatal:
                raise KilledError

        with pytest.raises(KilledError):
            fit_in(tmp_path / str(fatal), progress)
        resumed = []
        found = fit_in(tmp_path / str(fatal), lambda done, steps, resumed=resumed: resumed.append(done))
        assert_same_bits(found, uninterrupted)
        assert resumed == ([100, 120, 50, 100, 120] if fatal == 2 else [100, 120])


SUICIDAL = """
import os, pathlib, signal, sys
import tests.conftest
import core.fit
from tests.interp.test_ekfac_stages import fit_in
core.fit.SAVE_SECONDS = 0.0
calls = []
def progress(done, steps):
    calls.append(done)
    if len(calls) == 6:
        os.kill(os.getpid(), signal.SIGKILL)
fit_in(pathlib.Path(sys.argv[1]), progress)
"""


def test_a_process_killed_by_sigkill_leaves_a_pass_that_resumes_to_the_same_bits(tmp_path, uninterrupted):
    here = {**os.environ, "JAX_PLATFORMS": "cpu"}
    ended = subprocess.run([sys.executable, "-c", SUICIDAL, str(tmp_path)], env=here, capture_output=True, timeout=120)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()[-2000:]
    resumed = []
    found = fit_in(tmp_path, lambda done, steps: resumed.append(done))
    assert resumed[-1] == 120
    assert len(resumed) < 3
    assert_same_bits(found, uninterrupted)


@pytest.mark.parametrize(
    "other", [{"hidden": 5}, {"scale": 2.0}, {"batch_size": 2}], ids=["widths", "parameters", "batch size"]
)
def test_a_workdir_of_other_factors_is_refused(tmp_path, other):
    fit_in(tmp_path)
    with pytest.raises(CheckpointError):
        fit_in(tmp_path, **other)


@pytest.fixture(scope="module", params=["tied", pytest.param("untied", marks=pytest.mark.slow)])
def padded(request):
    """A decoder, sequences of 3 and 5 tokens padded to 8 with arbitrary ones, and the same sequences as they are."""
    config = DecoderConfig(
        vocab_size=7, width=8, layers=1, heads=2, hidden=8, max_length=8, tied=request.param == "tied"
    )
    model = Decoder(config)

    def logits(params, example):
        return model.apply({"params": params}, example["tokens"], example["mask"])

    task = Task(logits, categorical(lambda e: e["targets"], lambda e: e["mask"]))
    rng = np.random.default_rng(0)
    tokens, targets = (jnp.asarray(rng.integers(7, size=(2, 8))) for _ in range(2))
    mask = jnp.arange(8) < jnp.array([[3], [5]])
    examples = {"tokens": tokens, "targets": targets, "mask": mask}
    alone = [jax.tree.map(lambda leaf, n=n, i=i: leaf[i : i + 1, :n], examples) for i, n in enumerate((3, 5))]
    params = jax.jit(model.init)(jax.random.key(0), tokens)["params"]
    params = jax.tree.map(lambda p: p + jnp.asarray(0.3 * rng.normal(size=p.shape), p.dtype), params)
    return task, params, examples, alone


def test_padded_tokens_change_neither_factors_nor_eigenvalues_nor_scores(padded, record_property):
    task, params, examples, alone = padded
    fisher, mask = ekfac.empirical(), lambda e: e["mask"]
    found, sums, basis = kfac_of(task, params, examples, fisher, batch_size=2, mask=mask)
    values = eigenvalues_of(task, params, examples, fisher, found, basis, mask=mask)
    damped = ekfac.damp(ekfac.corrected(found, basis, values), ekfac.heuristic())

    def scored(task, found, examples):
        return jax.jit(lambda p, d, e: ekfac.self_scores(found, task, p, d, e))(params, damped, examples)

    parts = []
    for part in alone:
        found_alone, sums_alone, _ = kfac_of(task, params, part, fisher, batch_size=1)
        values_alone = eigenvalues_of(task, params, part, fisher, found_alone, basis)
        parts.append((sums_alone, values_alone, scored(task, found_alone, part)))
    sums_alone, values_alone, scores_alone = zip(*parts, strict=True)
    assert_close(totals(sums), totals(ekfac.merge(*sums_alone)), 1e-4)
    assert_close(totals(values)[:2], totals(ekfac.merge(*values_alone))[:2], 1e-4)
    found_scores = scored(task, found, examples)
    assert_close(found_scores, jnp.concatenate(scores_alone), 1e-4)
    worst = float(jnp.max(jnp.abs(found_scores / jnp.concatenate(scores_alone) - 1)))
    record_property("value", f"scores differ by {worst:.0e} of themselves")


def test_wide_layers_in_groups_are_the_eigendecomposition_of_the_block_diagonal_part():
    params, train = weights(6, 7, 3), rows(40, 6)  # with its bias the first layer is 7 x 7
    fisher = ekfac.exact()
    found, whole_sums, _ = kfac_of(TASK, params, train, fisher)
    _, _, split = kfac_of(TASK, params, train, fisher, widest=3)
    together = (np.arange(7)[:, None] // 3 == np.arange(7) // 3)[None, None]
    factors = whole_sums.sums["a/kernel"]
    masked = factors._replace(rows=factors.rows * together, columns=factors.columns * together)
    basis = ekfac.eigenbasis(found, whole_sums._replace(sums={**whole_sums.sums, "a/kernel": masked}))
    assert split["a/kernel"].rows.shape == (1, 3, 3, 3)
    assert split["b"].rows.shape == (1, 3, 3, 3)
    gradients = {"a/kernel": jnp.asarray(np.random.default_rng(0).normal(size=(1, 7, 7)), jnp.float32)}

    def preconditioned(basis):
        values = eigenvalues_of(TASK, params, train, fisher, found, basis)
        for curvature in (basis, ekfac.corrected(found, basis, values)):
            yield ekfac.precondition(ekfac.damp(curvature, ekfac.heuristic()), gradients)["a/kernel"]

    halves = {**basis, "b": split["b"]}
    for ours, expected in zip(preconditioned(split), preconditioned(halves), strict=True):
        assert_close(ours, expected, 1e-3)


def scanned(params, tokens):
    def layer(h, own):
        return jnp.tanh(h @ own["w"] + own["b"]), None

    return jax.lax.scan(layer, params["embedding"][tokens], params["layers"])[0]


def unrolled(params, tokens):
    h = params["embedding"][tokens]
    for own in params["layers"]:
        h = jnp.tanh(h @ own["w"] + own["b"])
    return h


def language_model(states, tied):
    def logits(params, example):
        head = params["embedding"].T if tied else params["head"]
        return states(params, example["x"]) @ head

    return Task(logits, categorical(lambda e: e["y"]))


def token_rows():
    rng = np.random.default_rng(2)
    x, y = (jnp.asarray(rng.integers(6, size=(5, 4))) for _ in range(2))
    return {"x": x, "y": y}


def language_weights():
    rng = np.random.default_rng(3)
    shapes = {"embedding": (6, 4), "head": (4, 6), "layers": {"w": (3, 4, 4), "b": (3, 4)}}
    return jax.tree.map(
        lambda s: jnp.asarray(0.7 * rng.normal(size=s), jnp.float32), shapes, is_leaf=lambda s: isinstance(s, tuple)
    )


def analysed(task, params, examples):
    """Sums of factors, a basis, sums of squared gradients in it, and scores by block."""
    found, sums, basis = kfac_of(task, params, examples, ekfac.empirical())
    values = eigenvalues_of(task, params, examples, ekfac.empirical(), found, basis)
    damped = ekfac.damp(ekfac.corrected(found, basis, values), ekfac.heuristic())
    measured = ekfac.capture(task.loss, params, jax.tree.map(lambda leaf: leaf[0], examples))

    @jax.jit
    def scored(params, damped):
        prepared = ekfac.precondition(damped, ekfac.gradient_matrices(measured, params, examples))
        return ekfac.layer_scores(found, task, params, prepared, examples)

    return found, sums, basis, values, scored(params, damped)


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def stacked(request):
    task, params = language_model(scanned, request.param), language_weights()
    if request.param:
        del params["head"]
    return request.param, task, params, analysed(task, params, token_rows())


def test_scanned_layers_have_the_factors_eigenvalues_and_scores_of_unrolled_ones(stacked):
    tied, _, params, (found, sums, _, values, scores) = stacked
    assert found.blocks["layers/w"].stack == 3
    apart = {**params, "layers": [jax.tree.map(lambda leaf, i=i: leaf[i], params["layers"]) for i in range(3)]}
    task = language_model(unrolled, tied)
    _, sums_apart, _, values_apart, scores_apart = analysed(task, apart, token_rows())

    def joined(by_block):
        layers = [by_block[f"layers/{i}/w"] for i in range(3)]
        rest = {name: leaf for name, leaf in by_block.items() if not name.startswith("layers")}
        return {**rest, "layers/w": jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *layers)}

    assert_close(dict(sums.sums), joined(sums_apart.sums))
    expected = joined(values_apart.sums)
    for name, moments in values.sums.items():  # eigenvectors are the same only up to sign: squares are the same
        assert_close(moments, expected[name], 1e-4)
    # A stacked block has one lambda per layer only where damping says so: heuristic() does.
    by_layer = [scores_apart[f"layers/{i}/w"] for i in range(3)]
    assert_close(scores["layers/w"], sum(by_layer), 1e-3)
    assert_close(
        {n: scores[n] for n in scores if n != "layers/w"}, {n: scores_apart[n] for n in scores if n != "layers/w"}, 1e-3
    )


def test_eigenvalues_of_tables_are_those_of_rotated_gradients_by_autodiff(stacked):
    tied, task, params, (found, sums, basis, values, _) = stacked
    block, factors, eigen = found.blocks["embedding"], sums.sums["embedding"], basis["embedding"]
    assert block.is_lookup is not tied
    assert factors.rows.shape == ((1, 1, 6, 6) if tied else (1, 6))
    gradients = jax.jit(jax.vmap(jax.grad(task.loss), (None, 0)))(params, token_rows())["embedding"]
    rotated = gradients @ eigen.columns[0, 0]
    if tied:
        rotated = jnp.swapaxes(eigen.rows[0, 0], 0, 1) @ rotated
    else:
        counts = np.bincount(np.asarray(token_rows()["x"]).ravel(), minlength=6)
        np.testing.assert_array_equal(factors.rows[0], counts)
    assert_close(values.sums["embedding"][0], jnp.sum(rotated**2, axis=0), 1e-4)


@pytest.mark.parametrize("kind", ["covariance", "eigenvalues"])
def test_four_devices_give_the_sums_of_one(kind, record_property):
    """Over three batches that differ, with targets drawn for each example; by a mesh and by pmap."""
    data = rows(48)
    found = captured(TASK, weights(), data)
    stage, at = {
        "covariance": (ekfac.covariance(found, TASK, ekfac.sampled()), weights()),
        "eigenvalues": (ekfac.eigenvalue_correction(found, TASK, ekfac.sampled()),
                        (weights(), ekfac.standard_basis(found))),
    }[kind]  # fmt: skip
    batches = [
        jax.tree.map(jnp.asarray, ekfac.whole(at, jax.tree.map(lambda leaf, i=i: leaf[i : i + 16], data)))
        for i in (0, 16, 32)
    ]

    def summed(learner, update):
        state = learner.init(jax.random.key(0), batches[0])
        for batch in batches:
            state, _ = update(state, batch)
        return state

    assert jax.device_count() == 4
    axes = stage.layout.examples
    mesh, mapped = data_parallel(stage, data_mesh(), axes), pmap_parallel(stage, axes)
    one = summed(stage, jax.jit(stage.update))
    each = {"mesh": summed(mesh, mesh.update), "pmap": unreplicate(summed(mapped, mapped.update))}
    worst = 0.0
    for name, sums in each.items():
        pairs = list(zip(jax.tree.leaves(sums), jax.tree.leaves(one), strict=True))
        assert len(pairs) > 2, name
        for x, y in pairs:
            if jnp.issubdtype(jnp.asarray(y).dtype, jnp.floating):
                worst = max(worst, float(np.max(np.abs(np.asarray(x) - np.asarray(y))) / np.max(np.abs(np.asarray(y)))))
    record_property("value", f"{kind}: largest difference over the largest entry {worst:.1e}")
    assert worst < 1e-6
