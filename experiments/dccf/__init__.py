"""DCCF: disentangled contrastive collaborative filtering, beside the graph recommenders it grew from.

Paper: Ren, Xia, Zhao, Yin, Huang. Disentangled Contrastive Collaborative Filtering. SIGIR 2023, arXiv 2305.02759.

Claim: soft intents and learned re-weightings of the interaction graph, contrasted with the plain graph, recommend
better and more robustly than no contrast (LightGCN) or random augmentation (SGL, SimGCL).

    relic run dccf --preset small --seeds 3

``smoke`` (simulated, under a minute); ``demo`` (DCCF beside LightGCN on Last.FM artists, each stopped by validation,
under three minutes); ``small``
(all methods on Last.FM artists, ablations and robustness on simulated intents, about half an hour on two CPU cores);
``paper`` (the standard Gowalla split for as many steps as were published: meant for an accelerator).
"""

import pandas as pd

from experiments.dccf.claims import CLAIMS
from experiments.dccf.conclusion import conclusion
from experiments.dccf.config import BASELINE, DEMO, PAPER, SMALL, SMOKE
from experiments.dccf.figures import COLOURS, figures
from experiments.dccf.judges import STATISTICS, without_coordinates
from experiments.dccf.published import PUBLISHED
from experiments.dccf.study.running import run
from experiments.lab.system import System

_MEASURED_BESIDE = ("mad", "purity", "auc of true edges", "auc of wanted edges")


def tables(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Smoothness, recovered intents and edges told apart: means over seeds."""
    found = without_coordinates(frame)
    found = found[found["metric"].isin(_MEASURED_BESIDE)]
    if found.empty:
        return {}
    table = found.pivot_table(index=["dataset", "method"], columns="metric", values="value", sort=False)
    return {"Embeddings and weights": table.reset_index()}


SYSTEM = System(
    slug="dccf",
    title="Disentangled Contrastive Collaborative Filtering",
    line="intents and learned re-weightings of the interaction graph, contrasted",
    family="rec",
    paper="Ren, Xia, Zhao, Yin, Huang. SIGIR 2023. arXiv 2305.02759",
    presets={"smoke": SMOKE, "demo": DEMO, "small": SMALL, "paper": PAPER},
    run=run,
    published=PUBLISHED,
    claims=CLAIMS,
    metrics=("recall@20", "recall@40", "ndcg@20", "ndcg@40", "mrr@20", "map@20"),
    statistics=STATISTICS,
    baseline=BASELINE,
    tables=tables,
    figures=figures,
    summary=conclusion,
    colours=COLOURS,
    data=("lastfm_cf", "gowalla"),
)
