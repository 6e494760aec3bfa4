"""Divergences, layers, UDR, concepts and the generator against definitions and independent implementations."""

import itertools

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from hypothesis import given, settings
from sklearn.linear_model import Lasso
from sklearn.metrics import balanced_accuracy_score

from core.errors import ConfigError
from latent import scan_eeg as eeg
from latent.scan_eeg import Gaussian, classifiers
from latent.scan_eeg.scan import IGNORE, IN_COMMON, recombined
from latent.scan_eeg.udr import relative_strength

RNG = np.random.default_rng(0)


def test_divergences_and_the_elbo_equal_their_definitions(record_property):
    mean, logvar, other_mean, other_logvar = RNG.normal(size=(4, 7, 3))
    q, p = Gaussian(mean, logvar), Gaussian(other_mean, other_logvar)

    def divergence(q, p):
        """By quadrature of q log(q / p), latent by latent."""
        found = np.zeros_like(q.mean)
        for at in np.ndindex(*found.shape):
            ours, theirs = (scipy.stats.norm(g.mean[at], np.exp(g.logvar[at] / 2)) for g in (q, p))
            z = ours.mean() + ours.std() * np.linspace(-12, 12, 20_001)
            found[at] = np.trapezoid(ours.pdf(z) * (ours.logpdf(z) - theirs.logpdf(z)), z)
        return found

    unit = Gaussian(np.zeros((7, 3)), np.zeros((7, 3)))
    expected, prior, of_concept = divergence(q, p), divergence(q, unit), divergence(p, unit)
    x, decoded = RNG.normal(size=(2, 7, 2, 4))
    logits, y = RNG.normal(size=(7, 6)), RNG.integers(0, 2, (7, 6)) * 1.0
    cross_entropy = (np.logaddexp(0, logits) - y * logits).sum(1)
    with jax.enable_x64(True):
        q, p = (Gaussian(*map(jnp.asarray, each)) for each in (q, p))
        difference = max(np.abs(eeg.kl(q, p) - expected).max(), np.abs(eeg.kl_to_prior(q) - prior).max())
        assert (np.asarray(eeg.kl(q, q)) == 0).all()
        loss, _ = eeg.beta_vae_loss(q, decoded, x, 1.0)
        scan, _ = eeg.scan_loss(q, p, jnp.asarray(logits), jnp.asarray(y), 2.0, 10.0)
    loglik = scipy.stats.norm.logpdf(x, decoded).sum((1, 2)) + 8 / 2 * np.log(2 * np.pi)
    assert float(loss) == pytest.approx((-loglik + prior.sum(1)).mean(), rel=1e-6)
    whole = cross_entropy + 2 * of_concept.sum(1) + 10 * expected.sum(1)  # from the images' posterior to the concept's
    assert float(scan) == pytest.approx(whole.mean(), rel=1e-6)
    record_property("value", f"largest difference {difference:.0e}")
    assert difference < 1e-6


def transcription(means, kl, kind):
    """UDR after google-research/disentanglement_lib, in NumPy, SciPy and scikit-learn."""
    models, _, d = means.shape
    z = (means - means.mean(1, keepdims=True)) / means.std(1, keepdims=True) * (kl > 0.01)[:, None]
    pairwise = np.zeros((models, models))
    for i, j in itertools.permutations(range(models), 2):
        if kind == "lasso":
            r = np.abs(Lasso(alpha=0.1, tol=1e-8).fit(z[i], z[j]).coef_.T)
        else:
            r = np.array([[abs(scipy.stats.spearmanr(z[i][:, a], z[j][:, b])[0]) if kl[i, a] > 0.01 < kl[j, b] else 0
                           for b in range(d)] for a in range(d)])  # fmt: skip
        r = r[kl[i] > 0.01][:, kl[j] > 0.01]
        with np.errstate(invalid="ignore"):
            pairwise[i, j] = sum(np.nan_to_num(r.max(k) ** 2 / r.sum(k)).mean() / 2 for k in (0, 1))
    return pairwise, np.array([np.median(np.delete(pairwise[:, i], i)) for i in range(models)])


