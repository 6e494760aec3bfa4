"""LightGCN: embeddings smoothed over the interaction graph, and nothing else.

He et al., LightGCN: Simplifying and Powering Graph Convolution Network for Recommendation, SIGIR 2020.
With X_0 = E0 and X_{l+1} = Abar X_l the readout is the mean of X_0, ..., X_L. L = 0 is matrix factorisation (BPR-MF).
"""

import jax
import optax
from flax import linen as nn
from flax.typing import Initializer

from core.checks import Count, Natural, NonNegative, Positive, checked
from core.learner import Learner
from rec.bpr import bpr, bpr_learner, embedding_table, embeddings, readout, squared_rows
from rec.graph import Nodes, RecGraph, propagate
from rec.sampling import Batch


@checked
class LightGCN(nn.Module):
    """Readout embeddings of all nodes."""

    dim: Count = 64
    layers: Natural = 3
    init_embeddings: Initializer = nn.initializers.normal(0.1)

    @nn.compact
    def __call__(self, graph: RecGraph) -> Nodes:
        """X_out = 1/(L+1) sum_l Abar^l E0 (eq. 8 with equal weights)."""
        return mean_of_powers(graph, embedding_table(self, graph, self.dim, self.init_embeddings), self.layers)


@checked
def mean_of_powers(graph: RecGraph, nodes: Nodes, layers: Natural) -> Nodes:
    """1/(L+1) sum_{l=0..L} Abar^l X."""
    total = nodes
    for _ in range(layers):
        nodes = propagate(graph, *nodes)
        total = jax.tree.map(lambda a, b: a + b, total, nodes)
    return jax.tree.map(lambda leaf: leaf / (layers + 1), total)


@checked
def lightgcn_loss(model: nn.Module, reg: NonNegative):
    """BPR on the readout plus reg / (2B) times the squared rows of E0 that the batch touches (eq. 15)."""

    def loss(params, key, batch: Batch):
        ranking = bpr(readout(model, params, batch.graph), batch.triples)
        penalty = squared_rows(embeddings(params), batch.triples) / (2 * batch.triples.users.shape[0])
        return ranking + reg * penalty, {"bpr": ranking}

    return loss


@checked
def lightgcn_learner(
    *,
    dim: Count = 64,
    layers: Natural = 3,
    batch_size: Count = 2048,
    learning_rate: Positive = 1e-3,
    reg: NonNegative = 1e-4,
) -> Learner:
    """LightGCN as its authors train it; with ``layers=0``, BPR-MF."""
    model = LightGCN(dim, layers)
    return bpr_learner(model, lightgcn_loss(model, reg), batch_size=batch_size, tx=optax.adam(learning_rate))
