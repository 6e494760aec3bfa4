"""Sparse autoencoders and transcoders: one family, any stream of activations.

    variant = sae.topk(k=32)                                # or relu_l1, gated, jumprelu, batch_topk, groupmax, ...
    learner = sae.sae_learner(variant, latents=2048, tx=optax.adam(1e-3), aux=sae.Aux())
    params = fit(with_sampler(learner, epoch_sampler(512)), vectors, key=key, steps=5_000).state.params

    code = sae.encode(variant, params, x)                   # the active latents; dense(code, m) for all
    x_hat = sae.decode(variant, params, code, x)
    sae.metrics(variant, params, vectors)                   # FVU, NMSE, L0, dead, shrinkage, frequencies

Variants are values (``Variant``): an activation, terms of the loss, a constraint, a normalisation; ``matryoshka``,
``transcoder`` and ``skip_transcoder`` make variants of variants. ``sweep`` trains many small dictionaries as one
program, ``latent_parallel`` spreads a large one over devices.
"""

from interp.sae.activations import Activation, Encoded, largest, nth_largest, selection
from interp.sae.codes import LATENT_AXIS, Code, Params, Sparse, active, dense, first_latents, frequencies, map_values
from interp.sae.initial import geometric_median, initial_params, mean, scale_encoder, zero
from interp.sae.layouts import export_weights, import_weights
from interp.sae.metrics import (
    Quality,
    absorption,
    as_dense,
    cosines,
    densities,
    divergence,
    loss_recovered,
    matched,
    max_cosines,
    metrics,
    probe_f1,
    reach,
    recovery_f1,
    splits,
)
from interp.sae.planted import Planted, draw, hierarchy, planted, sampler
from interp.sae.training import Aux, Idle, latent_parallel, merge, sae_learner, sweep
from interp.sae.variants import (
    Constraint,
    Forward,
    Variant,
    as_is,
    batch_topk,
    decode,
    encode,
    examples,
    forward,
    free,
    gated,
    groupmax,
    jumprelu,
    layer_normalised,
    matryoshka,
    multi_topk,
    reconstruct,
    relu_l1,
    scaled_by,
    second_moment,
    skip_transcoder,
    topk,
    total_variance,
    transcoder,
    unit_rows,
)

__all__ = [
    "LATENT_AXIS", "Activation", "Aux", "Code", "Constraint", "Encoded", "Forward", "Idle", "Params", "Planted",
    "Quality", "Sparse", "Variant", "absorption", "active", "as_dense", "as_is", "batch_topk", "cosines", "decode",
    "dense", "densities", "divergence", "draw", "encode", "examples", "export_weights", "first_latents", "forward",
    "free", "frequencies", "gated", "geometric_median", "groupmax", "hierarchy", "import_weights", "initial_params",
    "jumprelu", "largest", "latent_parallel", "layer_normalised", "loss_recovered", "map_values", "matched",
    "matryoshka", "max_cosines", "mean", "merge", "metrics", "multi_topk", "nth_largest", "planted", "probe_f1",
    "reach", "reconstruct", "recovery_f1", "relu_l1", "sae_learner", "sampler", "scale_encoder", "scaled_by",
    "second_moment", "selection", "skip_transcoder", "splits", "sweep", "topk", "total_variance", "transcoder",
    "unit_rows", "zero",
]  # fmt: skip
