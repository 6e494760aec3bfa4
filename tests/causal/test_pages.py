import re
from pathlib import Path

import jax
import numpy as np
import pytest

from causal import rep4ex as rep

PAGES = Path(__file__).resolve().parents[2] / "docs" / "systems"


def blocks(page: str, start: str, end: str = "\n## ") -> list[str]:
    """The code between two places of a page."""
    section = (PAGES / page).read_text().split(start)[1].split(end)[0]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


@pytest.mark.slow
def test_rep4ex_is_used_as_its_page_says(tmp_path, monkeypatch):
    """With two restarts, four steps and twenty refits, from a relative workdir."""
    monkeypatch.chdir(tmp_path)
    _, sample, y = rep.gen2(50, 1_000, rep.Design())
    actions = rep.outside(0, 9, 2, 1.0, 2.0)
    given = {
        "rep": rep, "key": jax.random.key(0), "x": sample.x, "a": sample.a, "y": y, "actions": actions,
        "x_new": sample.x[: len(actions)],
    }  # fmt: skip
    (code,) = blocks("rep4ex.md", "With arrays at hand", "Choices worth knowing")
    code = code.replace("m=x.shape[1])", "m=x.shape[1]), restarts=2, steps=4, batch=64, second=rep.Ridge(20)")
    exec(code.replace("draws=50", "draws=20"), given)
    assert given["fitted"].effect(actions).shape == (len(actions),)
    assert len(given["refits"]) == 20


@pytest.mark.slow
def test_effects_are_estimated_as_the_page_of_image_cate_says():
    """With arrays of 160 units in 40 villages or tiles, and a hundredth of the steps."""
    rng = np.random.default_rng(0)
    village = np.arange(160) // 4
    t, x = (rng.uniform(size=160) < 0.4) * 1.0, rng.normal(size=(160, 3))
    given = {
        "x": x, "x_new": x[:5], "t": t, "y": x[:, 0] + t * x[:, 1] + rng.normal(size=160), "village": village,
        "tiles": rng.normal(size=(40, 15, 15, 3)), "tiles_elsewhere": rng.normal(size=(9, 15, 15, 3)), "tile": village,
        "tile_other": np.arange(160) % 9, "t_other": t, "y_other": rng.normal(size=160),
    }  # fmt: skip
    table, images = blocks("image_cate.md", "## As a library")
    exec(re.sub(r"steps=(\d+)00", r"steps=\1", table), given)
    assert given["effect"].shape == given["low"].shape == (5,)
    exec(re.sub(r"steps=(\d+)00", r"steps=\1", images), given)
    assert given["p"].shape == (9, 2)
    assert given["moved"].quantiles.shape == (9, 2)
    assert given["mu"][0].shape == given["low"].shape == (2,)
