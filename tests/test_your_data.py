"""The recipes of docs/your_data.md run as they stand, on small files, and what does not fit is refused by name."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

PAGE = (Path(__file__).parents[1] / "docs" / "your_data.md").read_text()
RECIPES = {
    title: re.findall(r"^```python\n(.*?)^```$", body, re.DOTALL | re.MULTILINE)
    for title, body in re.findall(r"^## ([^\n]*)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a recipe in a folder of its own, all of its blocks or some, and returns the names that it leaves."""
    monkeypatch.chdir(tmp_path)

    def run(title: str, *blocks: int) -> dict[str, Any]:
        names: dict[str, Any] = {"__name__": "recipe"}
        code = "\n".join(RECIPES[title][i] for i in blocks) if blocks else "\n".join(RECIPES[title])
        exec(compile(code, f"docs/your_data.md: {title}", "exec"), names)
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


def test_a_classifier_of_your_own_to_influence(run, tmp_path):
    rng = np.random.default_rng(0)
    kind = np.arange(300) % 3
    features = 5 * np.eye(3)[kind] + rng.normal(size=(300, 3))
    labels = np.array(["ant", "bee", "cat"])[kind]
    labels[49] = "cat"  # a bee
    ids = np.array([f"row {i}" for i in range(300)])
    np.savez(tmp_path / "mine.npz", features=features, labels=labels, ids=ids)
    found = run("A classifier of your own to influence")
    assert (found["scores"][np.arange(5), np.arange(5)] > 0).all()
    assert found["helped"].shape == found["harmed"].shape == (5, 3)
    assert "row 49" in found["suspects"]
    same = found["labels"][:5, None] == found["labels"]
    assert found["scores"][same].mean() > found["scores"][~same].mean()


def test_activations_of_your_own_to_a_dictionary(run, tmp_path):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(32, 16))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    present = rng.random((40, 50, 32)) < 2 / 32
    np.save(tmp_path / "activations.npy", ((1 + rng.random(present.shape)) * present @ features).astype(np.float16))
    found = run("Activations of your own to a dictionary")
    assert found["quality"].fvu < 0.15
    assert found["strongest"].shape == (5, 64)
    assert (tmp_path / "my_dictionary" / "sae.safetensors").is_file()


@pytest.mark.parametrize("form", ["long", "wide"])
def test_a_growth_table_of_your_own_to_classes(form, run, tmp_path):
    rng = np.random.default_rng(0)
    kind = rng.random(80) < 0.5
    ages = np.arange(6) + rng.uniform(-0.2, 0.2, (80, 6))
    growth = np.where(kind, 3.0, 0.5) + 0.2 * rng.normal(size=80)
    first, bend = 10 + rng.normal(size=(80, 1)), 0.1 + 0.1 * rng.normal(size=(80, 1))
    scores = first + growth[:, None] * ages + bend * ages**2 + 0.3 * rng.normal(size=(80, 6))
    scores[rng.random((80, 6)) < 0.1] = np.nan
    income = kind + rng.normal(size=80)
    ids = [f"{i:03d}" for i in range(80)]
    if form == "wide":
        columns = {f"score{j + 1}": scores[:, j] for j in range(6)} | {f"age{j + 1}": ages[:, j] for j in range(6)}
        table = pd.DataFrame({"person": ids, "income": income, **columns})
        table.to_csv(tmp_path / "growth_wide.csv", index=False)
    else:
        rows = [(ids[i], ages[i, j], scores[i, j], income[i]) for i in range(80) for j in range(6)]
        table = pd.DataFrame(rows, columns=["person", "age", "score", "income"]).dropna()
        table.to_csv(tmp_path / "growth.csv", index=False)
    found = run("A growth table of your own to classes", 0 if form == "long" else 1, 2)
    classes = found["classes"]
    assert classes["person"].tolist() == ids
    agree = np.mean((classes["class"] == 2) == kind)
    assert max(agree, 1 - agree) > 0.95
    np.testing.assert_allclose(classes["class 1"] + classes["class 2"], 1)
    assert (tmp_path / "classes.csv").read_text().splitlines()[1].startswith("000,")


def test_images_and_a_treatment_of_your_own_to_effects(run, tmp_path, full_compilation):
    rng = np.random.default_rng(0)
    bright = rng.random(60) < 0.5
    images = rng.normal(size=(60, 12, 12, 1)) + 2 * bright[:, None, None, None] * (np.arange(12) < 6)[:, None]
    names = np.array([f"tile {i}" for i in range(60)])
    np.savez(tmp_path / "images.npz", images=images, names=names)
    of = rng.permutation(np.repeat(np.arange(60), 6))
    t = rng.integers(0, 2, 360)
    outcome = t * np.where(bright[of], 3.0, 0.0) + 0.5 * rng.normal(size=360)
    table = pd.DataFrame({"image": names[of], "arm": np.where(t, "treated", "control"), "outcome": outcome})
    table.to_csv(tmp_path / "units.csv", index=False)
    effects = run("Images and a treatment of your own to effects")["effects"]
    assert effects["image"].tolist() == names.tolist()
    assert effects["effect"][bright].mean() > 2
    assert effects["effect"][~bright].mean() < 1


def test_a_table_and_a_treatment_of_your_own_to_effects(run, tmp_path):
    rng = np.random.default_rng(0)
    age, t = rng.uniform(20, 60, 400), rng.integers(0, 2, 400)
    outcome = t * (age > 40) * 2 + 0.5 * rng.normal(size=400)
    table = {"village": [f"v{i % 40}" for i in range(400)], "age": age, "income": rng.normal(size=400)}
    table |= {"sex": rng.choice(["f", "m"], 400), "arm": np.where(t, "treated", "control"), "outcome": outcome}
    pd.DataFrame(table).to_csv(tmp_path / "trial.csv", index=False)
    units = run("A table and a treatment of your own to effects")["units"]
    assert units["effect"][age > 45].mean() > 1.5
    assert abs(units["effect"][age < 35].mean()) < 0.5
    assert (units["low"] < units["high"]).all()


def test_text_of_your_own_to_a_decoder(run, tmp_path, full_compilation):
    (tmp_path / "texts").mkdir()
    rng = np.random.default_rng(0)
    for i in range(40):
        sentences = [f"The {rng.choice(['cat', 'dog'])} sat on the {rng.choice(['mat', 'log'])}. " for _ in range(20)]
        (tmp_path / "texts" / f"{i}.txt").write_text("".join(sentences))
    found = run("Text of your own to a decoder")
    assert found["bits"] < 1  # 2 of about 24 characters are not told by those before them
    assert found["written"].shape == (1, 60)
