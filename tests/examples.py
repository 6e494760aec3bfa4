"""Every learner of the project at small size: what tests/core/test_every_learner.py runs on."""

from collections.abc import Callable, Mapping
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from causal import causal_diffae, causal_vae, counterfactual_baselines
from causal import image_cate as ic
from causal import rep4ex as rep
from causal import treatment_effects as te
from causal.counterfactual_metrics import Predictor, predictor_learner
from causal.mechanisms import CausalLayer
from causal.pac_invariance import irm_learner
from core import lm
from core.early_stopping import stop_by_validation
from core.learner import LearnerLike, gradient_learner, step_key
from core.pools import Pool
from experiments.concept_space.config import Config as ConceptConfig
from experiments.concept_space.study import images
from experiments.diffusion_transforms.config import Config as RingConfig
from experiments.diffusion_transforms.study import ring_learner
from experiments.lab.system import Example
from interp import concept_space as cs
from interp import ekfac, sae
from interp.likelihoods import Task, categorical
from latent import diffusion, mm_gpvae
from latent import jepa_linear as jepa
from latent import moe_trajectories as moe
from latent import scan_eeg as eeg
from latent.film import FilmMlp
from rec.dccf import dccf_learner
from rec.dgcf import dgcf_learner
from rec.graph import RecData
from rec.graph_contrast import sgl_learner, simgcl_learner
from rec.intents import simulate
from rec.lightgcn import lightgcn_learner
from rec.sequential import (
    Bert4Rec,
    GRU4Rec,
    SASRec,
    SASRecPreNorm,
    Sequential,
    World,
    as_sequences,
    bpr_max,
    draw_walks,
    own_negatives,
    sequence_data,
    sequential_learner,
)


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

    axes = {"x": 0, "y": 0, "offset": None}
    learner = gradient_learner(lambda key, batch: module.init(key, batch["x"]), loss, optax.adam(1e-2), batch_axes=axes)
    x = jax.random.normal(jax.random.key(1), (16, 3))
    batch = {"x": x, "y": x[:, 0] ** 2, "offset": jnp.float32(0.1)}
    return Example(learner, batch)


def stopped() -> Example:
    """Least squares that stops by its error on other examples; both are spread over devices."""
    base = regression()
    inputs = Mlp()

    def score(params, held_out):
        return -jnp.mean(jnp.square(inputs.apply(params, held_out["x"]) - held_out["y"]))

    learner = stop_by_validation(base.learner, score, every=2, rounds=4, patience=2, held_out_axes=0)
    held_out = {"x": base.batch["x"][::-1], "y": base.batch["y"][::-1]}
    return Example(learner, (base.batch, held_out))


def recommender(learner: Callable[..., LearnerLike], **settings) -> Example:
    """A recommender which draws its own triples from a small simulated graph."""
    data, _ = simulate(0, users=40, items=30)
    return Example(learner(dim=8, batch_size=32, **settings), RecData.build(data))


def self_distillation(objective: jepa.Objective, decay: float | None = None) -> Example:
    """A deep linear encoder on population moments, which all replicas share."""
    features = jepa.Features(jnp.array([1.0, 0.5]), jnp.array([0.9, 0.4]))
    model = jepa.DeepLinear(2, 2, reconstructs=objective == "MAE")
    start, tx = jepa.orthogonal(model, 0.3), optax.sgd(0.1)
    if decay is not None:
        return Example(jepa.ema_target_learner(model, tx, decay, start), features.moments())
    return Example(jepa.learner(objective, model, tx, start), features.moments())


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
    return Example(learner, jax.tree.map(jnp.asarray, ekfac.whole(at, examples)))


def denoising(network: nn.Module, x: jax.Array, cond: jax.Array) -> Example:
    """A conditional diffusion model; levels and noise are functions of an example's place in the global batch."""
    losses = diffusion.denoising_loss(network.apply, diffusion.continuous_levels(diffusion.linear_logsnr(5.0, -10.0)))

    def init(key, batch):
        return network.init(key, batch["x"], jnp.zeros(batch["x"].shape[0]), cs.plain(batch["cond"]))

    def loss(params, key, batch):
        return losses(params, key, batch["x"], cs.plain(batch["cond"]))[0].mean(), {}

    learner = gradient_learner(init, loss, optax.sgd(1e-2), key_of=step_key, batch_axes=0)
    return Example(learner, {"x": x, "cond": cond})


