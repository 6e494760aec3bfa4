"""Numbers that others published for DCCF and its relatives, each with its source."""

from collections.abc import Iterator, Sequence

from experiments.dccf.config import BASELINE, PAPER
from experiments.lab import Published
from experiments.lab.system import Mark

_GOWALLA, _AMAZON, _TMALL = (f"{name} (DCCF's files)" for name in ("Gowalla", "Amazon-book", "Tmall"))
_PAPER = "DCCF paper, table 2"
_RERUN = "log of yuany296/ml-DCCF-reimplementation: official code, one seed, 100 epochs"
_LIGHTGCN = "README of gusye1234/LightGCN-PyTorch, 1,000 epochs, seed 2020"


def _row(dataset: str, method: str, values: Sequence[float], source: str, mark: Mark) -> Iterator[Published]:
    metrics = ("recall@20", "recall@40", "ndcg@20", "ndcg@40") if len(values) == 4 else ("recall@20", "ndcg@20")
    for metric, value in zip(metrics, values, strict=True):
        yield Published(dataset, method, metric, value, source, mark)


def _published() -> Iterator[Published]:
    for dataset, in_paper, in_log in (
        (_GOWALLA, (0.1876, 0.2644, 0.1123, 0.1323), (0.1841, 0.2599, 0.1100, 0.1298)),
        (_AMAZON, (0.0889, 0.1343, 0.0680, 0.0829), (0.0889, 0.1341, 0.0680, 0.0828)),
        (_TMALL, (0.0668, 0.1042, 0.0469, 0.0598), (0.0669, 0.1042, 0.0469, 0.0598)),
    ):
        yield from _row(dataset, "DCCF", in_paper, _PAPER, "recalled")
        yield from _row(dataset, "DCCF, rerun", in_log, _RERUN, "log")
    for name, gowalla, amazon in (
        ("-Disen", (0.1623, 0.0964), (0.0770, 0.0579)), ("-LocalR", (0.1692, 0.0996), (0.0786, 0.0593)),
        ("-DisenR", (0.1688, 0.0995), (0.0792, 0.0596)), ("-DisenG", (0.1736, 0.1038), (0.0821, 0.0626)),
        ("-AllAda", (0.1832, 0.1077), (0.0832, 0.0631)),
    ):  # fmt: skip
        yield from _row(_GOWALLA, f"DCCF {name}", gowalla, _RERUN, "log")
        yield from _row(_AMAZON, f"DCCF {name}", amazon, _RERUN, "log")
    for layers, *values in ((1, 0.1687, 0.1417), (2, 0.1786, 0.1524), (3, 0.1824, 0.1547), (4, 0.1825, 0.1537)):
        name = BASELINE if layers == PAPER.layers else f"LightGCN (L={layers})"
        yield from _row("gowalla", name, values, _LIGHTGCN, "code")
    for name, *values in (("NGCF", 0.1569, 0.1327), ("DGCF", 0.1842, 0.1561), ("UltraGCN", 0.1862, 0.1580)):
        yield from _row("gowalla", name, values, f"{name} paper", "recalled")


PUBLISHED = tuple(_published())

PEER_CURVE = {10: (0.129, 0.089), 20: (0.151, 0.104), 30: (0.163, 0.116), 40: (0.172, 0.125)}
"""R@20 and N@20 of LightGCN-PyTorch (seed 2020) on lastfm_cf after so many epochs, measured for this project."""
PEER_STEPS_PER_EPOCH = 21
