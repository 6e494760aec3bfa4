"""Tables in, tables out: long or wide data of persons, and results in the terms of the field."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Real

from core.checks import FINITE, checked
from core.errors import ConfigError, DataError
from core.stats import from_error
from latent.moe_trajectories import ldl
from latent.moe_trajectories.fitting import Fit
from latent.moe_trajectories.inference import Errors, classify
from latent.moe_trajectories.model import GrowthData, Mixture, Params
from latent.moe_trajectories.natural import Natural

Columns = Sequence[str]
"""Names of columns of a table."""


@checked
def from_wide(
    table: pd.DataFrame,
    outcomes: Columns,
    times: Columns,
    *,
    expert: Columns = (),
    gating: Columns = (),
    varying: Columns = (),
) -> GrowthData:
    """One row per person.

    Args:
      table: the data.
      outcomes: columns of the outcome, occasion by occasion; empty cells are missing occasions.
      times: columns of the times of measurement, in the same order.
      expert: covariates which explain growth factors within classes; empty cells are allowed in joint models.
      gating: covariates which predict the class.
      varying: columns of a covariate that varies with time, occasion by occasion.

    Raises:
      DataError: naming the column, the row and what to do.
    """
    outcomes, times, varying = list(outcomes), list(times), list(varying)  # an index of pandas has no truth
    _require_columns(table, [*outcomes, *times, *expert, *gating, *varying])
    _require_one_role({"outcomes": outcomes, "times": times, "varying": varying}, [*expert, *gating])
    if len(outcomes) != len(times) or (varying and len(varying) != len(outcomes)):
        raise DataError(
            f"{len(outcomes)} outcome columns, {len(times)} of times and {len(varying)} of a varying covariate: give "
            "one of each per occasion, in the same order"
        )
    y, t, x = (_numbers(table, columns) for columns in (outcomes, times, varying))
    observed = ~np.isnan(y)
    if varying:
        observed &= ~np.isnan(x)
    lost = np.argwhere(observed & np.isnan(t))
    if len(lost):
        row, j = lost[0]
        raise DataError(
            f"row {table.index[row]}: {outcomes[j]} was measured but its time {times[j]} is empty; fill in the time, "
            "or empty the outcome too"
        )
    _require_repeated(observed, t, table.index)
    if np.ptp(y[observed]) == 0:
        raise DataError(f"the outcome is {y[observed][0]:g} wherever it was measured: there is no growth to describe")
    xe, xg = _covariates(table, expert, "expert"), _covariates(table, gating, "gating")
    missing = np.argwhere(np.isnan(xg))
    if len(missing):
        row, c = missing[0]
        raise DataError(
            f"row {table.index[row]}: gating covariate {gating[c]!r} is empty; impute it or leave the person out, for "
            "the model has no distribution of gating covariates"
        )
    zero = lambda a: np.nan_to_num(np.where(observed, a, 0.0))  # noqa: E731
    return GrowthData(zero(t), zero(y), observed.astype(float), np.nan_to_num(xe), (~np.isnan(xe)).astype(float), xg,
                      zero(x) if varying else np.zeros((len(y), 0)))  # fmt: skip


@checked
def from_long(
    table: pd.DataFrame,
    *,
    person: str,
    time: str,
    outcome: str,
    expert: Columns = (),
    gating: Columns = (),
    varying: str | None = None,
) -> GrowthData:
    """One row per measurement; covariates of persons repeat on each of their rows.

    Raises:
      DataError: as :func:`from_wide`, and where a person has two measurements at one time or a covariate that changes.
    """
    changing = [varying] if varying else []
    _require_columns(table, [person, time, outcome, *expert, *gating, *changing])
    _require_one_role(
        {"person": [person], "time": [time], "outcome": [outcome], "varying": changing}, [*expert, *gating]
    )
    table = table.assign(**{person: _ids(table, person)})
    for column in changing:
        _numbers(table, [column])
    t, y = (_numbers(table, [column])[:, 0] for column in (time, outcome))
    untimed = np.flatnonzero(np.isnan(t) & ~np.isnan(y))
    if untimed.size:
        raise DataError(
            f"row {table.index[untimed[0]]}: {outcome!r} was measured but {time!r} is empty; fill in the time, or "
            "leave the row out"
        )
    twice = np.flatnonzero(table.duplicated([person, time]))
    if twice.size:
        who, when = (_shown(table[column].to_numpy()[twice[0]]) for column in (person, time))
        raise DataError(f"person {who} has two rows at {time} = {when}; keep one of them, or average them")
    by_person = table.groupby(person, sort=False)
    for column in (*expert, *gating):
        values = by_person[column].nunique(dropna=False)
        several = np.flatnonzero(values > 1)
        if several.size:
            raise DataError(
                f"covariate {column!r} changes over the rows of person {_shown(values.index[several[0]])}; name it as "
                "`varying`, or use its first value"
            )
    ordered = table.assign(_occasion=by_person.cumcount())
    count = int(ordered["_occasion"].to_numpy().max()) + 1
    kinds = [time, outcome, *changing]
    persons = (
        by_person[[*expert, *gating]].first() if (*expert, *gating) else pd.DataFrame(index=by_person.size().index)
    )
    wide = ordered.pivot(index=person, columns="_occasion", values=kinds).reindex(persons.index)
    wide.columns = [f"{kind}[{j + 1}]" for kind, j in wide.columns]
    names = {kind: [f"{kind}[{j + 1}]" for j in range(count)] for kind in kinds}
    wide = wide.join(persons)
    return from_wide(wide, names[outcome], names[time], expert=expert, gating=gating,
                     varying=names[varying] if varying else ())  # fmt: skip


def _ids(table: pd.DataFrame, person: str) -> pd.Series:
    """Who a row is of; text without white space around it."""
    ids: Any = table[person]
    if not pd.api.types.is_numeric_dtype(ids):
        ids = ids.map(lambda cell: cell.strip() if isinstance(cell, str) else cell)
    unnamed = np.flatnonzero((ids.isna() | (ids == "")).to_numpy())
    if unnamed.size:
        raise DataError(
            f"row {table.index[unnamed[0]]}: the person's column {person!r} is empty; say whose measurement it is, or "
            "leave the row out"
        )
    return ids


@checked
def persons(table: pd.DataFrame, person: str) -> np.ndarray:
    """The ids of the persons, in the order of :func:`from_long` and, of a wide table, of :func:`from_wide`.

    Raises:
      DataError: where the column is missing or an id is.
    """
    _require_columns(table, [person])
    return _ids(table, person).drop_duplicates().to_numpy()


@checked
def memberships(fit: Fit, data: GrowthData, persons: Sequence[Any]) -> pd.DataFrame:
    """The class of every person.

    Args:
      fit: of the mixture.
      data: persons; those of the fit, or others with the same covariates.
      persons: their ids, see :func:`persons`.

    Returns:
      A row per person: ``person``, the likeliest ``class`` (from 1), its posterior ``probability``, and the probability
      of every class, ``class 1`` ...

    Raises:
      ConfigError: where there are more or fewer ids than persons, or an id stands twice.
    """
    posterior = classify(fit, data)
    if len(persons) != len(posterior):
        raise ConfigError(f"memberships: {len(persons)} ids for {len(posterior)} persons; pass persons(table, column)")
    found = pd.DataFrame({"person": list(persons)})
    twice = found["person"].duplicated().to_numpy()
    if twice.any():
        raise ConfigError(f"memberships: the id {_shown(found['person'].iloc[int(np.argmax(twice))])} stands twice")
    each = {f"class {k + 1}": posterior[:, k] for k in range(posterior.shape[1])}
    return found.assign(**{"class": posterior.argmax(1) + 1, "probability": posterior.max(1)}, **each)


def _require_columns(table: pd.DataFrame, wanted: Sequence[str]) -> None:
    missing = [column for column in wanted if column not in table]
    if missing:
        raise DataError(f"column {missing[0]!r} is missing; the table has {', '.join(map(str, table.columns))}")
    twice = [column for column in wanted if table.columns.get_loc(column).__class__ is not int]
    if twice:
        raise DataError(f"the table has several columns named {twice[0]!r}; rename or remove all but one")
    if not len(table):
        raise DataError("the table has no rows")


def _require_one_role(measured: Mapping[str, Sequence[str]], covariates: Sequence[str]) -> None:
    """What is measured is named once; a covariate may be both expert and gating, but nothing else."""
    roles: dict[str, str] = {}
    for role, columns in measured.items():
        for column in columns:
            if column in roles:
                raise DataError(f"column {column!r} is named as {roles[column]} and as {role}: each needs its own")
            roles[column] = role
    for column in covariates:
        if column in roles:
            raise DataError(f"column {column!r} is named as {roles[column]} and as a covariate; leave it out of one")


def _shown(cell: Any) -> str:
    return repr(cell.item() if isinstance(cell, np.generic) else cell)


def _numbers(table: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """Columns as floats, empty cells as NaN."""
    read = []
    for column in columns:
        cells = table[column]
        numbers = np.asarray(pd.to_numeric(cells, errors="coerce"), np.float64)
        wrong = np.flatnonzero((np.isnan(numbers) & cells.notna().to_numpy()) | np.isinf(numbers))
        if wrong.size:
            row, kind = wrong[0], "a date: give times as numbers, such as years since the first measurement"
            dated = pd.api.types.is_datetime64_any_dtype(cells)
            what = kind if dated else "not a finite number; correct it, or empty the cell where the value is missing"
            raise DataError(f"column {column!r}, row {table.index[row]}: {_shown(cells.iloc[row])} is {what}")
        if pd.api.types.is_datetime64_any_dtype(cells):
            raise DataError(f"column {column!r} holds dates; give times as numbers, such as years since the first one")
        read.append(numbers)
    return np.stack(read, 1) if read else np.zeros((len(table), 0))


def _require_repeated(observed: np.ndarray, t: np.ndarray, index: Any) -> None:
    counts = observed.sum(1)
    if (counts == 0).any():
        raise DataError(f"row {index[int(np.argmin(counts))]} has no measurement; leave the person out")
    if counts.max() < 2:
        raise DataError(
            "every person has one measurement: growth needs repeated ones; if the table is in the long format, with a "
            "row per measurement, read it with from_long and name the person's column"
        )
    if (counts >= 4).sum() < 10:
        raise DataError(
            f"{(counts >= 4).sum()} persons have four measurements or more: too few to tell growth from noise; at "
            "least 10 are needed"
        )
    if np.ptp(t[observed]) == 0:
        raise DataError("all measurements have the same time; give each occasion its own")


def _covariates(table: pd.DataFrame, columns: Sequence[str], role: str) -> np.ndarray:
    values = _numbers(table, columns)
    for c, column in enumerate(columns):
        seen = values[~np.isnan(values[:, c]), c]
        if not seen.size or np.ptp(seen) == 0:
            raise DataError(f"{role} covariate {column!r} is constant; it cannot explain differences: leave it out")
    whole = values[~np.isnan(values).any(1)]
    if len(columns) > 1 and len(whole):
        scaled = (whole - whole.mean(0)) / np.maximum(whole.std(0), 1e-300)
        if np.linalg.matrix_rank(scaled, tol=1e-6 * np.sqrt(len(whole))) < len(columns):
            raise DataError(f"{role} covariates {', '.join(columns)} are linearly dependent; leave one out")
    return values


@checked
def standardised(table: pd.DataFrame, columns: Columns) -> pd.DataFrame:
    """The table with columns of mean 0 and variance 1.

    Raises:
      DataError: where a column is missing.
    """
    _require_columns(table, columns)
    chosen = table[list(columns)]
    scaled = (chosen - chosen.mean()) / chosen.std(ddof=0)
    return table.assign(**{column: scaled[column] for column in columns})


@checked
def estimates(fit: Fit, errors: Errors, *, expert: Columns = (), gating: Columns = ()) -> pd.DataFrame:
    """A row per parameter in the field's terms: estimate, both standard errors, 95 % interval, odds ratio of gates."""
    terms, rows = _terms(fit.mixture, fit.params, expert, gating), []
    for name, values, by_model, by_sandwich, labels in zip(
        Natural._fields, errors.estimate, errors.model, errors.sandwich, terms, strict=True
    ):
        for place, (k, term) in labels.items():
            value, error = float(values[place]), float(by_model[place])
            odds = float(np.exp(value)) if name == "gating" else np.nan
            rows.append((k, term, value, error, float(by_sandwich[place]), *from_error(value, error), odds))
    columns = ["class", "parameter", "estimate", "SE", "sandwich SE", "low", "high", "odds ratio"]
    return pd.DataFrame(rows, columns=columns).sort_values("class", kind="stable", ignore_index=True)


