"""The world of concepts, its measurement, and what is read off trajectories."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from core.loop import scan_steps
from interp import concept_space as cs
from tests.examples import denoising

WORLD = cs.World(0.8, 0.4)
CUBE = cs.World(0.8, 0.4, 0.8)


def shown(count, seed=0):
    z = jnp.asarray(cs.corners()[np.arange(count) % 4], jnp.float32)
    return cs.draw(jax.random.key(seed), WORLD, z)


def test_discs_and_triangles_have_their_area_and_colour(record_property):
    side, worst = 128, 0.0
    disc = cs.Disc(jnp.array([[0.9, 0.1, 0.2]]), jnp.array([0.4]), jnp.array([[0.1, -0.05]]), jnp.full((1, 3), 0.8))
    for draw in (cs.render, cs.render_triangle):
        image = np.asarray(draw(disc, side, 0.01))
        share = (image[0, ..., 1] - 0.8) / (0.1 - 0.8)
        worst = max(worst, abs(share.sum() * (2 / side) ** 2 / (np.pi * 0.4**2) - 1))
        middle = image[0, side // 2, int(side * 0.55)]
        np.testing.assert_allclose(middle, [0.9, 0.1, 0.2], atol=1e-5)
        np.testing.assert_allclose(image[0, 0, 0], 0.8, atol=1e-6)
    for radius in np.linspace(0.15, 0.7, 12):
        image = cs.render(disc._replace(size=jnp.array([radius]), centre=jnp.zeros((1, 2))), side, 0.01)
        share = (np.asarray(image)[0, ..., 1] - 0.8) / (0.1 - 0.8)
        worst = max(worst, abs(share.sum() * (2 / side) ** 2 / (np.pi * radius**2) - 1))
    record_property("value", f"areas within {worst:.2%}")
    assert worst < 0.03


def test_measurement_recovers_what_was_rendered(record_property):
    """Discs inside the frame that are at least three pixels wide; smaller ones never reach their own colour."""
    disc = shown(400)
    inside = (np.abs(disc.centre).max(1) + disc.size < 0.85) & (np.asarray(disc.size) > 0.2)
    seen = jax.jit(lambda d: cs.measure(cs.render(d, 32, 0.02)))(disc)
    errors = [np.abs(a - b)[inside].max() for a, b in zip(seen, disc, strict=True)]
    record_property("value", f"colour within {errors[0]:.3f}, radius within {errors[1]:.3f}")
    assert inside.sum() > 100
    assert max(errors) < 0.02


def test_class_means_as_the_runs_render_them_are_measured(record_property):
    """With the renderer's own edge, at the sides of the presets small and paper; the small blue disc is the worst."""
    errors = np.zeros(2)
    for side in (12, 32):
        for separation in (0.1, 0.2, 0.4, 0.8):
            for draw in (cs.render, cs.render_triangle):
                world, z = cs.World(separation, 0.4), jnp.asarray(cs.corners(), jnp.float32)
                disc = cs.typical(world, z)
                seen = cs.measure(draw(disc, side))
                assert (np.asarray(cs.coordinates(seen, world) > 0.5) == (z > 0.5)).all()
                if draw is cs.render:
                    errors = np.maximum(errors, [np.abs(a - b).max() for a, b in zip(seen[:2], disc[:2], strict=True)])
    record_property("value", f"colour within {errors[0]:.3f}, radius within {errors[1]:.3f}")
    assert errors[0] < 0.1
    assert errors[1] < 0.02


def test_class_means_are_the_corners_of_concept_space():
    for world in (WORLD, CUBE):
        z = jnp.asarray(cs.corners(world.concepts), jnp.float32)
        np.testing.assert_allclose(cs.coordinates(cs.typical(world, z), world), z, atol=1e-5)
        points = cs.draw_points(jax.random.key(0), world, z, noise=0.0)
        np.testing.assert_allclose(cs.point_coordinates(points, world), z, atol=1e-6)


