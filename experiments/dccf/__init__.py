"""DCCF: disentangled contrastive collaborative filtering, beside the graph recommenders it grew from.

Paper: Ren, Xia, Zhao, Yin, Huang. Disentangled Contrastive Collaborative Filtering. SIGIR 2023, arXiv 2305.02759.
Claim: soft intents and learned re-weightings of the interaction graph, contrasted with the plain graph, recommend
better and more robustly than no contrast (LightGCN) or random augmentation (SGL, SimGCL).
Command: ``relic run dccf --preset small --seeds 6`` (item 8a takes six seeds, the others five).
Cost: ``smoke`` (simulated) ends in under a minute; ``demo`` (DCCF beside LightGCN on Last.FM artists, each stopped by
validation) in under three; ``small`` (all methods on Last.FM artists, ablations and robustness on simulated intents,
settings chosen on held-out items) in about an hour for six seeds on two idle CPU cores; ``paper`` (the standard Gowalla
split for as many steps as were published) is meant for an accelerator.
Expect: on Last.FM artists DCCF passes R@20 = 0.20 after about 200 steps, LightGCN after 2,000; LightGCN ends higher,
N@20 0.177 against 0.161.
"""

from experiments.dccf.claims import CLAIMS
from experiments.dccf.config import BASELINE, PRESETS
from experiments.dccf.figures import COLOURS, STATISTICS, TABLES, conclusion, figures
from experiments.dccf.published import PUBLISHED
from experiments.dccf.study import plan
from experiments.lab import System

SYSTEM = System(
    slug="dccf",
    title="Disentangled Contrastive Collaborative Filtering",
    line="intents and learned re-weightings of the interaction graph, contrasted",
    family="rec",
    paper="Ren, Xia, Zhao, Yin, Huang. SIGIR 2023. arXiv 2305.02759",
    presets=PRESETS,
    plan=plan,
    published=PUBLISHED,
    claims=CLAIMS,
    metrics=("recall@20", "recall@40", "ndcg@20", "ndcg@40", "mrr@20", "map@20"),
    statistics=STATISTICS,
    baseline=BASELINE,
    tables=TABLES,
    figures=figures,
    summary=conclusion,
    colours=COLOURS,
    data=("lastfm_cf", "gowalla"),
)