def pool(models=3, n=200, d=4):
    z = RNG.normal(size=(n, d))
    mixing = np.eye(d) + 0.5 * RNG.normal(size=(models, d, d))
    kl = np.full((models, d), 1.0)
    kl[0, 1] = 0.001
    return (z @ mixing + 0.3 * RNG.normal(size=(models, n, d))).astype(np.float32), kl


@pytest.mark.parametrize("kind", ["lasso", "spearman"])
def test_udr_equals_a_transcription_with_scikit_learn(kind, record_property):
    means, kl = pool()
    found = jax.jit(eeg.udr, static_argnums=2)(means, kl, kind)
    pairwise, scores = transcription(means.astype(float), kl, kind)
    off = ~np.eye(3, dtype=bool)
    np.testing.assert_allclose(np.asarray(found.pairwise)[off], pairwise[off], atol=1e-3)
    np.testing.assert_allclose(found.scores, scores, atol=1e-3)
    record_property("value", f"{kind}: largest difference {np.abs(np.asarray(found.scores) - scores).max():.0e}")


@pytest.mark.parametrize("kind", ["lasso", "spearman"])
def test_udr_knows_permutations_and_signs_from_rotations(kind, record_property):
    score = jax.jit(eeg.udr, static_argnums=2)
    means, kl = pool()
    turned, turned_kl = means.copy(), kl.copy()
    order = [2, 0, 3, 1]
    turned[1], turned_kl[1] = -means[1][:, order], kl[1][order]
    np.testing.assert_allclose(score(turned, turned_kl, kind).scores, score(means, kl, kind).scores, atol=1e-5)
    z = RNG.normal(size=(300, 4)).astype(np.float32)
    q = scipy.stats.ortho_group.rvs(4, random_state=1).astype(np.float32)
    ones = np.ones((2, 4))
    permuted, rotated = (float(score(np.stack([z, other]), ones, kind).scores[0]) for other in (z[:, order], z @ q))
    assert rotated < permuted - 0.2
    record_property("value", f"{kind}: permuted {permuted:.2f}, rotated {rotated:.2f}")


def test_nothing_in_common_and_nothing_informative_score_nothing():
    assert float(relative_strength(jnp.zeros((3, 2)), jnp.ones(3, bool), jnp.ones(2, bool))) == 0
    assert float(relative_strength(jnp.ones((3, 2)), jnp.zeros(3, bool), jnp.ones(2, bool))) == 0
    np.testing.assert_allclose(relative_strength(jnp.eye(3), jnp.ones(3, bool), jnp.ones(3, bool)), 1.0)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_layers_equal_those_of_torch_and_have_the_published_shapes(padding, record_property):
    torch = pytest.importorskip("torch")
    pad = 2 if padding == "SAME" else 0
    x = RNG.normal(size=(2, 20, 3)).astype(np.float32)
    differences = []
    for layer, peer, axes in (
        (eeg.StridedConv(5, padding=padding), torch.nn.Conv1d(3, 5, 6, 2, pad), (2, 1, 0)),
        (eeg.StridedTranspose(5, padding=padding), torch.nn.ConvTranspose1d(3, 5, 6, 2, pad), (1, 2, 0)),
    ):
        params = layer.init(jax.random.key(0), x)["params"]
        params["bias"] = jnp.arange(5.0)
        with torch.no_grad():
            peer.weight[:] = torch.tensor(np.array(params["kernel"].transpose(*axes)))
            peer.bias[:] = torch.arange(5.0)
            expected = peer(torch.tensor(x.transpose(0, 2, 1))).numpy().transpose(0, 2, 1)
        found = layer.apply({"params": params}, x)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        differences.append(np.abs(np.asarray(found) - expected).max())
    model = eeg.BetaVae(features=(32, 6) if padding == "VALID" else (32, 32), padding=padding)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 6, 256)), jnp.zeros((1, 10)))
    dense = shapes["params"]["encoder"]["dense"]["kernel"].shape
    assert dense == ((366, 128) if padding == "VALID" else (2048, 128))
    posterior, decoded = jax.eval_shape(model.apply, shapes, jnp.zeros((2, 6, 256)), jnp.zeros((2, 10)))
    assert (posterior.mean.shape, decoded.shape) == ((2, 10), (2, 6, 256))
    record_property("value", f"{padding}: differences {max(differences):.0e}, {dense[0]} features")