def learned_schedule() -> Example:
    """A noise schedule and its ends, trained by the bound of a Gaussian with an exact denoiser."""
    gamma = diffusion.MonotoneGamma(width=8)
    bound = diffusion.learned_bound(gamma.apply, diffusion.gaussian(1.0, 0.25))

    def init(key, batch):
        return diffusion.Learned(jnp.float32(-5.0), jnp.float32(4.0), gamma.init(key, jnp.zeros(())), None)

    def loss(params, key, x):
        return bound(params, key, x).total.mean(), {}

    x = 1.0 + 0.5 * jax.random.normal(jax.random.key(1), (16, 3))
    return Example(gradient_learner(init, loss, optax.sgd(1e-3), key_of=step_key, batch_axes=0), x)


def points() -> Example:
    """Diffusion over vectors."""
    z = jnp.asarray(cs.corners()[jnp.arange(16) % 4], jnp.float32)
    x = cs.draw_points(jax.random.key(1), cs.World(), z)
    return denoising(cs.PointDenoiser(8, 1), x, cs.centres(cs.World(), z))


def ring() -> Example:
    """Diffusion over eight Gaussians, drawn at every step."""
    return Example(ring_learner(RingConfig(batch_size=16, width=8, steps=9)), None)


def drawn_points() -> Example:
    """Diffusion over a world of vectors, drawn at every step with what its setting hides."""
    learner = cs.point_learner(cs.PointDenoiser(8), optax.adam(1e-3), 2, 16)
    setting = {"world": cs.World(), "telling": cs.Telling(alpha=0.5, dropped=0.25)}
    return Example(learner, jax.tree.map(jnp.asarray, setting))


def discs() -> Example:
    """Diffusion over stored images of discs, drawn at every step, with dropout."""
    config = ConceptConfig(side=4, channels=(8,), images=8, batch_size=16, dropout=0.2)
    return Example(images.disc_learner(config), images.disc_data(config, cs.World(), 0))


def growth(kind: str) -> Example:
    """Two classes of growth curves, in single precision: times and outcomes of unit scale, no effect next to 0."""
    truth = moe.example_truth()._replace(
        means=jnp.array([[1.0, -0.5, 0.2], [1.5, 0.3, -0.4]]), covariance=0.2 * jnp.stack([jnp.eye(3)] * 2),
        effects=0.5 * jnp.ones((2, 3, 2)), residual=jnp.array([0.3, 0.3]), knots=jnp.array([1.5, 2.5]),
    )  # fmt: skip
    data, _ = moe.simulate(jax.random.key(1), truth, 32, 5)
    start = moe.true_params(truth)
    mixture = moe.Mixture(2)
    learner = moe.em_learner(mixture, start) if kind == "em" else moe.direct_learner(mixture, start, optax.sgd(1e-3))
    return Example(learner, data)


def invariant_risk() -> Example:
    """IRMv1; an example is an environment, by its second moments."""
    factors = jax.random.normal(jax.random.key(1), (8, 4, 6))
    return Example(irm_learner(3, 10.0, optax.adam(1e-2)), factors @ factors.transpose(0, 2, 1))


def invariant_code(coder: rep.Coder, moments: rep.Moments, limit: float | None = None) -> Example:
    """Codes that are linear in actions; statistics are of the global batch. With a limit, lambda by dual ascent."""
    x, a = (jax.random.normal(jax.random.key(i), (16, c)) for i, c in ((1, 4), (2, 2)))
    learner = rep.representation_learner(coder, optax.sgd(1e-2), moments)
    batch = rep.Batch(x, a, jnp.float32(1.0 if limit is None else limit), jnp.float32(1.5))
    return Example(learner if limit is None else rep.constrained(learner), batch)


def satellite(kind: str) -> Example:
    """Sixteen images of two units each: effect clusters under a prior that all share, or both outcomes by a network."""
    x = jax.random.normal(jax.random.key(1), (16, 6, 6, 2))
    t, y = jnp.arange(32.0).reshape(16, 2) % 2, jax.random.normal(jax.random.key(2), (16, 2))
    units, trunk = te.Units(x, t, y, jnp.ones((16, 2))), partial(ic.ConvTrunk, 3, 3, 2, channels=2)
    if kind == "outcomes":
        return Example(te.outcome_learner(te.TarNet(trunk), optax.sgd(1e-2)), units)
    model = ic.ClusterModel(ic.EffectNetwork(2, trunk), likelihood="relaxed" if kind == "relaxed" else "mixture")
    prior = ic.kernel_prior(model.init(jax.random.key(3), units))
    data = ic.Training(units, prior, jnp.float32(32))
    return Example(model.learner(optax.sgd(1e-2)), data)


