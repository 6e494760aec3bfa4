"""What must be shown of ``diffusion_transforms``, and how its records are judged."""

import pandas as pd

from core.stats import summary
from experiments.lab.frames import select, values
from experiments.lab.system import Claim, ShownByRecords, ShownByTest, Verdict


def judge_second_order(frame: pd.DataFrame) -> Verdict:
    """Item 9: 2M at 20 calls is no farther from the data than DDIM at 50, on average over seeds."""
    ours = values(frame, metric="sliced W1", method="DPM-Solver++(2M)", calls=20)
    other = values(frame, metric="sliced W1", method="DDIM", calls=50)
    if min(len(ours), len(other)) < 3 or len(ours) != len(other):
        return Verdict(None)
    difference = summary(ours - other)
    text = f"sliced W1 {ours.mean():.4f} at 20 calls, DDIM {other.mean():.4f} at 50"
    return Verdict(bool(ours.mean() <= other.mean()), text, difference.interval)


def judge_cost(frame: pd.DataFrame) -> Verdict:
    """Item 11: a step within a tenth of the network call, for networks of a millisecond and more."""

    def milliseconds(method: str, calls: int) -> float:
        return float(values(frame, metric="milliseconds", method=method, calls=calls)[0])

    if not len(select(frame, metric="milliseconds")):
        return Verdict(None)
    step, call = milliseconds("sampling step", 50), milliseconds("network call", 1)
    text = f"{step:.2f} ms per step, {call:.2f} ms per bare network call; dispatch {milliseconds('dispatch', 10):.2f} "
    text += f"ms of 10 steps and {milliseconds('dispatch', 50):.2f} ms of 50"
    return Verdict(None if call < 1 else bool(step <= 1.1 * call), text)


SAMPLER_TESTS = "tests/latent/test_diffusion_samplers.py::"


VOCABULARY = "tests/latent/test_diffusion_vocabulary.py::"


PEERS = "tests/latent/test_diffusion_peers.py::"


CLAIMS = (
    Claim("1a", "Linear and cosine chains have the published levels to 1e-8",
          ShownByTest(VOCABULARY + "test_chains_have_the_published_levels")),
    Claim("1b", "Chains agree with diffusers' schedulers", ShownByTest(PEERS + "test_chains_agree_with_diffusers")),
    Claim("2a", "Raw outputs of five parameterisations go to (x0, eps) and back for log SNRs in [-10, 10]",
          ShownByTest(VOCABULARY + "test_raw_outputs_go_to_predictions_and_back")),
    Claim("2b", "Their errors are the stated multiples of each other",
          ShownByTest(VOCABULARY + "test_errors_of_parameterisations_are_multiples_of_each_other")),
    Claim("3a", "On Gaussian data DDPM (both variances) and DDIM (three etas) have the computed laws at all lengths",
          ShownByTest(SAMPLER_TESTS + "test_moments_of_linear_samplers_on_gaussian_data")),
    Claim("3b", "2e5 samples follow those laws to three standard errors",
          ShownByTest(SAMPLER_TESTS + "test_monte_carlo_follows_the_computed_law")),
    Claim("4", "DDIM is of first order, DPM-Solver++(2M) and Heun of second, with the computed errors",
          ShownByTest(SAMPLER_TESTS + "test_orders_of_convergence_to_the_exact_flow")),
    Claim("5", "Inversion and decoding return to the start with the computed errors, in three modes",
          ShownByTest(SAMPLER_TESTS + "test_inversion_round_trips_in_three_modes")),
    Claim("6a", "The variational bound of Gaussian data has its closed form, term by term",
          ShownByTest(VOCABULARY + "test_the_bound_on_gaussian_data_is_its_closed_form")),
    Claim("6b", "The diffusion term does not depend on the schedule between its ends",
          ShownByTest(VOCABULARY + "test_the_diffusion_term_does_not_see_the_path_between_the_ends")),
    Claim("6c", "Stratified times cut the variance of a batch's bound some eighty-fold in 784 dimensions, not in one",
          ShownByTest(VOCABULARY + "test_stratified_times_cut_the_variance_of_a_batch")),
    Claim("7a", "Guidance of weight 1 is the conditional sampler, of weight 0 the unconditional one, exactly",
          ShownByTest(VOCABULARY + "test_weights_one_and_zero_are_exact_where_no_program_is_fused")),
    Claim("7b", "A doubled batch equals two calls", ShownByTest(VOCABULARY + "test_doubled_batch_equals_two_calls")),
    Claim("7c", "The law under guidance of weight 2 follows from its affine steps",
          ShownByTest(VOCABULARY + "test_the_guided_law_follows_from_its_affine_steps")),
    Claim("8a", "vmap over seeds, weights and schedules equals a loop",
          ShownByTest(SAMPLER_TESTS + "test_vmap_over_plans_weights_and_seeds_equals_a_loop")),
    Claim("8b", "One compilation serves five schedules, etas and weights",
          ShownByTest(SAMPLER_TESTS + "test_one_compilation_serves_schedules_etas_and_weights")),
    Claim("8c", "Padded plans give the same bits", ShownByTest(SAMPLER_TESTS + "test_padded_plans_give_the_same_bits")),
    Claim("9", "On a trained network DPM-Solver++(2M) at 20 calls is as close to the data as DDIM at 50",
          ShownByRecords("sliced W1 on the ring, mean over seeds", judge_second_order)),
    Claim("10", "min-SNR, v and EDM weightings reach the optimum of the plain loss within 2 %",
          ShownByTest(VOCABULARY + "test_weightings_reach_the_same_optimum")),
    Claim("11", "A sampling step costs at most a tenth more than a bare network call of a millisecond or more",
          ShownByRecords("median times of a 13.7 M-parameter perceptron, interleaved", judge_cost)),
)  # fmt: skip