def test_a_length_that_the_stride_does_not_divide_is_refused():
    with pytest.raises(ConfigError, match="length 21 must be multiples of stride 2"):
        eeg.StridedConv(2).init(jax.random.key(0), jnp.zeros((1, 21, 1)))


@settings(deadline=None, max_examples=20)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=20, max_size=20))
def test_balanced_accuracy_equals_that_of_scikit_learn(pairs):
    truth, guess = np.array([*pairs, (0, 1), (1, 1)]).T  # two classes at least, which scikit-learn asks for
    guess = np.where(np.isin(guess, truth), guess, truth[0])
    expected = balanced_accuracy_score(truth, guess)
    assert float(eeg.balanced_accuracy(jnp.asarray(truth), jnp.asarray(guess), 3)) == pytest.approx(expected, abs=1e-6)


def small_grid(models):
    recordings = jax.random.normal(jax.random.key(0), (2, 12, 2, 16))
    return eeg.pool(recordings, jnp.arange(models) % 2, jnp.linspace(0.0, 8.0, models))


def test_models_of_a_pool_are_the_same_however_many_are_updated_at_once():
    grid, module = small_grid(3), eeg.BetaVae(2, 16, 2, (2, 2), 4)
    one, all_of_them = (eeg.pool_learner(module, optax.sgd(1e-2), 4, 3, n) for n in (1, None))
    start = all_of_them.init(jax.random.key(1), grid)
    found, expected = (jax.jit(learner.update)(start, grid) for learner in (one, all_of_them))
    for a, b in ((found[0].params, expected[0].params), (found[1], expected[1])):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), a, b)
    assert found[1]["loss"].shape == (3,)


def test_averages_of_few_trials_are_averages_of_trials_of_their_owner():
    single = jnp.arange(3.0)[:, None, None, None] * 10 + jnp.arange(4.0)[None, :, None, None] * jnp.ones((3, 4, 1, 2))
    data = eeg.Trials(single, single.mean(1), jnp.float32(8))
    batch = eeg.bootstrap_sampler(64)(data, jax.random.key(0), jnp.int32(3))
    owner = jnp.round((batch.target[:, 0, 0] - 1.5) / 10)
    np.testing.assert_array_less(jnp.abs(batch.x[:, 0, 0] - 10 * owner - 1.5), 1.5 + 1e-4)
    assert jnp.unique(batch.x[:, 0, 0] % 1).size > 2
    assert batch.x.shape == (64, 1, 2)


def test_planted_people_have_the_promised_effects():
    people = eeg.draw_people(jax.random.key(0), 4_000)
    factors, labels = np.asarray(people.factors), np.asarray(people.labels())
    for factor, label, effect in ((1, 1, -2.6), (2, 3, -2.6), (4, 2, -3.0)):
        found = factors[labels[:, label] == 1, factor].mean() - factors[labels[:, label] == 0, factor].mean()
        assert found == pytest.approx(effect, abs=0.2)
    assert np.abs(np.corrcoef(labels[:, 4], factors.T)[0, 1:]).max() < 0.06
    assert labels[:, 0].mean() == pytest.approx(0.5, abs=0.03)
    lpp = np.asarray(eeg.lpp_difference(eeg.clean_erps(people)))[:, 2]
    assert np.corrcoef(lpp, factors[:, 4])[0, 1] > 0.999


