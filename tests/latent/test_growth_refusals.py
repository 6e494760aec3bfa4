"""What growth mixtures refuse of tables and settings, naming the column or the argument."""

# pyright: reportArgumentType=false

import chex
import jax
import numpy as np
import pandas as pd
import pytest

import latent.moe_trajectories as moe
from core.errors import ConfigError, DataError
from tests.latent.test_moe_trajectories_fits import T, Y, long, wide

LONG = {"person": "child", "time": "age", "outcome": "score"}
TABLES = {
    "outcome among covariates": (
        lambda: moe.from_wide(wide(), Y, T, expert=["Y1"]),
        "'Y1' is named as outcomes and as a",
    ),
    "outcome named twice": (
        lambda: moe.from_wide(wide(), ["Y1", "Y1", *Y[2:]], T),
        "'Y1' is named as outcomes and as out",
    ),
    "an outcome as a time": (
        lambda: moe.from_wide(wide(), Y, ["Y1", *T[1:]]),
        "'Y1' is named as outcomes and as times",
    ),
    "two columns of a name": (
        lambda: moe.from_wide(pd.concat([wide(), wide()[["Y1"]]], axis=1), Y, T),
        "several columns named 'Y1'",
    ),
    "outcomes constant": (
        lambda: moe.from_wide(wide().assign(**dict.fromkeys(Y, 5.0)), Y, T),
        "the outcome is 5 wherever",
    ),
    "person empty": (
        lambda: moe.from_long(long(wide()).assign(child=lambda f: f["child"].where(f.index != 7)), **LONG),
        "row 7: the person's column 'child' is empty",
    ),
    "person blank": (
        lambda: moe.from_long(
            long(wide()).assign(child=lambda f: f["child"].astype(str).where(f.index != 7, " ")), **LONG
        ),
        "row 7: the person's column 'child' is empty",
    ),
    "person empty, wide": (
        lambda: moe.persons(wide().assign(id=np.where(np.arange(len(wide())) == 3, None, "a")), "id"),
        "row 3: the person's column 'id' is empty",
    ),
    "an outcome in words": (
        lambda: moe.from_long(
            long(wide()).assign(score=lambda f: f["score"].astype(object).where(f.index != 7, "9,5")), **LONG
        ),
        "column 'score', row 7: '9,5' is not a finite number",
    ),
    "an outcome at no time": (
        lambda: moe.from_long(long(wide()).assign(age=lambda f: f["age"].where(f.index != 7)), **LONG),
        "row 7: 'score' was measured but 'age' is empty",
    ),
    "time and outcome the same": (
        lambda: moe.from_long(long(wide()), person="child", time="score", outcome="score"),
        "'score' is named as time and as outcome",
    ),
}
DATA = moe.GrowthData(*(np.asarray(leaf) for leaf in moe.simulate(jax.random.key(0), moe.example_truth(), 12, 5)[0]))
SETTINGS = {
    "a list in place of a table": (lambda: moe.from_wide([1], Y, T), "table must be a DataFrame"),
    "one name in place of several": (lambda: moe.from_wide(wide(), "Y1", T), "outcomes must be a sequence"),
    "without a network that there is not": (lambda: DATA.without("experts"), "must be one of 'expert', 'gating'"),
    "classes 0": (lambda: moe.Mixture(0), "classes must be a number of at least 1"),
    "classes 1.5": (lambda: moe.Mixture(1.5), "classes must be an integer"),
    "classes text": (lambda: moe.Mixture("2"), "classes must be an integer"),
    "covariates jointly": (lambda: moe.Mixture(2, covariates="jointly"), "not 'jointly'; did you mean 'joint'"),
    "missing without a model": (
        lambda: moe.Mixture(covariates="conditional", missing_covariates=True), "modelled: use \"joint\"",
    ),
    "starts -1": (lambda: moe.fit(moe.Mixture(2), DATA, starts=-1), "starts must be"),
    "lanes 0": (lambda: moe.fit(moe.Mixture(2), DATA, lanes=0), "lanes must be"),
    "key a number": (lambda: moe.fit(moe.Mixture(2), DATA, 0), "key must be a random key"),
    "NaN": (lambda: moe.fit(moe.Mixture(2), DATA._replace(t=DATA.t * np.nan)), r"data.t has nan at \[0, 0\]; mark"),
    "other persons": (lambda: moe.fit(moe.Mixture(2), DATA._replace(xg=DATA.xg[:5])), "n is 5 here and 12 in t"),
    "one outcome": (lambda: moe.fit(moe.Mixture(1), DATA._replace(y=0 * DATA.y)), "no growth to describe"),
    "enumerated classes 0": (lambda: moe.enumerate_classes(moe.Mixture(), DATA, classes=(0, 1)), "classes at place 0"),
    "forest without trees": (lambda: moe.forest.grow(DATA, np.ones((12, 2)), jax.random.key(0), trees=0), "trees must"),
    "forest of other persons": (lambda: moe.forest.grow(DATA, np.ones((5, 2)), jax.random.key(0)), "12 persons, not 5"),
    "smoothing -1": (lambda: moe.bilinear(-1.0), "smoothing must be"),
    "nobody simulated": (lambda: moe.simulate(jax.random.key(0), moe.example_truth(), 0), "persons must be"),
    "shares beyond 1": (lambda: moe.entropy(np.full((3, 2), 2.0)), "posterior must hold numbers"),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLES)
def test_faults_of_tables_are_named(case):
    call, message = TABLES[case]
    with pytest.raises(DataError, match=message):
        call()


@pytest.mark.parametrize("case", SETTINGS)
def test_bad_settings_are_refused_by_name(case):
    call, message = SETTINGS[case]
    with pytest.raises(ConfigError, match=message):
        call()


def test_columns_may_be_given_as_an_index():
    table = wide()
    chex.assert_trees_all_equal(moe.from_wide(table, table[Y].columns, pd.Series(T)), moe.from_wide(table, Y, T))


def test_persons_keep_their_ids_in_the_order_of_the_data():
    table = long(wide())
    table = table.assign(child=[f" {cell:03.0f}" for cell in table["child"]]).sample(frac=1, random_state=0)
    ids = moe.persons(table, "child")
    assert ids.tolist() == list(dict.fromkeys(cell.strip() for cell in table["child"]))
    data = moe.from_long(table, **LONG)
    for i in (0, len(ids) - 1):
        own = table[table["child"].str.strip() == ids[i]]
        np.testing.assert_allclose(np.sort(data.y[i][data.observed[i] > 0]), np.sort(own["score"].dropna()))
    found = moe.fit(moe.Mixture(1), data, jax.random.key(0), starts=1, check=False)
    assert moe.memberships(found, data, ids)["person"].tolist() == ids.tolist()
    with pytest.raises(ConfigError, match="memberships: 2 ids for"):
        moe.memberships(found, data, ids[:2])
    with pytest.raises(ConfigError, match="memberships: the id '001' stands twice"):
        moe.memberships(found, data, ["001"] * len(ids))