def test_three_concepts_are_shown_one_at_a_time_and_told_when_asked():
    assert cs.shown_corners(3).tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0]]
    z = jnp.asarray(cs.corners(3), jnp.float32)
    disc = cs.draw(jax.random.key(0), CUBE, z)
    assert (np.asarray(disc.background.mean(1) < 0.5) == (z[:, 2] > 0.5)).all()
    assert cs.condition(disc, 3).shape == (8, 7)
    np.testing.assert_array_equal(cs.condition(disc, 3)[:, :4], cs.condition(disc))
    dark = cs.measure(cs.render(disc._replace(centre=0 * disc.centre), 32))
    assert (np.asarray(cs.coordinates(dark, CUBE) > 0.5) == (z > 0.5)).all()


def test_the_toy_model_is_recovered_from_its_own_paths():
    times = np.linspace(20, 1000, 20)
    for numbers in ((0.6, -2.5, 0.15, -3.0), (0.4, -3.0, 0.2, -2.0)):
        fit = cs.fit_toy(times, cs.toy_path((times - 20) / 980, np.array(numbers)))
        np.testing.assert_allclose(
            [fit.weaker, fit.stronger], [20 + 980 * numbers[0], 20 + 980 * numbers[2]], rtol=0.01
        )
        assert fit.r2 > 0.999
    still = np.random.default_rng(0).normal(size=(20, 2))
    assert cs.fit_toy(times, still).r2 < 0.5


def test_an_empty_image_shows_nothing():
    seen = cs.measure(jnp.full((2, 12, 12, 3), 0.9))
    assert not seen.size.any()
    assert np.isfinite(seen.colour).all()


def test_concept_signals_are_derivatives_and_grow_with_the_separation(record_property):
    with jax.enable_x64(True):
        worst = 0.0
        for concept in (0, 1):
            step = np.zeros(2)
            step[concept] = 1e-6
            images = [cs.render(cs.typical(WORLD, jnp.asarray(z)[None]), 16)[0] for z in (step, -step)]
            numeric = np.linalg.norm(np.asarray(images[0] - images[1]) / 2e-6)
            worst = max(worst, abs(float(cs.concept_signal(WORLD, 16, concept)) / numeric - 1))
        move = jax.jacfwd(lambda z: cs.draw_points(jax.random.key(0), WORLD, z[None])[0])(jnp.array([0.3, 0.7]))
        np.testing.assert_allclose(move, np.diag([0.8, 0.4]), atol=1e-6)
    record_property("value", f"relative difference {worst:.1e}; of vectors the signals are the separations")
    assert worst < 1e-4
    colours = [float(cs.concept_signal(cs.World(sep, 0.4), 16, 0)) for sep in (0.1, 0.2, 0.4, 0.8)]
    sizes = [float(cs.concept_signal(cs.World(0.4, sep), 16, 1)) for sep in (0.1, 0.2, 0.4)]
    assert (np.diff(colours) > 0).all()
    assert (np.diff(sizes) > 0).all()


def test_masking_a_prompt_leaves_the_rest():
    cond = cs.condition(shown(8))
    hide = jnp.arange(8) % 2 == 0
    out = cs.masked(cond, hide)
    np.testing.assert_array_equal(out[:, 3], cond[:, 3])
    np.testing.assert_array_equal(out[1::2], cond[1::2])
    np.testing.assert_array_equal(cond, cs.condition(shown(8)))
    assert not out[::2, :3].any()


def prompt_network():
    net = cs.PointDenoiser(16, 1)
    x, cond = jnp.ones((3, 2)), jnp.arange(6.0).reshape(3, 2)
    params = net.init(jax.random.key(0), x, jnp.zeros(3), cs.plain(cond))
    return net, jax.tree.map(lambda p: p + 0.05, params), x, cond