def recordings(hide_behaviour: float) -> Example:
    """Sixteen trials of counts and behaviour, and the weight which they share."""
    model = mm_gpvae.MMGPVAE(
        mm_gpvae.Partition(1, 1, 1), bins=8, circle=16, shortest=4.0, neurons=3, outputs=4, neural_hidden=(4,),
        behaviour_hidden=(4,), decoder_hidden=(4,),
    )  # fmt: skip
    counts = jax.random.poisson(jax.random.key(1), 1.0, (16, 8, 3)).astype(jnp.float32)
    trials = mm_gpvae.Trials.of(counts, jax.random.normal(jax.random.key(2), (16, 8, 4)))
    learner = mm_gpvae.learner(model, optax.sgd(1e-3), hide_behaviour=hide_behaviour)
    return Example(learner, (trials, jnp.float32(0.5)))


def potentials() -> Example:
    """A beta-VAE on sixteen recordings; beta and the noise's scale are shared."""
    x = jax.random.normal(jax.random.key(1), (16, 2, 8))
    learner = eeg.vae_learner(eeg.BetaVae(2, 8, 2, (2, 2), 4), optax.sgd(1e-2))
    return Example(learner, eeg.Erps(x, x, jnp.float32(4), jnp.float32(1)))


def logic() -> Example:
    """Operators on the concepts of a frozen SCAN, which all examples share."""
    scan = eeg.SymbolVae(4, 2, 4)
    params = scan.init(jax.random.key(2), jnp.zeros((1, 4)), jnp.zeros((1, 2)))
    learner = eeg.recombination_learner(
        eeg.Recombination(4), lambda p, y: scan.apply(p, y, method="encode"), optax.sgd(1e-2)
    )
    return Example(learner, eeg.Instructed(grounded(), params))


def factors() -> Example:
    """Exact Gaussian-process factor analysis of sixteen trials."""
    learner = mm_gpvae.gpfa_learner(mm_gpvae.fourier_basis(8, 16, 4.0), 2, optax.sgd(1e-2), first_length=4.0)
    return Example(learner, jax.random.normal(jax.random.key(1), (16, 8, 4)))


def next_item(module: type[Sequential], *, hide: float | None = None, **settings) -> Example:
    """A model of the next item, with dropout, on packed walks over groups of items."""
    world = World(users=60, items=24, groups=4, longest=12)
    data = sequence_data(
        as_sequences(draw_walks(jax.random.key(1), world).items, world.items),
        length=6,
        row_length=8,
        cloze=hide is not None,
    )
    depth = {} if module is GRU4Rec else {"blocks": 1}
    model = module(world.items, 8, dropout=0.2, length=6, **depth)
    return Example(sequential_learner(model, tx=optax.sgd(1.0), batch_size=16, hide=hide, **settings), data)


def dictionary(variant: sae.Variant, *, targets: bool = False) -> Example:
    """A dictionary of planted features which calls latents dead after 24 examples, or a transcoder."""
    x = sae.draw(sae.planted(jax.random.key(1), 12, 6, 2.0), jax.random.key(2), 16)[0]
    learner = sae.sae_learner(variant, 24, optax.adam(1e-2), aux=sae.Aux(dead_after=24))
    return Example(learner, {"x": x, "y": jnp.roll(x, 1, axis=1)} if targets else x)


def texts() -> Example:
    """A small decoder on rows of random ids."""
    model = lm.Decoder(lm.DecoderConfig(vocab_size=11, width=8, layers=2, heads=2, max_length=6))
    return Example(lm.decoder_learner(model, optax.sgd(1e-2)), jax.random.randint(jax.random.key(8), (8, 7), 0, 11))


THICKER_BRIGHTER = ((0, 1), (0, 0))


def pictures() -> dict[str, jax.Array]:
    """Images of 4 x 4 with two labels."""
    x = jax.random.uniform(jax.random.key(1), (16, 4, 4, 1), minval=-1.0)
    return {"x": x, "labels": jnp.stack([x.mean((1, 2, 3)), x.max((1, 2, 3))], axis=1)}