def test_recordings_are_corrected_and_as_noisy_as_promised():
    people = eeg.draw_people(jax.random.key(0), 25)
    recording = jax.jit(eeg.record, static_argnums=(2, 3))(jax.random.key(1), people, 20, 4)
    assert np.abs(np.asarray(recording.erp)[..., :62].mean(-1)).max() < 1e-5
    single = eeg.waveform_correlation(recording.single[:, 0], recording.clean).mean()
    averaged = eeg.waveform_correlation(recording.erp, recording.clean).mean()
    assert 0.3 < single < 0.55
    assert averaged > 0.8
    np.testing.assert_allclose(np.asarray(eeg.scaled(recording.erp)[0]).std(), 1.0, rtol=1e-5)


def test_symbols_name_what_is_mentioned():
    labels = jnp.array([[1, 0]])
    np.testing.assert_array_equal(eeg.symbols_of(labels, jnp.array([[1.0, 1.0]])), [[0, 1, 1, 0]])
    np.testing.assert_array_equal(eeg.symbols_of(labels, jnp.array([[0.0, 1.0]])), [[0, 0, 1, 0]])


def test_operators_are_union_intersection_and_difference():
    first, second = jnp.array([[1.0, 1.0, 0.0]] * 3), jnp.array([[0.0, 1.0, 1.0]] * 3)
    found = recombined(first, second, jnp.array([0, IN_COMMON, IGNORE]))
    np.testing.assert_array_equal(found, [[1, 1, 1], [0, 1, 0], [1, 0, 0]])
    drawn = eeg.draw_recombinations(jax.random.key(0), jnp.ones((300, 4), jnp.int32))
    assert np.bincount(drawn.operator, minlength=3).min() > 60


@pytest.fixture(scope="module")
def grounded():
    """Latent 0 says the first label and latent 1 the second; SCAN taught on them."""
    key = jax.random.key(0)
    labels = jax.random.bernoulli(key, 0.5, (512, 2)).astype(jnp.int32)
    noise = 0.3 * jax.random.normal(jax.random.fold_in(key, 1), (512, 3))
    mean = jnp.concatenate([1.5 * (2.0 * labels - 1), jnp.zeros((512, 1))], 1) + noise * jnp.array([1, 1, 3])
    data = eeg.Grounded(Gaussian(mean, jnp.full(mean.shape, -3.0)), labels)
    scan = eeg.SymbolVae(4, 3, 16)
    state = descend(eeg.scan_learner(scan, optax.adam(1e-2)), data, 400)
    return scan, state.params, data


def descend(learner, data, steps):
    state = learner.init(jax.random.key(2), data)
    return jax.jit(lambda s, d: jax.lax.fori_loop(0, steps, lambda _, s: learner.update(s, d)[0], s))(state, data)


def test_scan_finds_the_latent_of_each_label_and_classifies_by_it(grounded):
    scan, params, data = grounded
    strength = np.asarray(eeg.marker_strength(lambda y: scan.apply(params, y, method="encode"), 2))
    assert strength.argmax(1).tolist() == [0, 1]
    assert strength[0, 0] > 5 * strength[0, 1:].max()
    odds = eeg.classify(lambda z: scan.apply(params, z, method="decode"), data.posterior.mean)
    assert ((odds > 0) == (data.labels == 1)).mean() > 0.97
    concept = scan.apply(params, eeg.single_symbols(2)[0, 1:], method="encode")
    assert concept.logvar[0, 0] < concept.logvar[0, 1] - 1  # what is not named stays wide


def test_a_traversal_moves_one_latent():
    found = eeg.traversal(lambda z: z[:, :, None], jnp.array([1.0, 2.0, 3.0]), 1, jnp.array([-2.0, 2.0]))
    np.testing.assert_array_equal(found[..., 0], [[1, -2, 3], [1, 2, 3]])


def test_the_best_latent_is_chosen_on_the_training_people():
    labels = jnp.arange(40) % 2
    z = jnp.stack([jax.random.normal(jax.random.key(0), (40,)), labels + 0.0], axis=1)
    assert float(eeg.single_latent_accuracy(z, labels, z, labels)) == 1.0
    assert float(eeg.single_latent_accuracy(z, labels, -z[:, ::-1], labels)) < 0.9


