"""What influences look like on a decoder trained on planted facts, whose sources are known."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from core.fit import fit
from core.learner import stream
from experiments.ekfac_influence.config import Config
from experiments.ekfac_influence.study.pages import Attribution, Page, Query, write_page, write_terminal
from experiments.ekfac_influence.study.problems import batch_learner, decoder, sequence_task
from experiments.lab.system import Context
from interp import candidates, ekfac
from interp import influence_statistics as statistics
from interp.likelihoods import Task
from interp.planted_facts import Corpus, planted_facts, token_names

WHERE = r"layers/(attention|mlp)/"
"""The linear maps of the blocks: attention and MLP."""
BATCH = 64
DATASET = "planted facts"


@dataclasses.dataclass(frozen=True)
class Study:
    """A trained decoder on its corpus, and all influences on all queries."""

    corpus: Corpus
    task: Task
    fitted: ekfac.Fitted
    prepared: dict[str, Any]
    train: dict[str, Any]
    scores: np.ndarray

    @property
    def own(self) -> np.ndarray:
        """[query, sequence]: which sequences state the query's fact."""
        return np.asarray(self.corpus.sequences.fact) == np.asarray(self.corpus.queries.fact)[:, None]

    def stated(self, order: int, language: int = 0) -> np.ndarray:
        """Of these, the ones with the names in this order and language."""
        s = self.corpus.sequences
        return self.own & (np.asarray(s.order) == order) & (np.asarray(s.language) == language)