def counterfactuals(kind: str) -> Example:
    """A model of images under a causal graph of two variables."""
    levels, tx = diffusion.chain_levels(diffusion.linear_beta(50)), optax.sgd(1e-3)
    encoder, layer = causal_diffae.MlpEncoder(2, 3, (8,)), CausalLayer(THICKER_BRIGHTER, 3, 4)
    if kind == "autoencoder":
        learner = causal_diffae.learner(causal_diffae.CausalDiffAE(encoder, FilmMlp(8, 1), layer), levels, tx)
        more = {"labelled": jnp.arange(16) % 3 > 0, "gamma": jnp.array([0.5, 0.25])}
        return Example(learner, pictures() | more)
    if kind == "labels":
        model = counterfactual_baselines.LabelDiffusion(
            FilmMlp(8, 1), counterfactual_baselines.NoisyRegressor(2, (8,)), (8,)
        )
        return Example(counterfactual_baselines.learner(model, levels, tx), pictures())
    if kind == "predictor":
        return Example(predictor_learner(Predictor(2, (8,), (4,)), tx), pictures())
    layer = causal_vae.LinearThenMask(2, 3, 4) if kind == "learned" else layer
    return Example(causal_vae.learner(causal_vae.CausalVae(encoder, layer, (4, 4, 1), (8,)), tx), pictures())


def outcome_regression(kind: str) -> Example:
    """Networks of an outcome on actions: by least squares, by the energy score, or two of them jointly."""
    a, y = jax.random.normal(jax.random.key(1), (16, 2)), jax.random.normal(jax.random.key(2), (16,))
    tx = optax.sgd(1e-2)
    if kind == "additive":
        return Example(rep.networks_learner(tx, (4,)), rep.Additive(a, jnp.flip(a), y))
    learner = rep.regression_learner if kind == "least squares" else rep.engression_learner
    return Example(learner(tx, (4,)), rep.Rows(a, y))


def pool_of_codes() -> Example:
    """Two autoencoders in each of two worlds."""
    x, a = (jax.random.normal(jax.random.key(i), (2, 16, c)) for i, c in ((1, 4), (2, 2)))
    single = rep.representation_learner(rep.Autoencoder(2, 4, (8,)), optax.sgd(1e-2))
    pool = Pool((x, a), jnp.array([0, 0, 1, 1]), (jnp.ones(4), jnp.ones(4)))
    return Example(rep.pool_learner(single, 4, 8), pool)


def pool_of_vaes() -> Example:
    """Beta-VAEs of two betas on the recordings of one world."""
    learner = eeg.pool_learner(eeg.BetaVae(2, 8, 2, (2, 2), 4), optax.sgd(1e-2), 8, 2)
    x = jax.random.normal(jax.random.key(1), (1, 16, 2, 8))
    return Example(learner, eeg.pool(x, jnp.zeros(2, jnp.int32), jnp.array([1.0, 4.0])))


def pool_of_clusters() -> Example:
    """Two effect cluster models which see the same images, each with outcomes of its own."""
    x, units = jax.random.normal(jax.random.key(1), (16, 6, 6, 2)), (2, 16, 2)
    t, y = jnp.arange(64.0).reshape(units) % 2, jax.random.normal(jax.random.key(2), units)
    model = ic.ClusterModel(ic.EffectNetwork(2, partial(ic.ConvTrunk, 3, 3, 2, channels=2)))
    axes = ic.Training(ic.SHARED_X, None, None)
    learner = ic.together(model.learner(optax.sgd(1e-2)), ic.of_units(ic.sample_images(8)), 2, axes)
    return Example(learner, ic.Training(te.Units(x, t, y, jnp.ones(units)), None, jnp.float32(32)))


def effects() -> Example:
    """The second regression of a meta-learner: effects of every unit, weighted."""
    x, value = jax.random.normal(jax.random.key(1), (16, 3)), jax.random.normal(jax.random.key(2), (16,))
    learner = te.regression_learner(te.Scalar(partial(te.Mlp, (4,))), optax.sgd(1e-2))
    return Example(learner, te.Target(x, value, jnp.linspace(0.5, 1.5, 16)))


def grounded() -> eeg.Grounded:
    """What a frozen encoder says of sixteen people, and their labels."""
    mean = jax.random.normal(jax.random.key(1), (16, 2))
    return eeg.Grounded(eeg.Gaussian(mean, jnp.full((16, 2), -1.0)), jnp.arange(32).reshape(16, 2) % 3 % 2)


