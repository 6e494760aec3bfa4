"""The recipes of docs/your_data.md run as they stand, on small files, and what does not fit is refused by name."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PAGE = (Path(__file__).parents[1] / "docs" / "your_data.md").read_text()
RECIPES = {
    title: "\n".join(re.findall(r"^```python\n(.*?)^```$", body, re.DOTALL | re.MULTILINE))
    for title, body in re.findall(r"^## ([^\n]*)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a recipe in a folder of its own, with some names given, and returns all names that it leaves."""
    monkeypatch.chdir(tmp_path)

    def run(title: str, **given: Any) -> dict[str, Any]:
        names = {"__name__": "recipe", **given}
        exec(compile(RECIPES[title], f"docs/your_data.md: {title}", "exec"), names)
        return names

    return run


def test_ratings_to_recommendations(run, tmp_path):
    rng = np.random.default_rng(0)
    rows = []
    for user in range(60):  # two tastes: even users like even movies
        liked = 2 * rng.permutation(20)[:12] + user % 2
        disliked = 2 * rng.permutation(20)[:4] + 1 - user % 2
        rows += [(f"00{user}", f"m{i}", 5, t) for t, i in enumerate(liked)]
        rows += [(f"00{user}", f"m{i}", 1, 20 + t) for t, i in enumerate(disliked)]
    lines = [",".join(map(str, row)) for row in [("userId", "movieId", "rating", "timestamp"), *rows]]
    (tmp_path / "ratings.csv").write_text("\n".join(lines))
    (tmp_path / "movies.csv").write_text("movieId,title\n" + "".join(f"m{i},Movie {i}\n" for i in range(40)))
    found = run("Ratings to recommendations")
    assert found["trained"]["recall@10"] > 1.2 * found["plain"]["recall@10"]
    best, seen = found["best"], {(u, i) for u, i, r, _ in rows if r == 5}
    assert not seen & set(zip(best["user"], best["item"], strict=True))
    assert set(best["user"]) == {f"00{user}" for user in range(60)}
    assert (best["title"] == "Movie " + best["item"].str[1:]).all()
    taste = best["user"].astype(int) % 2 == best["item"].str[1:].astype(int) % 2
    assert taste[best["rank"] <= 5].mean() > 0.9