def study(config: Config, context: Context, seed: int, size: int) -> None:
    """Trains one size of decoder and notes everything that is measured of its influences."""
    width, depth = config.widths[size], config.depths[size]
    context.say(f"ekfac_influence: decoder of width {width}, {depth} blocks, seed {seed}")
    found = build(config, seed, width, depth, context)
    note = functools.partial(
        context.record, dataset=DATASET, method=f"decoder {width} x {depth}", seed=seed, width=width
    )
    for metric, value in measured(config, found).items():
        note(metric=metric, value=value)
    if size == len(config.widths) - 1:
        for metric, value in close_up(config, found).items():
            note(metric=metric, value=value)
        for name, share in layer_shares(config, found).items():
            note(metric="share of influence", value=share, layer=name)
        for rank, value in enumerate(np.sort(found.scores, axis=1)[:, ::-1].mean(0)[: found.scores.shape[1] // 4]):
            if rank < 10 or np.log2(rank + 1) % 0.25 < 1e-9 or rank % max(1, found.scores.shape[1] // 64) == 0:
                note(metric="influence by rank", value=float(value), rank=rank + 1)
        shown, folder = page(config, found), context.workdir / "pages"
        write_page(shown, folder / f"influence-{seed}.html")
        write_terminal(shown, folder / f"influence-{seed}.ansi")


def build(config: Config, seed: int, width: int, depth: int, context: Context) -> Study:
    """The corpus, a trained decoder, its curvature and all scores."""
    key = jax.random.key(seed)
    corpus = jax.jit(planted_facts, static_argnums=1)(stream(key, "corpus"), config.corpus)
    model = decoder(config.corpus, width, depth)
    task = sequence_task(model)
    rows = {"tokens": corpus.sequences.tokens, "mask": corpus.sequences.mask}

    def init(key):
        return model.init(key, corpus.sequences.tokens[0][:-1])["params"]

    learner = batch_learner(task, init, config.corpus_steps, min(BATCH, len(rows["mask"])))
    progress = context.progress(f"decoder {width} x {depth}, seed {seed}")
    own = f"{width}x{depth}-{seed}"
    decoder_folder, curvature_folder = (context.workdir / f"{what}-{own}" for what in ("decoder", "curvature"))
    params = fit(
        learner, rows, key=stream(key, "training"), steps=config.corpus_steps, progress=progress, workdir=decoder_folder
    ).state.params  # fmt: skip
    fitted = ekfac.fit_curvature(
        task, params, rows, key=stream(key, "targets"), where=WHERE, mask=lambda e: e["mask"][:-1], batch_size=BATCH,
        workdir=curvature_folder,
    )  # fmt: skip
    queries = {"tokens": corpus.queries.tokens, "mask": corpus.queries.mask}
    prepared = ekfac.prepared_queries(fitted, queries, where=WHERE)
    return Study(corpus, task, fitted, prepared, rows, all_scores(fitted, prepared, rows))


def all_scores(fitted: ekfac.Fitted, prepared: dict[str, Any], rows: dict[str, Any]) -> np.ndarray:
    """Scores of all sequences for all queries."""

    @jax.jit
    def compute(params, prepared, rows):
        score = functools.partial(ekfac.pairwise, fitted.capture, fitted.task, params, prepared)
        return ekfac.in_batches(score, rows, BATCH)

    return np.asarray(compute(fitted.params, prepared, rows))


def measured(config: Config, found: Study) -> dict[str, float]:
    """What is measured of every size."""
    scores, s, q = found.scores, found.corpus.sequences, found.corpus.queries
    losses = jax.jit(jax.vmap(found.task.loss, (None, 0)))(found.fitted.params, {"tokens": q.tokens, "mask": q.mask})
    top = np.argsort(-scores, axis=1, kind="stable")[:, : config.top]
    same, flipped = (statistics.group_means(scores, found.stated(order)) for order in (0, 1))
    filler = np.broadcast_to(np.asarray(s.fact) < 0, scores.shape)
    spread = scores.std(axis=1)
    values = {
        "query loss": float(jnp.mean(losses)),
        "recall of same-order statements": float(np.nanmean(statistics.recall(scores, found.stated(0)))),
        "recall of flipped statements": float(np.nanmean(statistics.recall(scores, found.stated(1)))),
        "same-order influence": float(np.mean(same / spread)),
        "flipped influence": float(np.mean(flipped / spread)),
        "filler influence": float(np.mean(statistics.group_means(scores, filler) / spread)),
        "flipped over same": float(np.mean(flipped) / np.mean(same)),
        "token overlap of the top": float(
            np.mean(statistics.token_overlap(q.tokens, np.asarray(s.tokens)[top], found.corpus.content))
        ),
    }
    translated = np.asarray(q.translated)
    if translated.any():
        other = statistics.group_means(scores[translated], found.stated(0, language=1)[translated])
        values["other-language influence"] = float(np.mean(other / spread[translated]))
    for k, share in zip((1, 5, 10), statistics.positive_share(scores).T, strict=True):
        values[f"share of the top {k} %"] = float(np.nanmean(share))
    positive = scores[(np.quantile(scores, 0.95, axis=1) > 0)]
    if len(positive):
        tail = statistics.tail(positive, 0.95)
        values |= {
            "tail exponent": float(np.median(tail.exponent)),
            "power law over exponential": float(np.mean(tail.versus_exponential)),
        }
    return values


def close_up(config: Config, found: Study) -> dict[str, float]:
    """What is measured of the largest decoder only: tokens, the filter, the low rank."""
    s, q = found.corpus.sequences, found.corpus.queries
    best = np.argmax(np.where(found.stated(0), found.scores, -np.inf), axis=1)
    tokens = token_scores(found, best)
    shares = statistics.concentration(
        tokens, shifted(np.asarray(s.object_mask)[best]), shifted(np.asarray(s.mask)[best])
    )
    state = candidates.update(candidates.init(config.corpus.vocabulary), s.tokens, s.mask)
    asked = q.tokens != 0
    ranked = jax.jit(candidates.scores)(candidates.inverse_document_frequency(state), q.tokens, asked, s.tokens, s.mask)
    kept = np.asarray(candidates.keep(ranked, max(1, round(config.candidates * ranked.shape[1]))))
    top = np.argsort(-found.scores, axis=1, kind="stable")[:, : min(100, found.scores.shape[1] // 8)]
    low = jax.jit(lambda prepared: ekfac.low_rank(prepared, config.rank))(found.prepared)
    approximate = all_scores(found.fitted, low, found.train)
    ranks = (scipy.stats.rankdata(side, axis=1) for side in (approximate, found.scores))
    spearman = [np.corrcoef(*pair)[0, 1] for pair in zip(*ranks, strict=True)]
    return {
        "attribution on the object": float(np.nanmean(shares.share)),
        "attribution on the object, evenly spread": float(np.mean(shares.expected)),
        "filter's recall of the top 100": float(
            np.mean([np.isin(t, k).mean() for t, k in zip(top, kept, strict=True)])
        ),
        "low rank's Spearman correlation": float(np.mean(spearman)),
    }


def shifted(mask: np.ndarray) -> np.ndarray:
    """Marks of predicted tokens moved to the positions that predict them."""
    return mask[:, 1:]


def token_scores(found: Study, chosen: np.ndarray) -> np.ndarray:
    """[query, T - 1]: token attributions of one chosen sequence per query."""
    rows = jax.tree.map(lambda leaf: leaf[chosen], found.train)
    positions = found.train["tokens"].shape[1] - 1

    @jax.jit
    def compute(params, prepared, rows):
        def one(prepared, row):
            prepared, row = jax.tree.map(lambda leaf: leaf[None], (prepared, row))
            return ekfac.token_scores(found.fitted.capture, found.task, params, prepared, row, positions)[0, 0]

        return jax.lax.map(lambda pair: one(*pair), (prepared, rows))

    return np.asarray(compute(found.fitted.params, found.prepared, rows))


def by_layer(found: Study) -> dict[str, np.ndarray]:
    """Scores [query, sequence] by map and depth."""
    split: dict[str, np.ndarray] = {}
    stack = next(iter(found.prepared.values())).shape[1]
    for layer in range(stack):
        only = {name: matrix.at[:, jnp.arange(stack) != layer].set(0) for name, matrix in found.prepared.items()}

        @jax.jit
        def compute(params, prepared, rows):
            score = functools.partial(ekfac.layer_scores, found.fitted.capture, found.task, params, prepared)
            return ekfac.in_batches(score, rows, BATCH)

        found_here = compute(found.fitted.params, only, found.train)
        split |= {f"{layer}/{name.split('/')[-2]}": np.asarray(score) for name, score in found_here.items()}
    return split


def layer_shares(config: Config, found: Study) -> dict[str, float]:
    """The share of every block's attention and MLP in the influence of the top sequences."""

    def group(name: str) -> str:
        layer, kind = name.split("/")
        return f"block {layer} {'MLP' if kind in ('up', 'down', 'gate') else 'attention'}"

    return {k: float(np.nanmean(v)) for k, v in statistics.layer_shares(by_layer(found), group, config.top).items()}


def page(config: Config, found: Study, query: int = 0, shown: int = 5) -> Page:
    """The query's most influential sequences, token by token."""
    names = np.array(token_names(found.corpus.translation, config.corpus))
    s, q, scores = found.corpus.sequences, found.corpus.queries, found.scores[query]
    layers = by_layer(found)

    def attribution(row: int, tokens: np.ndarray) -> Attribution:
        real = np.asarray(s.mask[row])
        fact, order = int(s.fact[row]), int(s.order[row])
        label = "filler" if fact < 0 else f"fact {fact}, {('A before B', 'B before A')[order]}"
        text = names[np.asarray(s.tokens[row])[real]]
        felt = np.concatenate([[0.0], tokens])[real]
        by_block = {name: float(score[query, row]) for name, score in layers.items()}
        return Attribution(str(row), list(text), list(map(float, felt)), float(scores[row]), label, by_block)

    def chosen(order: np.ndarray) -> list[Attribution]:
        one = dataclasses.replace(
            found, prepared=jax.tree.map(lambda leaf: jnp.repeat(leaf[query][None], shown, 0), found.prepared)
        )
        return [attribution(int(row), tokens) for row, tokens in zip(order, token_scores(one, order), strict=True)]

    asked = np.asarray(q.tokens[query]) != 0
    text = list(names[np.asarray(q.tokens[query])[asked]])
    measured_tokens = list(np.asarray(q.mask[query])[asked])
    order = np.argsort(-scores, kind="stable")
    return Page(
        f"What taught the decoder fact {query}",
        Query(text, measured_tokens),
        chosen(order[:shown]),
        chosen(order[::-1][:shown]),
        note="A decoder of the planted corpus; colours are attributions of EK-FAC influence to predicted tokens.",
    )
