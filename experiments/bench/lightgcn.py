"""LightGCN beside PyTorch: one training epoch and one full evaluation on Last.FM artists, d = 64, L = 3, B = 2048.

The peer is the same model, loss, optimiser and number of samples with vectorised sampling, a CSR product (MKL) whose
backward pass uses that the adjacency is symmetric, and the fused Adam: the strongest form that we know of. An epoch is
everything from drawing triples to the last update; an evaluation everything from the parameters to R@20 and N@20.
"""

import math
from functools import partial

import jax
import numpy as np

from core.bench import BenchResult, beside, peer_module
from core.datasets.interactions import Interactions, load
from core.loop import scan_steps
from rec.graph import RecData
from rec.lightgcn import LightGCN, lightgcn_learner
from rec.ranking import Ranking
from rec.sampling import steps_per_epoch

DIM, LAYERS, BATCH, K = 64, 3, 2048, 20


def run() -> list[BenchResult]:
    """One epoch and one evaluation on each side."""
    interactions = load("lastfm_cf")
    peer = TorchLightGCN(interactions)
    steps = steps_per_epoch(len(interactions.train_items), BATCH)
    return [epoch(interactions, peer, steps), evaluation(interactions, peer)]


def epoch(interactions: Interactions, peer: "TorchLightGCN", steps: int) -> BenchResult:
    """Sampling and all steps of an epoch."""
    data = RecData.build(interactions)
    learner = scan_steps(lightgcn_learner(dim=DIM, layers=LAYERS, batch_size=BATCH), steps)
    update = jax.jit(learner.update, donate_argnums=0)
    state = jax.jit(learner.init)(jax.random.key(0), data)

    def ours():
        nonlocal state
        state, metrics = update(state, data)
        return metrics["loss"]

    note = f"{steps} steps of {BATCH} triples, d={DIM}, L={LAYERS}"
    return beside("LightGCN training epoch", ours, peer.name, partial(peer.epoch, steps), note=note)


def evaluation(interactions: Interactions, peer: "TorchLightGCN") -> BenchResult:
    """Propagation, ranking of all items for all users, metrics."""
    data, ranking = RecData.build(interactions), Ranking(interactions, ks=(K,))
    model = LightGCN(DIM, LAYERS)
    params, readout = model.init(jax.random.key(0), data.graph), jax.jit(model.apply)

    def ours():
        return ranking.means(readout(params, data.graph))

    note = f"{len(ranking.held_out.users):,} users x {interactions.shape[1]:,} items, k={K}"
    return beside("LightGCN full evaluation", ours, peer.name, peer.evaluate, note=note)


