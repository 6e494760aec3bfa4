"""No key serves two draws: what follows keys through programs, and programs that are no learners."""

import ast
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest

from core.learner import Stream, stream
from interp import ekfac
from interp.likelihoods import Task, categorical
from latent import diffusion
from tests.keys import drawn_twice, draws

ROOT = Path(__file__).parents[2]
HOUSES = ("core", "latent", "rec", "causal", "interp", "experiments")


def faults(fn: Callable, *args) -> int:
    return len(drawn_twice(draws(fn, *args)))


def normal(key):
    return jax.random.normal(key, (2,))


def split_and_draw(key, _):
    return normal(jax.random.split(key)[0]) + normal(key)


def two_counts(key, step):
    return normal(jax.random.fold_in(key, step)) + normal(jax.random.fold_in(key, step + 1))


def a_small_constant(key, step):
    return normal(jax.random.fold_in(key, step)) + normal(jax.random.fold_in(key, 7))


def in_a_loop(key, _):
    return jax.lax.fori_loop(0, 3, lambda i, x: x + normal(key), normal(key))


def by_vmap(key, step):
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(step + jnp.arange(3))
    return jax.vmap(normal)(keys).sum() + normal(jax.random.fold_in(key, step)).sum()


@pytest.mark.parametrize("fn", [split_and_draw, two_counts, a_small_constant, in_a_loop, by_vmap])
def test_two_draws_from_keys_that_may_be_equal_are_found(fn):
    assert faults(fn, jax.random.key(0), jnp.int32(3)) >= 1


def parts(key, _):
    a, b = jax.random.split(key)
    return normal(a) + normal(b)


def parts_of_many(keys, _):
    return jax.vmap(lambda key: parts(key, None))(keys)


def purposes(key, step):
    return (
        normal(stream(key, Stream.START))
        + normal(stream(key, Stream.EPOCHS, step))
        + normal(jax.random.fold_in(key, step))
    )


def branches(key, step):
    return jax.lax.cond(step > 0, lambda: normal(key), lambda: 2 * normal(key))


def computed_again(key, _):
    return jax.grad(lambda w: jax.checkpoint(lambda w: jnp.sum(jnp.sin(w * normal(key))))(w))(1.0)


@pytest.mark.parametrize("fn", [parts, parts_of_many, purposes, branches, computed_again])
def test_draws_from_other_keys_are_none(fn):
    keys = jax.random.split(jax.random.key(0), 3) if fn is parts_of_many else jax.random.key(0)
    assert draws(fn, keys, jnp.int32(3))
    assert faults(fn, keys, jnp.int32(3)) == 0


def test_purposes_are_no_counts_and_all_different():
    values = [purpose.value for purpose in Stream]
    assert min(values) >= 2**31
    assert max(values) < 2**32
    assert len(set(values)) == len(Stream.__members__)
    key = jax.random.key(0)
    folded = {jax.random.key_data(stream(key, name)).tobytes() for name in (*Stream, "a text", "another")}
    assert len(folded) == len(values) + 2


def classifier():
    params = {"w": jnp.ones((3, 4))}
    task = Task(lambda p, e: e["x"] @ p["w"], categorical(lambda e: e["y"]))
    return task, params, {"x": jnp.ones((8, 3)), "y": jnp.arange(8) % 4}


def both_passes(key):
    task, params, rows = classifier()
    found = ekfac.capture(task.outputs, params, jax.tree.map(lambda leaf: leaf[0], rows))
    batch = ekfac.Examples(params, rows, jnp.arange(8), jnp.ones(8))
    cover = ekfac.covariance(found, task, ekfac.sampled(2))
    sums = cover.update(cover.init(key, batch), batch)[0]
    basis = ekfac.kfac(found, sums)
    correction = ekfac.eigenvalue_correction(found, task, ekfac.sampled(2))
    batch = batch._replace(params=(params, basis))
    return correction.update(correction.init(key, batch), batch)[0].sums


def preconditioned(key):
    task, params, rows = classifier()
    found = ekfac.capture(task.outputs, params, jax.tree.map(lambda leaf: leaf[0], rows))
    tx = ekfac.ekfac_precondition(found, task, ekfac.sampled(), ekfac.absolute(0.1))
    return optax.with_extra_args_support(tx).update(params, tx.init(params), params, examples=rows, key=key)[0]


def sampled_from_noise(key):
    plan = diffusion.ddpm(diffusion.chain(diffusion.linear_beta(50), 4))
    start = diffusion.starting_noise(key, (4, 2), plan)
    return diffusion.sample(plan, lambda _, query: diffusion.Prediction(query.x, query.x), None, start, key)


@pytest.mark.parametrize("fn", [both_passes, preconditioned, sampled_from_noise])
def test_programs_that_draw_for_several_purposes_use_a_key_for_each(fn):
    assert draws(fn, jax.random.key(0))
    assert not drawn_twice(draws(fn, jax.random.key(0)))


def is_number(node: ast.expr) -> bool:
    """Whether it is written with numbers only."""
    return not any(isinstance(part, (ast.Name, ast.Attribute, ast.Call, ast.Subscript)) for part in ast.walk(node))


def bare_folds() -> list[str]:
    """Where a written number, or a sampler's step, is folded in outside of the module that names purposes."""
    found = []
    for path in sorted(path for house in HOUSES for path in (ROOT / house).rglob("*.py")):
        if path == ROOT / "core/learner.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "fold_in":
                number = node.args[1]
                if is_number(number) or ast.unparse(number).rpartition(".")[2] in ("step", "steps", "t"):
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    return found


def test_purposes_are_named_and_not_numbered():
    assert not bare_folds()
