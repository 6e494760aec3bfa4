"""What influences look like on a decoder trained on planted facts, whose sources are known."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from core.fit import fit
from core.learner import stream
from experiments.ekfac_influence.config import Config
from experiments.ekfac_influence.study.pages import influential, write_page, write_terminal
from experiments.ekfac_influence.study.problems import decoder
from experiments.lab import Context
from interp import candidates, ekfac
from interp import influence_statistics as statistics
from interp.attribution import batch_learner
from interp.likelihoods import next_token_task
from interp.planted_facts import Corpus, planted_facts

WHERE = r"layers/(attention|mlp)/"
"""The linear maps of the blocks: attention and MLP."""
BATCH = 64
DATASET = "planted facts"


@dataclasses.dataclass(frozen=True)
class Study:
    """A trained decoder on its corpus, and all influences on all queries."""

    corpus: Corpus
    fitted: ekfac.Fitted
    prepared: dict[str, Any]
    train: dict[str, Any]
    queries: dict[str, Any]
    scores: np.ndarray

    def above(self, count: int) -> np.ndarray:
        """[query, count]: the sequences with the highest scores."""
        return np.argsort(-self.scores, axis=1, kind="stable")[:, :count]

    def token_scores(self, chosen: np.ndarray, query: int | None = None) -> np.ndarray:
        """[sequence, T - 1]: what tokens contribute, of one chosen sequence per query, or of several to one query."""
        rows, prepared = jax.tree.map(lambda leaf: leaf[chosen], self.train), self.prepared
        if query is not None:
            prepared = jax.tree.map(lambda leaf: jnp.repeat(leaf[query][None], len(chosen), 0), prepared)
        positions = self.train["tokens"].shape[1] - 1
        return np.asarray(ekfac.paired_token_scores(self.fitted, prepared, rows, positions))


def study(config: Config, context: Context, *, seed: int, size: int) -> None:
    """Trains one size of decoder and notes everything that is measured of its influences."""
    width, depth = config.widths[size], config.depths[size]
    found = build(config, seed, width, depth, context)
    at = context.at(dataset=DATASET, method=f"decoder {width} x {depth}", seed=seed, width=width)
    at.record_all(measured(config, found))
    if size < len(config.widths) - 1:
        return
    at.record_all(close_up(config, found))
    by_layer = ekfac.depth_scores(found.fitted, found.prepared, found.train)
    layers = {name: np.asarray(scores) for name, scores in by_layer.items()}
    for name, share in statistics.layer_shares(layers, block_of, config.top).items():
        at.record("share of influence", np.nanmean(share), layer=name)
    columns = found.scores.shape[1]
    for rank, value in enumerate(np.sort(found.scores, axis=1)[:, ::-1].mean(0)[: columns // 4]):
        if rank < 10 or np.log2(rank + 1) % 0.25 < 1e-9 or rank % max(1, columns // 64) == 0:
            at.record("influence by rank", value, rank=rank + 1)
    page = influential(found.corpus, config.corpus, found.scores, layers, found.token_scores)
    write_page(page, context.workdir / "pages" / f"influence-{seed}.html")
    write_terminal(page, context.workdir / "pages" / f"influence-{seed}.ansi")


def build(config: Config, seed: int, width: int, depth: int, context: Context) -> Study:
    """The corpus, a trained decoder, its curvature and all scores."""
    key = jax.random.key(seed)
    corpus = jax.jit(planted_facts, static_argnums=1)(stream(key, "corpus"), config.corpus)
    model = decoder(config.corpus, width, depth)
    task = next_token_task(model)
    rows, queries = ({"tokens": part.tokens, "mask": part.mask} for part in (corpus.sequences, corpus.queries))

    def init(key):
        return model.init(key, corpus.sequences.tokens[0][:-1])["params"]

    learner = batch_learner(task, init, config.corpus_steps, min(BATCH, len(rows["mask"])))
    folders = (context.workdir / f"{what}-{width}x{depth}-{seed}" for what in ("decoder", "curvature"))
    params = fit(
        learner, rows, key=stream(key, "training"), steps=config.corpus_steps, workdir=next(folders),
        progress=context.progress(f"decoder {width} x {depth}, seed {seed}"),
    ).state.params  # fmt: skip
    fitted = ekfac.fit_curvature(
        task, params, rows, key=stream(key, "targets"), where=WHERE, mask=lambda e: e["mask"][:-1], batch_size=BATCH,
        workdir=next(folders),
    )  # fmt: skip
    prepared = ekfac.prepared_queries(fitted, queries, where=WHERE)
    scores = np.asarray(ekfac.prepared_influence(fitted, prepared, rows, BATCH))
    return Study(corpus, fitted, prepared, rows, queries, scores)


def measured(config: Config, found: Study) -> dict[str, float]:
    """What is measured of every size."""
    scores, s, q = found.scores, found.corpus.sequences, found.corpus.queries
    stated, spread = [found.corpus.stated(order) for order in (0, 1)], scores.std(axis=1)
    same, flipped = (statistics.group_means(scores, each) for each in stated)
    filler = np.broadcast_to(np.asarray(s.fact) < 0, scores.shape)
    top = np.asarray(s.tokens)[found.above(config.top)]
    values = {
        "query loss": jnp.mean(
            jax.jit(jax.vmap(found.fitted.task.loss, (None, 0)))(found.fitted.params, found.queries)
        ),
        "recall of same-order statements": np.nanmean(statistics.recall(scores, stated[0])),
        "recall of flipped statements": np.nanmean(statistics.recall(scores, stated[1])),
        "same-order influence": np.mean(same / spread),
        "flipped influence": np.mean(flipped / spread),
        "filler influence": np.mean(statistics.group_means(scores, filler) / spread),
        "flipped over same": np.mean(flipped) / np.mean(same),
        "same order above flipped": np.mean(same > flipped),
        "token overlap of the top": np.mean(statistics.token_overlap(q.tokens, top, found.corpus.content)),
    }
    translated = np.asarray(q.translated)
    if translated.any():
        other = statistics.group_means(scores[translated], found.corpus.stated(0, language=1)[translated])
        values["other-language influence"] = np.mean(other / spread[translated])
    for k, share in zip((1, 5, 10), statistics.positive_share(scores).T, strict=True):
        values[f"share of the top {k} %"] = np.nanmean(share)
    positive = scores[(np.quantile(scores, 0.95, axis=1) > 0)]
    if len(positive):
        tail = statistics.tail(positive, 0.95)
        values |= {
            "tail exponent": np.median(tail.exponent),
            "power law over exponential": np.mean(tail.versus_exponential),
        }
    return {name: float(value) for name, value in values.items()}


def close_up(config: Config, found: Study) -> dict[str, float]:
    """What is measured of the largest decoder only: tokens, the filter, the low rank, and the dot product beside."""
    s, q, scores = found.corpus.sequences, found.corpus.queries, found.scores
    own = found.corpus.stated(0)
    best = np.argmax(np.where(own, scores, -np.inf), axis=1)
    # Token t is predicted at position t - 1, so that marks move by one.
    marks = [np.asarray(mask)[best][:, 1:] for mask in (s.object_mask, s.mask)]
    shares = statistics.concentration(found.token_scores(best), *marks)
    state = candidates.update(candidates.init(config.corpus.vocabulary), s.tokens, s.mask)
    frequency = candidates.inverse_document_frequency(state)
    ranked = jax.jit(candidates.scores)(frequency, q.tokens, q.tokens != 0, s.tokens, s.mask)
    kept = np.asarray(candidates.keep(ranked, max(1, round(config.candidates * ranked.shape[1]))))

    def recalled(count: int) -> float:
        return float(np.mean([np.isin(t, k).mean() for t, k in zip(found.above(count), kept, strict=True)]))

    low = jax.jit(lambda prepared: ekfac.low_rank(prepared, config.rank))(found.prepared)
    approximate = np.asarray(ekfac.prepared_influence(found.fitted, low, found.train, BATCH))
    ranks = (scipy.stats.rankdata(side, axis=1) for side in (approximate, scores))
    plain = found.fitted._replace(curvature=ekfac.standard_basis(found.fitted.capture))
    gradients = ekfac.prepared_queries(plain, found.queries, where=WHERE)
    dot = np.asarray(ekfac.prepared_influence(plain, gradients, found.train, BATCH))
    values = {
        "attribution on the object": np.nanmean(shares.share),
        "attribution on the object, evenly spread": np.mean(shares.expected),
        "filter's recall of the top 10": recalled(min(10, scores.shape[1] // 8)),
        "filter's recall of the top 100": recalled(min(100, scores.shape[1] // 8)),
        "filter's recall by chance": kept.shape[1] / scores.shape[1],
        "low rank's Spearman correlation": np.mean([np.corrcoef(*pair)[0, 1] for pair in zip(*ranks, strict=True)]),
        "recall of same-order statements by dot product": np.nanmean(statistics.recall(dot, own)),
    }
    return {name: float(value) for name, value in values.items()}


def block_of(name: str) -> str:
    """Attention or MLP of a block, from depth and map ("0/up")."""
    layer, kind = name.split("/")
    return f"block {layer} {'MLP' if kind in ('up', 'down', 'gate') else 'attention'}"
