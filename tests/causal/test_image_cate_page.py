import re
from pathlib import Path

import numpy as np
import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "systems" / "image_cate.md"


def blocks():
    section = PAGE.read_text().split("## As a library")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


@pytest.mark.slow
def test_what_the_page_says_can_be_run():
    """With arrays of 160 units in 40 villages or tiles, and a hundredth of the steps."""
    rng = np.random.default_rng(0)
    village = np.arange(160) // 4
    t, x = (rng.uniform(size=160) < 0.4) * 1.0, rng.normal(size=(160, 3))
    given = {
        "x": x, "x_new": x[:5], "t": t, "y": x[:, 0] + t * x[:, 1] + rng.normal(size=160), "village": village,
        "tiles": rng.normal(size=(40, 15, 15, 3)), "tiles_elsewhere": rng.normal(size=(9, 15, 15, 3)), "tile": village,
        "tile_other": np.arange(160) % 9, "t_other": t, "y_other": rng.normal(size=160),
    }  # fmt: skip
    table, images = blocks()
    exec(re.sub(r"steps=(\d+)00", r"steps=\1", table), given)
    assert given["effect"].shape == given["low"].shape == (5,)
    exec(re.sub(r"steps=(\d+)00", r"steps=\1", images), given)
    assert given["p"].shape == (9, 2)
    assert given["moved"].quantiles.shape == (9, 2)
    assert given["mu"][0].shape == given["low"].shape == (2,)