def markers() -> Example:
    """The supervised network of recordings."""
    x, labels = jax.random.normal(jax.random.key(1), (16, 2, 8)), grounded().labels
    learner = eeg.supervised_learner(eeg.Encoder(2, (2, 2), 4), optax.sgd(1e-2))
    return Example(learner, eeg.Labelled(x, labels, eeg.balanced_weight(labels)))


def dictionaries() -> Example:
    """Two dictionaries of different sparsity, which see the same vectors."""
    x = sae.draw(sae.planted(jax.random.key(1), 12, 6, 2.0), jax.random.key(2), 16)[0]
    learner = sae.sweep(
        lambda row: sae.sae_learner(sae.topk(row["k"], k_max=4), 24, optax.adam(1e-2)), {"k": jnp.array([2, 3])}
    )
    return Example(learner, x)


EXAMPLES: Mapping[str, Callable[[], Example]] = {
    "regression": regression,
    "regression_stopped": stopped,
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
    "ring": ring,
    "drawn_points": drawn_points,
    "discs": discs,
    "learned_schedule": learned_schedule,
    "growth_em": partial(growth, "em"),
    "growth_direct": partial(growth, "direct"),
    "irm": invariant_risk,
    "rep4ex": partial(invariant_code, rep.Autoencoder(2, 4, (8,)), rep.v_statistic),
    "rep4ex_features": partial(
        invariant_code, rep.Autoencoder(2, 4, (8,)), rep.fourier_statistic(jax.random.normal(jax.random.key(3), (2, 8)))
    ),
    "rep4ex_constrained": partial(invariant_code, rep.Autoencoder(2, 4, (8,)), rep.u_statistic, 0.5),
    "rep4ex_ivae": partial(invariant_code, rep.Vae(2, 4, (8,), auxiliary=True), rep.v_statistic),
    "effect_clusters": partial(satellite, "clusters"),
    "effect_clusters_relaxed": partial(satellite, "relaxed"),
    "tarnet": partial(satellite, "outcomes"),
    "mm_gpvae": partial(recordings, 0.3),
    "gpfa": factors,
    "scan_beta_vae": potentials,
    "scan_operators": logic,
    "sasrec": partial(next_item, SASRec),
    "sasrec_prenorm": partial(next_item, SASRecPreNorm, criterion=bpr_max, negatives=own_negatives(3)),
    "gru4rec": partial(next_item, GRU4Rec),
    "bert4rec": partial(next_item, Bert4Rec, hide=0.3),
    "sae_topk": lambda: dictionary(sae.topk(3)),
    "sae_batch_topk": lambda: dictionary(sae.batch_topk(3)),
    "sae_gated": lambda: dictionary(sae.gated(0.01)),
    "sae_transcoder": lambda: dictionary(sae.skip_transcoder(sae.multi_topk(2)), targets=True),
    "decoder": texts,
    "causal_diffae": partial(counterfactuals, "autoencoder"),
    "label_diffusion": partial(counterfactuals, "labels"),
    "causal_vae": partial(counterfactuals, "learned"),
    "scm_vae": partial(counterfactuals, "known"),
    "anticausal_predictor": partial(counterfactuals, "predictor"),
    "engression": partial(outcome_regression, "energy"),
    "outcome_regression": partial(outcome_regression, "least squares"),
    "additive_regression": partial(outcome_regression, "additive"),
    "effect_regression": effects,
    "scan_symbols": lambda: Example(eeg.scan_learner(eeg.SymbolVae(4, 2, 4), optax.sgd(1e-2)), grounded()),
    "scan_supervised": markers,
    "pool_of_codes": pool_of_codes,
    "pool_of_vaes": pool_of_vaes,
    "pool_of_clusters": pool_of_clusters,
    "sae_sweep": dictionaries,
}

NO_EXAMPLE: Mapping[str, str] = {
    **dict.fromkeys(
        ("accumulate", "gradient_learner", "replicate_seeds", "with_ema", "with_sampler"),
        "makes a learner of parts or of another learner; tests/core/test_learner.py",
    ),
    "scan_steps": "a learner of another one's steps; every example is scanned",
    **dict.fromkeys(("data_parallel", "pmap_parallel"), "lays a learner over devices; every example is laid so"),
    "latent_parallel": "lays a dictionary over a mesh of two axes; tests/interp/test_sae_training.py",
}
"""Functions that return a learner and have no example, and why."""