def test_strength_one_is_the_plain_prompt_and_zero_its_base():
    net, params, x, cond = prompt_network()
    other, t = cond + 1.0, jnp.full(3, 0.3)

    def out(prompt):
        return net.apply(params, x, t, prompt)

    np.testing.assert_allclose(out(cs.Prompt(cond, other, jnp.ones(3))), out(cs.plain(cond)), atol=1e-5)
    np.testing.assert_allclose(out(cs.Prompt(cond, other, jnp.zeros(3))), out(cs.plain(other)), atol=1e-5)
    assert jnp.abs(out(cs.Prompt(cond, other, jnp.full(3, 3.0))) - out(cs.plain(cond))).max() > 1e-4


def test_a_turned_prompt_goes_as_far_in_another_direction():
    """The layer on top of the prompt is linear in it, so that embeddings can be read off."""
    embedding = cs.PromptEmbedding(8)
    cond, base = jnp.arange(6.0).reshape(3, 2), jnp.ones((3, 2))
    params = embedding.init(jax.random.key(0), cs.plain(cond))
    prompts = cs.control_prompts(lambda z: z, 3, (2.0, 3.0), cs.random_direction(jax.random.key(1), 8))
    assert list(prompts) == ["naive 0", "naive 1", "naive 2", "random 2", "random 3"]
    start = embedding.apply(params, cs.plain(base))
    unit = jnp.broadcast_to(prompts["random 2"].turned, (3, 8))
    moved = embedding.apply(params, cs.Prompt(cond, base, jnp.full(3, 2.0), unit)) - start
    straight = embedding.apply(params, cs.Prompt(cond, base, jnp.full(3, 2.0))) - start
    np.testing.assert_allclose(*(jnp.linalg.norm(x, axis=1) for x in (moved, straight)), rtol=1e-5)
    np.testing.assert_allclose(moved / jnp.linalg.norm(moved, axis=1, keepdims=True), unit, atol=1e-5)
    naive = prompts["naive 1"]
    np.testing.assert_allclose(embedding.apply(params, naive), embedding.apply(params, cs.plain(naive.cond)), atol=1e-6)


def test_the_network_of_images_is_equivariant_to_the_order_of_a_batch():
    disc = shown(6)
    net = cs.DiscDenoiser((8, 16), 1, width=8, middle_attention=True)
    x, cond, time = 2 * cs.render(disc, 8) - 1, cs.condition(disc), jnp.linspace(0.1, 0.9, 6)
    params = net.init(jax.random.key(0), x, time, cs.plain(cond))
    leaves, treedef = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))  # a fresh network returns 0, whatever it is shown
    noise = [leaf + 0.1 * jax.random.normal(k, leaf.shape) for leaf, k in zip(leaves, keys, strict=True)]
    params, order = treedef.unflatten(noise), jnp.array([3, 1, 5, 0, 2, 4])
    plain = net.apply(params, x, time, cs.plain(cond))
    assert jnp.abs(plain - plain[order]).max() > 0.01
    np.testing.assert_allclose(net.apply(params, x[order], time[order], cs.plain(cond[order])), plain[order], atol=1e-5)


def test_patching_exchanges_the_prompt_embedding_only():
    _, params, _, _ = prompt_network()
    donor = jax.tree.map(lambda p: p + 1.0, params)
    mixed = cs.patched(params, donor)["params"]
    np.testing.assert_array_equal(mixed["prompt"]["in"]["kernel"], donor["params"]["prompt"]["in"]["kernel"])
    assert mixed["net"] is params["params"]["net"]


def test_times_of_learning_are_those_from_which_a_curve_stays_up():
    times = np.array([10, 20, 30, 40, 50])
    assert cs.learning_time(times, np.array([0.0, 0.9, 0.5, 0.9, 0.95])) == 40
    assert cs.learning_time(times, np.array([0.9, 0.9, 0.9, 0.9, 0.9])) == 10
    assert cs.learning_time(times, np.array([0.9, 0.9, 0.9, 0.9, 0.8])) == np.inf
    assert cs.first_time(times, np.array([0.0, 0.9, 0.5, 0.9, 0.95])) == 20
    assert cs.first_time(times, np.zeros(5)) == np.inf