@checked
def names_of(mixture: Mixture, params: Params, expert: Columns = (), gating: Columns = ()) -> list[tuple[int, str]]:
    """Class and term of every entry of the flattened :class:`Natural`; entries said elsewhere are ''."""
    p = params.experts.alpha.shape[1]
    ce, cg = params.experts.B.shape[2], params.gating.shape[1] - 1
    j, v, modelled = params.experts.tau.shape[1], params.experts.beta.shape[1], params.experts.mux.shape[1]
    k, s = mixture.classes, len(mixture.curve.shapes)
    per_class = [(p,), (s,), (p, p), (), (p, ce), (modelled,), (modelled, modelled), (v,), (j,), (j,)]
    shapes = [*((k, *rest) for rest in per_class), (k - 1, 1 + cg), (k, p), (k,)]
    labels = _terms(mixture, params, expert, gating)
    return [
        found.get(place, (0, "")) for shape, found in zip(shapes, labels, strict=True) for place in np.ndindex(shape)
    ]


def _terms(
    mixture: Mixture, params: Params, expert: Sequence[str], gating: Sequence[str]
) -> list[dict[tuple[int, ...], tuple[int, str]]]:
    """For each field of :class:`Natural`, class (from 1) and name of its entries."""
    curve, classes = mixture.curve, range(mixture.classes)
    factors, e = curve.factors, params.experts
    ce, cg = e.B.shape[2], params.gating.shape[1] - 1
    xe = list(expert) or [f"xe{c + 1}" for c in range(ce)]
    xg = ["intercept", *(list(gating) or [f"xg{c + 1}" for c in range(cg)])]
    pairs = [(a, b) for a in range(len(factors)) for b in range(a + 1)]

    def spread(a, b, names):
        return f"variance of {names[a]}" if a == b else f"covariance of {names[b]} and {names[a]}"

    modelled = range(e.mux.shape[1])
    return [
        {(k, a): (k + 1, factors[a]) for k in classes for a in range(len(factors))},
        {(k, s): (k + 1, curve.shapes[s]) for k in classes for s in range(len(curve.shapes))},
        {(k, a, b): (k + 1, spread(a, b, factors)) for k in classes for a, b in pairs},
        {(k,): (k + 1, "residual variance") for k in classes},
        {
            (k, a, c): (k + 1, f"{xe[c]} on {factors[a]}")
            for k in classes
            for a in range(len(factors))
            for c in range(ce)
        },
        {(k, c): (k + 1, f"mean of {xe[c]}") for k in classes for c in modelled},
        {(k, c, d): (k + 1, spread(c, d, xe)) for k in classes for c in modelled for d in range(c + 1)},
        {(k, 0): (k + 1, "varying covariate") for k in classes if e.beta.shape[1]},
        {(k, j): (k + 1, f"mean of varying covariate at {j + 1}") for k in classes for j in range(e.tau.shape[1])},
        {(k, j): (k + 1, f"variance of varying covariate at {j + 1}") for k in classes for j in range(e.tau.shape[1])},
        {(k, c): (k + 2, f"{xg[c]} on class") for k in range(len(classes) - 1) for c in range(1 + cg)},
        {(k, a): (k + 1, f"mean {factors[a]} at mean covariates") for k in classes for a in range(len(factors))}
        if ce and e.mux.shape[1]
        else {},
        {(k,): (k + 1, "proportion") for k in classes},
    ]


