"""What must be shown of ``diffusion_transforms``."""

import functools

import numpy as np

from experiments.diffusion_transforms.study import CALL, DISPATCH, REPEATED, STEP, W1
from experiments.lab import Claim, mean, median, numbers, tested

SAMPLERS, VOCABULARY, PEERS = (
    f"tests/latent/test_diffusion_{name}.py::test_" for name in ("samplers", "vocabulary", "peers")
)
closer = numbers(W1, method="DPM-Solver++(2M)", calls=20) - numbers(W1, method="DDIM", calls=50)
repeated = functools.partial(numbers, REPEATED, per="repeat")
slow_call = repeated(method=CALL, calls=1).map(lambda ms: np.where(np.median(ms) < 1, np.nan, ms))
"""Of a network of a millisecond or more; a faster one tells nothing."""

CLAIMS = (
    Claim("1a", "Linear and cosine chains have the published levels to 1e-8",
          tested(VOCABULARY + "chains_have_the_published_levels")),
    Claim("1b", "Chains agree with diffusers' schedulers to 4e-7", tested(PEERS + "chains_agree_with_diffusers"),
          note="with their betas multiplied in float64: the rounding of their own float32 products is larger"),
    Claim("2a", "Raw outputs of five parameterisations go to (x0, eps) and back to 1e-5 in float32 for log SNRs in "
          "[-10, 10]",
          tested(VOCABULARY + "raw_outputs_return_from_predictions_and_from_every_other_parameterisation"),
          note="on the way through another parameterisation to 1e-6 over the smaller of a and s, where that is more: "
          "float32 holds no more of x0 in eps, or of eps in x0"),
    Claim("2b", "Their errors are the stated multiples of each other",
          tested(VOCABULARY + "errors_of_parameterisations_are_multiples_of_each_other")),
    Claim("3a", "On Gaussian data DDPM (both variances) and DDIM (three etas) have the computed laws at all lengths",
          tested(SAMPLERS + "moments_of_linear_samplers_on_gaussian_data")),
    Claim("3b", "2e5 samples follow those laws to three standard errors",
          tested(SAMPLERS + "monte_carlo_follows_the_computed_law")),
    Claim("4", "DDIM is of first order, DPM-Solver++(2M) and Heun of second, with the computed errors",
          tested(SAMPLERS + "orders_of_convergence_to_the_exact_flow")),
    Claim("5", "Inversion and decoding return to the start with the computed errors, in three modes",
          tested(SAMPLERS + "inversion_round_trips_in_three_modes")),
    Claim("6a", "The variational bound of Gaussian data has its closed form, term by term",
          tested(VOCABULARY + "the_bound_on_gaussian_data_is_its_closed_form")),
    Claim("6b", "The diffusion term does not depend on the schedule between its ends",
          tested(VOCABULARY + "the_diffusion_term_does_not_see_the_path_between_the_ends")),
    Claim("6c", "Stratified times cut the variance of a batch's bound some eighty-fold in 784 dimensions, not in one",
          tested(VOCABULARY + "stratified_times_cut_the_variance_of_a_batch")),
    Claim("7a", "Guidance of weight 1 is the conditional sampler, of weight 0 the unconditional one, bit for bit",
          tested(VOCABULARY + "guided_samplers_of_weights_one_and_zero_have_the_bits_of_the_two_samplers"),
          note="operation by operation; to rounding where programs are compiled, which fuse in their own ways"),
    Claim("7b", "A doubled batch equals two calls", tested(VOCABULARY + "doubled_batch_equals_two_calls")),
    Claim("7c", "The law under guidance of weight 2 follows from its affine steps",
          tested(VOCABULARY + "the_guided_law_follows_from_its_affine_steps")),
    Claim("8a", "vmap over seeds, weights and schedules equals a loop",
          tested(SAMPLERS + "vmap_over_plans_weights_and_seeds_equals_a_loop")),
    Claim("8b", "One compilation serves five schedules, etas and weights",
          tested(SAMPLERS + "one_compilation_serves_schedules_etas_and_weights")),
    Claim("8c", "Padded plans give the same bits", tested(SAMPLERS + "padded_plans_give_the_same_bits")),
    Claim("9", "On a trained network DPM-Solver++(2M) at 20 calls is as close to the data as DDIM at 50",
          mean(closer, most=0, seeds=3)),
    Claim("10", "min-SNR, v and EDM weightings reach the optimum of the plain loss within 2 %",
          tested(VOCABULARY + "weightings_reach_the_same_optimum")),
    Claim("11a", "A sampling step costs at most a tenth more than a bare network call of a millisecond or more",
          median(repeated(method=STEP, calls=50) / slow_call, most=1.1),
          note="medians over interleaved repeats, a perceptron of 13.7 M parameters on the machine of the run"),
    Claim("11b", "The overhead in Python does not depend on the number of steps",
          median(repeated(method=DISPATCH, calls=50) / repeated(method=DISPATCH, calls=10), 0.8, 1.25),
          note="the time until control returns, 50 steps over 10"),
)  # fmt: skip