def test_learning_times_are_those_of_smoothing_and_erosion(record_property):
    times, still = np.arange(10.0, 210, 10), np.zeros(20)
    assert cs.learned_at(times, still) == np.inf
    for length, when in ((2, np.inf), (3, 110.0), (9, 110.0)):
        curve = still.copy()
        curve[9 : 9 + length] = 1.0
        assert cs.learned_at(times, curve, sigma=1e-6) == when
    rng, found = np.random.default_rng(0), []
    for _ in range(100):
        curve = np.clip(np.linspace(0, rng.uniform(0.5, 2), 40) + 0.3 * rng.normal(size=40), 0, 1)
        smooth = scipy.ndimage.gaussian_filter1d(curve, 1.5)
        above = np.flatnonzero(scipy.ndimage.binary_erosion(smooth > 0.9, np.ones(3)))
        found.append(cs.learned_at(np.arange(40.0), curve))
        assert found[-1] == (above[0] if len(above) else np.inf)
    record_property("value", f"equal on 100 curves, {np.isinf(found).sum()} of them never learned")
    assert 10 < np.isinf(found).sum() < 90


def test_what_overshoots_is_no_success():
    points = np.array([[[0.9, 1.2], [3.0, 1.0], [0.4, 1.0], [1.0, 1.0]]])
    assert cs.success(points, np.array([1, 1])).tolist() == [0.5]
    assert cs.success(points[..., :1], np.array([1])).tolist() == [0.5]


@pytest.mark.parametrize("degrees", [60, 90, 120])
def test_the_turn_of_a_bent_line_is_its_bend(degrees):
    angle = np.radians(degrees)
    first = np.stack([np.zeros(15), np.linspace(0, 1, 15)], 1)
    second = first[-1] + np.linspace(0, 1, 16)[1:, None] * [np.sin(angle), np.cos(angle)]
    found = cs.turn(np.concatenate([first, second]))
    assert found.is_inside
    assert abs(found.index - 14) <= 1
    assert abs(found.degrees - degrees) < 0.35 * degrees
    straight = cs.turn(np.linspace(0, 1, 30)[:, None] * [1.0, 1.0])
    assert straight.degrees < 1


def test_the_seen_class_that_a_path_resembles_first():
    toward_01 = np.array([[0.0, 0.0], [0.05, 0.5], [0.1, 1.0], [0.6, 1.0], [1.0, 1.0]])
    assert cs.stereotype(toward_01) == 1
    assert cs.stereotype(toward_01[:, ::-1]) == 2


def test_accuracies_count_the_right_side_of_the_middle():
    points = np.array([[0.9, 0.2], [0.6, 0.8], [0.4, 0.9], [1.2, 0.7]])
    np.testing.assert_allclose(cs.accuracy(points, np.array([1, 1])), [0.75, 0.75])
    assert cs.joint_accuracy(points, np.array([1, 1])) == 0.5
    three = np.concatenate([points, [[0.9], [0.1], [0.9], [0.9]]], axis=1)
    np.testing.assert_allclose(cs.accuracy(three, np.array([1, 1, 1])), [0.75, 0.75, 0.75])
    assert cs.joint_accuracy(three, np.array([1, 1, 1])) == 0.25


def test_loops_of_training_agree(record_property):
    """Scanned by one program, unrolled in one, and dispatched step after step."""
    disc = shown(8)
    example = denoising(cs.DiscDenoiser((8,), 1, width=8), 2 * cs.render(disc, 4) - 1, cs.condition(disc))
    state, update = example.learner.init(jax.random.key(0), example.batch), jax.jit(example.learner.update)

    def two(state, batch):
        return update(update(state, batch)[0], batch)

    runs = (jax.jit(scan_steps(example.learner, 2).update), jax.jit(two), two)
    ends = [run(jax.tree.map(jnp.array, state), example.batch)[0].params for run in runs]
    gaps = [max(jax.tree.leaves(jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), ends[0], e))) for e in ends[1:]]
    record_property("value", f"largest difference of parameters after two steps {max(gaps):.1e}")
    assert max(gaps) < 1e-4
