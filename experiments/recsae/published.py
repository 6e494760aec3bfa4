"""What the comments of the authors' scripts record of the subject; the tables of confidence could not be read."""

from experiments.lab import Published
from experiments.recsae.config import SUBJECT

PUBLISHED = tuple(
    Published(dataset, SUBJECT, metric, value, f"comments in {script} of Alice1998/RecSAE", "code")
    for dataset, script, numbers in (
        ("grocery", "run.sh", {"hr@5": 0.0454, "hr@10": 0.0678, "hr@20": 0.1046, "hr@50": 0.1745, "ndcg@5": 0.0295,
                               "ndcg@10": 0.0367, "ndcg@20": 0.0460, "ndcg@50": 0.0598}),
        ("movielens_1m", "run_ml.sh", {"hr@5": 0.1061, "hr@10": 0.1611, "hr@20": 0.2321, "hr@50": 0.3500,
                                       "ndcg@5": 0.0704, "ndcg@10": 0.0882, "ndcg@20": 0.1062}),
    )
    for metric, value in numbers.items()
)  # fmt: skip
"""Of data sets that are not here."""