@checked
def trajectories(fit: Fit, times: Annotated[Real[np.ndarray, " T"], FINITE]) -> pd.DataFrame:
    """Mean trajectory of every class at mean covariates with the band that holds 95 % of its persons' true curves.

    Expert covariates have the means of the class where they are modelled, else those of all persons; a covariate that
    varies with time has its mean over everybody. The band is that of the growth factors, the middle of
    N(mean, lambda' Var[eta] lambda), without measurement noise.
    """
    experts, outcome, rows = fit.standard.experts, fit.units.outcome, []
    at = np.asarray(fit.units.time.standard(np.asarray(times, float)))
    with jax.enable_x64(True):
        psi, phi = (np.asarray(ldl.from_triangle(jnp.asarray(flat))) for flat in (experts.psi, experts.phi))
    for k in range(fit.mixture.classes):
        loadings = np.stack(np.broadcast_arrays(*map(np.asarray, fit.mixture.curve.loadings(at, experts.gamma[k]))), 1)
        mean, var, effects = experts.alpha[k], psi[k], experts.B[k]
        if experts.mux.shape[1]:
            mean, var = mean + effects @ experts.mux[k], var + effects @ phi[k] @ effects.T
        middle = outcome.origin + outcome.unit * (loadings @ mean)
        sd = outcome.unit * np.sqrt(np.einsum("ta,ab,tb->t", loadings, var, loadings))
        rows += [(k + 1, *line) for line in zip(times, middle, *from_error(middle, sd), strict=True)]
    return pd.DataFrame(rows, columns=["class", "time", "mean", "low", "high"])
