"""Numbers that others published for DCCF and its relatives, each with its source."""

from collections.abc import Iterator

from experiments.dccf.config import BASELINE, PAPER
from experiments.lab.system import Published

OFFICIAL_GOWALLA = "Gowalla (DCCF's files)"
OFFICIAL_AMAZON = "Amazon-book (DCCF's files)"
OFFICIAL_TMALL = "Tmall (DCCF's files)"
_METRICS = ("recall@20", "recall@40", "ndcg@20", "ndcg@40")


def _published() -> Iterator[Published]:
    paper = "DCCF paper, table 2"
    rerun = "log of yuany296/ml-DCCF-reimplementation: official code, one seed, 100 epochs"
    for dataset, in_paper, in_log in (
        (OFFICIAL_GOWALLA, (0.1876, 0.2644, 0.1123, 0.1323), (0.1841, 0.2599, 0.1100, 0.1298)),
        (OFFICIAL_AMAZON, (0.0889, 0.1343, 0.0680, 0.0829), (0.0889, 0.1341, 0.0680, 0.0828)),
        (OFFICIAL_TMALL, (0.0668, 0.1042, 0.0469, 0.0598), (0.0669, 0.1042, 0.0469, 0.0598)),
    ):
        for metric, value, logged in zip(_METRICS, in_paper, in_log, strict=True):
            yield Published(dataset, "DCCF", metric, value, paper, "recalled")
            yield Published(dataset, "DCCF, rerun", metric, logged, rerun, "log")
    for name, gowalla, amazon in (
        ("DCCF -Disen", (0.1623, 0.0964), (0.0770, 0.0579)),
        ("DCCF -LocalR", (0.1692, 0.0996), (0.0786, 0.0593)),
        ("DCCF -DisenR", (0.1688, 0.0995), (0.0792, 0.0596)),
        ("DCCF -DisenG", (0.1736, 0.1038), (0.0821, 0.0626)),
        ("DCCF -AllAda", (0.1832, 0.1077), (0.0832, 0.0631)),
    ):
        for dataset, values in ((OFFICIAL_GOWALLA, gowalla), (OFFICIAL_AMAZON, amazon)):
            for metric, value in zip(("recall@20", "ndcg@20"), values, strict=True):
                yield Published(dataset, name, metric, value, rerun, "log")
    lightgcn = "README of gusye1234/LightGCN-PyTorch, 1,000 epochs, seed 2020"
    for layers, recall, ndcg in ((1, 0.1687, 0.1417), (2, 0.1786, 0.1524), (3, 0.1824, 0.1547), (4, 0.1825, 0.1537)):
        name = BASELINE if layers == PAPER.layers else f"LightGCN (L={layers})"
        yield Published("gowalla", name, "recall@20", recall, lightgcn, "code")
        yield Published("gowalla", name, "ndcg@20", ndcg, lightgcn, "code")
    for name, recall, ndcg in (("NGCF", 0.1569, 0.1327), ("DGCF", 0.1842, 0.1561), ("UltraGCN", 0.1862, 0.1580)):
        yield Published("gowalla", name, "recall@20", recall, f"{name} paper", "recalled")
        yield Published("gowalla", name, "ndcg@20", ndcg, f"{name} paper", "recalled")


PUBLISHED = tuple(_published())

PEER_CURVE = {10: (0.129, 0.089), 20: (0.151, 0.104), 30: (0.163, 0.116), 40: (0.172, 0.125)}
"""R@20 and N@20 of LightGCN-PyTorch (seed 2020) on lastfm_cf after so many epochs, measured for this project."""
PEER_STEPS_PER_EPOCH = 21
