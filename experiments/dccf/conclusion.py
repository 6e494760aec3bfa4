"""What a reader may conclude about DCCF beside LightGCN."""

import pandas as pd

from experiments.dccf.config import BASELINE, STOPPED, VALIDATED
from experiments.dccf.judges import finals, without_coordinates
from experiments.lab.summaries import difference

METHOD = "DCCF"


def conclusion(frame: pd.DataFrame) -> str:
    """How DCCF ranks beside LightGCN on the first data set that has both; empty where one was not measured.

    No winner is named where the interval of the difference holds 0, nor where runs of the loser used up their steps
    before validation stopped them: these might have become better.
    """
    for dataset in frame["dataset"].unique():
        words, sign = difference(without_coordinates(frame), dataset, METHOD, BASELINE, VALIDATED)
        if words:
            return _sentence(dataset, words, sign, unstopped(frame, dataset))
    return ""


def unstopped(frame: pd.DataFrame, dataset: str) -> dict[str, int] | None:
    """By method, how many runs used up their steps before validation stopped them; None where nothing stops runs."""
    stopped = {name: finals(frame, dataset, name, STOPPED) for name in (METHOD, BASELINE)}
    if any(values.empty for values in stopped.values()):
        return None
    return {name: int((values == 0).sum()) for name, values in stopped.items()}


def _sentence(dataset: str, words: str, sign: int, cut: dict[str, int] | None) -> str:
    how = "each after a fixed number of steps" if cut is None else "each at its best step on held-out training items"
    winner = {1: METHOD, -1: BASELINE}.get(sign)
    loser = {1: BASELINE, -1: METHOD}.get(sign)
    verdict = f"{winner} ranks better here"
    if winner is None:
        verdict = "these seeds do not tell which ranks better"
    elif cut and loser and cut[loser]:
        verdict = f"{cut[loser]} runs of {loser} used up their steps while still improving, so no winner is named"
    return f"On {dataset}, {words}, {how}: {verdict}."