def test_correlations_are_pearsons_and_zero_for_constants():
    z, f = RNG.normal(size=(2, 50, 2))
    z[:, 1] = 3.0
    found = np.asarray(eeg.correlations(z, f))
    np.testing.assert_allclose(found[0], [np.corrcoef(z[:, 0], f[:, k])[0, 1] for k in (0, 1)], atol=1e-5)
    np.testing.assert_array_equal(found[1], 0)


def test_a_worlds_people_are_in_units_of_the_training_averages_and_others_are_for_testing():
    worlds = eeg.draw_world(0, 30, 20, 6, 4)
    assert (worlds.train.erp.shape, worlds.test.single.shape) == ((30, 6, 256), (20, 4, 6, 256))
    np.testing.assert_allclose(jnp.std(worlds.train.erp), 1, rtol=1e-4)
    assert jnp.abs(worlds.train.factors[:20] - worlds.test.factors).max() > 0.1
    assert float(eeg.waveform_correlation(worlds.test.erp, worlds.test.clean).mean()) > 0.3


def test_reconstructions_decode_the_posterior_mean():
    model, x = eeg.BetaVae(features=(2, 2), hidden=4, latents=3), jnp.ones((2, 6, 256))
    params = model.init(jax.random.key(0), x, jnp.zeros((1, 3)))
    decoded = model.apply(params, model.apply(params, x, method="encode").mean, method="decode")
    np.testing.assert_allclose(model.apply(params, x, method="reconstruct"), decoded, rtol=1e-6)


def test_a_projection_on_all_components_is_the_identity_and_hand_made_features_are_of_the_same_people():
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(9, 2, 3)), rng.normal(size=(4, 2, 3))
    np.testing.assert_allclose(classifiers.pca_projection(train, test, 6), test, atol=1e-10)
    worlds = eeg.draw_world(0, 30, 20, 6, 4)
    for name, (first, rest) in classifiers.hand_made(worlds.train.erp, worlds.test.erp).items():
        assert (len(first), len(rest)) == (30, 20), name


def test_the_marker_of_a_label_is_the_latent_that_it_moves_most_and_the_carrier_follows_its_factor():
    correlation, strength = np.zeros((4, len(eeg.FACTORS))), np.zeros((len(eeg.LABELS), 4))
    for latent, (label, factor) in enumerate(eeg.CARRIERS.items()):
        correlation[latent, eeg.FACTORS.index(factor)] = 0.8
        strength[eeg.LABELS.index(label), latent] = 1.0
    strength[eeg.LABELS.index("sex"), 0] = 2.0  # another latent moves more
    strength[eeg.LABELS.index("random"), 3] = 0.3
    found = eeg.markers(np.ones(4, bool), correlation, strength)
    assert [found[f"marker is carrier: {label}"] for label in eeg.CARRIERS] == [1, 0, 1, 1]
    assert found["carrier in top two: sex"] == 1
    assert found["largest difference: random"] == 0.3
    last = eeg.markers(np.arange(4) < 3, correlation, strength)
    assert last["largest difference: random"] == 0.0  # the latent that it moved says nothing


def test_divergences_of_recombinations_are_those_of_the_pairs_drawn():
    labels, key = jnp.ones((50, 2), jnp.int32), jax.random.key(0)

    def encode(y):
        return Gaussian(y[:, :3], jnp.zeros((len(y), 3)))

    drawn = eeg.draw_recombinations(key, labels)
    operators = eeg.Recombination().init(key, encode(drawn.first), encode(drawn.second), drawn.operator)
    found = eeg.recombination_divergences(key, encode, operators, labels)
    for k, name in enumerate(eeg.OPERATORS):
        rows = np.asarray(drawn.operator) == k
        left = ((drawn.result - drawn.first)[rows, :3] ** 2).sum(-1).mean() / 2
        assert found[name, "first concept"] == pytest.approx(float(left), rel=1e-5, abs=1e-6)
        assert np.isfinite(found[name, "recombination"])
