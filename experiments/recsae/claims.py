"""What RecSAE must show, and what others published of its subject."""

from experiments.lab.system import Claim, NotShown, Published, ShownByRecords, ShownByTest
from experiments.recsae.config import SUBJECT
from experiments.recsae.judges import (
    judge_accuracy,
    judge_coherence,
    judge_dose,
    judge_halves,
    judge_in_place,
    judge_interpretable,
    judge_order,
    judge_recovery,
    judge_reported_coherence,
    judge_shuffled,
    judge_signs,
    judge_smooth,
)

MODELS = "tests/rec/test_sequential_models.py::"
LEARNING = "tests/rec/test_sequential_learning.py::"
RANKING = "tests/rec/test_sequential_ranking.py::"
PROBES = "tests/interp/test_recsae.py::"
CONCEPTS = "tests/interp/test_recsae_concepts.py::"
DIFFERENCE = "ndcg@10, interval of the difference over seeds"
CLAIMS = (
    Claim(
        "1a",
        "SASRec equals a NumPy reference of ReChorus's form: post-norm, no output projection, positions counted back",
        ShownByTest(MODELS + "test_sasrec_equals_numpy_with_positions_counted_back"),
    ),
    Claim(
        "1b",
        "Where the padding is changes nothing",
        ShownByTest(MODELS + "test_where_the_padding_is_changes_no_state"),
    ),
    Claim(
        "1c",
        "Later items never change earlier states",
        ShownByTest(MODELS + "test_later_items_change_no_earlier_state"),
    ),
    Claim(
        "1d",
        "The loss of all prefixes in one pass is the mean of the losses of single prefixes, gradients too",
        ShownByTest(LEARNING + "test_the_loss_of_one_pass_is_the_mean_over_prefixes"),
    ),
    Claim(
        "2a",
        "Ranks and metrics equal the published formulas, ties counted against the model",
        ShownByTest(RANKING + "test_ranks_and_metrics_equal_the_formulas_with_ties_against_the_model"),
    ),
    Claim(
        "2b",
        "Ranking by blocks of items gives the ranks of dense scores",
        ShownByTest(RANKING + "test_ranks_by_item_blocks_are_the_dense_ones"),
    ),
    Claim(
        "2c",
        "Excluded items are never recommended",
        ShownByTest(RANKING + "test_what_the_user_had_is_never_recommended"),
    ),
    Claim("3a", "An unused probe changes no bit", ShownByTest(PROBES + "test_an_unused_probe_changes_no_bit")),
    Claim("3b", "An unchanged code changes no bit", ShownByTest(PROBES + "test_an_unchanged_code_changes_no_bit")),
    Claim(
        "4",
        "Steering changes scores by (z'_j - z_j) <W_d[j], E_i>",
        ShownByTest(PROBES + "test_steering_changes_scores_by_the_closed_form"),
    ),
    Claim(
        "5",
        "Attribute lift, Fisher's p and the adjustment over units equal independent computations",
        ShownByTest(CONCEPTS + "test_lift_fisher_and_adjustment_equal_independent_computations"),
    ),
    Claim(
        "6",
        "Probes attach to SASRec, GRU4Rec, LightGCN and BPR-MF by the same call",
        ShownByTest(PROBES + "test_probes_attach_to_any_recommender_by_the_same_call"),
    ),
    Claim(
        "7a",
        "SASRec is not worse than GRU4Rec in NDCG@10 on Amazon Beauty",
        ShownByRecords("ndcg@10, interval of the difference over seeds", judge_order(SUBJECT, "GRU4Rec")),
    ),
    Claim(
        "7b",
        "SASRec is not worse than item-kNN",
        ShownByRecords("ndcg@10, interval of the difference over seeds", judge_order(SUBJECT, "Item-kNN")),
    ),
    Claim(
        "7c",
        "GRU4Rec is not worse than item-kNN",
        ShownByRecords(DIFFERENCE, judge_order("GRU4Rec", "Item-kNN")),
    ),
    Claim(
        "7d",
        "SASRec is better than popularity",
        ShownByRecords(DIFFERENCE, judge_order(SUBJECT, "Popularity")),
    ),
    Claim(
        "7e",
        "GRU4Rec is better than popularity",
        ShownByRecords(DIFFERENCE, judge_order("GRU4Rec", "Popularity")),
    ),
    Claim("7f", "HR@10 of SASRec lies within .06 and .09", ShownByRecords("hr@10 over seeds", judge_accuracy)),
    Claim(
        "8a",
        "With reconstructions in place at k = 32, HR@10 and NDCG@10 keep 95 % and fewer than 20 % of latents are dead",
        ShownByRecords("ratio of metrics over seeds", judge_in_place),
    ),
    Claim("8b", "The loss grows smoothly as k falls", ShownByRecords("HR@10 kept at each k", judge_smooth)),
    Claim(
        "9a",
        "Category coherence of latents at k = 8 exceeds that of neurons and random directions by .08 or more",
        ShownByRecords("coherence of the top 10 test histories, differences over seeds", judge_coherence),
    ),
    Claim(
        "9b",
        "At the paper's k = 32 the difference to neurons is reported with its interval",
        ShownByRecords("coherence of the top 10 test histories, differences over seeds", judge_reported_coherence),
    ),
    Claim(
        "10a",
        "More latents than neurons are interpretable",
        ShownByRecords("interpretable share, differences over seeds", judge_interpretable),
    ),
    Claim(
        "10b",
        "Shuffled activations give less than 5 %",
        ShownByRecords("interpretable share of shuffled latents", judge_shuffled),
    ),
    Claim(
        "11",
        "Confidence on one half of the users predicts confidence on the other",
        ShownByRecords("Spearman over latents", judge_halves),
    ),
    Claim(
        "12a",
        "Ablating a confident latent lowers the share of its concept's items in the top 10",
        ShownByRecords("sign test over the 50 most confident latents", judge_signs("sign test against nothing")),
    ),
    Claim(
        "12b",
        "and by more than ablating another active latent",
        ShownByRecords("sign test over the 50 most confident latents", judge_signs("sign test against another")),
    ),
    Claim(
        "12c",
        "Amplifying raises it monotonically",
        ShownByRecords("mean share of concept items along the dose, each seed", judge_dose),
    ),
    Claim(
        "13",
        "At least 80 % of planted groups are matched by a latent with F1 above .8",
        ShownByRecords("share of groups over seeds", judge_recovery),
    ),
    Claim("14a", "Probe training is as fast as sae_family asks", NotShown("`relic bench sae` times the family")),
    Claim("14b", "An epoch of SASRec is three times as fast as in PyTorch", NotShown("not timed side by side")),
    Claim(
        "14c",
        "Full ranking of 22,363 users takes less than 10 s on 2 cores",
        ShownByTest(RANKING + "test_ranking_twenty_thousand_users_takes_less_than_ten_seconds"),
    ),
)

_RUN = "comments in run.sh of Alice1998/RecSAE"
PUBLISHED = tuple(
    Published(dataset, SUBJECT, metric, value, source, "code")
    for dataset, source, numbers in (
        (
            "grocery",
            _RUN,
            {"hr@5": 0.0454, "hr@10": 0.0678, "hr@20": 0.1046, "hr@50": 0.1745, "ndcg@5": 0.0295, "ndcg@10": 0.0367,
             "ndcg@20": 0.0460, "ndcg@50": 0.0598},
        ),
        (
            "movielens_1m",
            "comments in run_ml.sh of Alice1998/RecSAE",
            {"hr@5": 0.1061, "hr@10": 0.1611, "hr@20": 0.2321, "hr@50": 0.3500, "ndcg@5": 0.0704, "ndcg@10": 0.0882,
             "ndcg@20": 0.1062},
        ),
    )
    for metric, value in numbers.items()
)  # fmt: skip
"""Of data sets that are not here; the paper's tables of confidence could not be read and are left blank."""
