"""The ground floor of relic: training, data, records and statistics; it knows no paper."""

import os
from importlib.metadata import version

FLAG = "--xla_cpu_experimental_ynn_fusion_type"
KINDS = "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"


def _fuse_only_single_products() -> None:
    """Keeps XLA's CPU backend from fusing several operations into one call of its YNN library.

    With jaxlib 0.10.2 such fusions were seen to give wrong results: conjugate gradients whose right-hand sides were
    computed in the same program came out as zeros. Single products go through the library as before, at the same speed.
    XLA reads this when the first computation begins; a choice of one's own in XLA_FLAGS stands.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if version("jaxlib").startswith("0.10.") and FLAG not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {FLAG}={KINDS}".strip()


_fuse_only_single_products()
