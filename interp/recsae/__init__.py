"""RecSAE: what a recommender's activations mean, by sparse dictionaries, without changing the recommender.

::

    call, site = partial(item_scores, module), Site(method="query")
    _, x = capture(call, site)(params, histories)                     # 1. activations; a dictionary learns on them
    kept, top = strongest(one_per_item(active, items), 10)            # 2. what activates each latent most ...
    interpreter = by_attributes(present, names, items)                #    ... shares an attribute: its concept
    concepts = interpreter.describe(items[top])
    confidence(interpreter, concepts, kept, active, items, new, rng)  # 3. is it true of new sequences?
    intervene(call, site, steer(variant, sae_params, 7, ablated))     # 4. recommendations without latent 7

Wang et al., Interpret the Internal States of Recommendation Model with Sparse Autoencoder, arXiv 2411.06112.
"""

from interp.recsae.concepts import Concepts, Interpreter, by_attributes, by_language, fisher, has_concept, lift
from interp.recsae.probes import Edit, Site, capture, intervene, sites
from interp.recsae.reading import Confident, Read, most_confident, read
from interp.recsae.steering import ablated, another_active, clamped, of_latents, overlap, rescale, scaled, splice, steer
from interp.recsae.units import (
    Clusters,
    Directions,
    activity,
    clusters,
    directions,
    of_clusters,
    of_directions,
    shuffled,
)
from interp.recsae.validation import (
    Activity,
    Confidence,
    coherence,
    confidence,
    correlations,
    group_f1,
    inactive,
    one_per_item,
    scores,
    stratified,
    strongest,
)

__all__ = [
    "Activity", "Clusters", "Concepts", "Confidence", "Confident", "Directions", "Edit", "Interpreter", "Read", "Site",
    "ablated", "activity", "another_active", "by_attributes", "by_language", "capture", "clamped", "clusters",
    "coherence", "confidence", "correlations", "directions", "fisher", "group_f1", "has_concept", "inactive",
    "intervene", "lift", "most_confident", "of_clusters", "of_directions", "of_latents", "one_per_item", "overlap",
    "read", "rescale", "scaled", "scores", "shuffled", "sites", "splice", "steer", "stratified", "strongest",
]  # fmt: skip