class TorchLightGCN:
    """LightGCN in PyTorch on the CPU."""

    def __init__(self, interactions: Interactions, block: int = 256):
        torch = peer_module("torch")
        self.torch, self.data, self.block = torch, interactions, block
        self.name = f"PyTorch {torch.__version__} CSR, {torch.get_num_threads()} threads"
        users, items = interactions.shape
        torch.manual_seed(0)
        self.table = torch.nn.Parameter(0.1 * torch.randn(users + items, DIM))
        self.optimiser = torch.optim.Adam([self.table], lr=1e-3, fused=True)
        self.adjacency = _normalised_adjacency(torch, interactions)
        self.propagate = _symmetric_product(torch, self.adjacency)
        self.degrees = torch.from_numpy(np.diff(interactions.train_indptr)).long()
        self.start = torch.from_numpy(interactions.train_indptr[:-1].astype(np.int64))
        self.items = torch.from_numpy(interactions.train_items.astype(np.int64))
        self.pairs = torch.repeat_interleave(torch.arange(users), self.degrees) * items + self.items
        self.active = torch.nonzero((self.degrees > 0) & (self.degrees < items))[:, 0]
        self._index_test_items()

    def _index_test_items(self) -> None:
        torch, (users, items) = self.torch, self.data.shape
        counts = np.diff(self.data.test_indptr)
        self.tested = torch.from_numpy(np.flatnonzero(counts))
        self.relevant = torch.from_numpy(counts[counts > 0]).long()
        self.test_pairs = torch.from_numpy(np.repeat(np.arange(users), counts) * items + self.data.test_items)

    def readout(self):
        """The mean of the powers, users and items apart."""
        total = power = self.table
        for _ in range(LAYERS):
            power = self.propagate(power)
            total = total + power
        return (total / (LAYERS + 1)).split(self.data.shape)

    def sample(self):
        """Triples, negatives redrawn while they are training items."""
        torch, num_items = self.torch, self.data.shape[1]
        users = self.active[torch.randint(len(self.active), (BATCH,))]
        positives = self.items[self.start[users] + (torch.rand(BATCH) * self.degrees[users]).long()]
        negatives = torch.randint(num_items, (BATCH,))
        while len(bad := torch.nonzero(self._contains(self.pairs, users * num_items + negatives))[:, 0]):
            negatives[bad] = torch.randint(num_items, (len(bad),))
        return users, positives, negatives

    def _contains(self, ordered, queries):
        place = self.torch.searchsorted(ordered, queries).clamp_max(len(ordered) - 1)
        return ordered[place] == queries

    def loss(self, users, positives, negatives, reg: float = 1e-4):
        """BPR and the penalty on E0."""
        torch, num_users = self.torch, self.data.shape[0]
        x, y = self.readout()
        ranking = torch.nn.functional.softplus((x[users] * (y[negatives] - y[positives])).sum(1)).mean()
        rows = self.table[torch.cat([users, num_users + positives, num_users + negatives])]
        return ranking + reg * rows.square().sum() / (2 * len(users))

    def epoch(self, steps: int) -> float:
        """Sampling and training of one epoch."""
        total = 0.0
        for _ in range(steps):
            self.optimiser.zero_grad(set_to_none=True)
            loss = self.loss(*self.sample())
            loss.backward()
            self.optimiser.step()
            total += loss.detach().item()
        return total / steps

    def evaluate(self) -> dict[str, float]:
        """R@20 and N@20 over all users with test items, in blocks of users."""
        torch, num_items = self.torch, self.data.shape[1]
        discount = 1 / torch.log2(torch.arange(2, K + 2))
        ideal = torch.cumsum(discount, 0)
        recall = ndcg = 0.0
        with torch.no_grad():
            x, y = self.readout()
            for users, relevant in zip(self.tested.split(self.block), self.relevant.split(self.block), strict=True):
                scores = x[users] @ y.T
                degrees = self.degrees[users]
                rows = torch.repeat_interleave(torch.arange(len(users)), degrees)
                within = torch.arange(len(rows)) - torch.repeat_interleave(degrees.cumsum(0) - degrees, degrees)
                scores[rows, self.items[self.start[users][rows] + within]] = -math.inf
                best = scores.topk(K).indices
                hits = self._contains(self.test_pairs, users[:, None] * num_items + best).float()
                recall += (hits.sum(1) / relevant).sum().item()
                ndcg += ((hits * discount).sum(1) / ideal[relevant.clamp_max(K) - 1]).sum().item()
        return {"recall@20": recall / len(self.tested), "ndcg@20": ndcg / len(self.tested)}


def _normalised_adjacency(torch, interactions: Interactions):
    """Abar of all nodes as a CSR tensor."""
    import scipy.sparse

    ones = np.ones(len(interactions.train_items), np.float32)
    R = scipy.sparse.csr_matrix((ones, interactions.train_items, interactions.train_indptr), interactions.shape)
    A = scipy.sparse.bmat([[None, R], [R.T, None]]).tocsr()
    scale = scipy.sparse.diags(np.maximum(np.asarray(A.sum(1))[:, 0], 1) ** -0.5)
    A = (scale @ A @ scale).tocsr().astype(np.float32)
    A.sort_indices()
    parts = torch.from_numpy(A.indptr), torch.from_numpy(A.indices), torch.from_numpy(A.data)
    return torch.sparse_csr_tensor(*parts, size=A.shape)


def _symmetric_product(torch, matrix):
    """``x -> matrix x`` whose gradient is the same product."""

    class Product(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return matrix @ x

        @staticmethod
        def backward(ctx, gradient):  # type: ignore[override]
            return matrix @ gradient

    return Product.apply
