"""The ground floor of relic: training, data, records and statistics; it knows no paper."""

import os
import re
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


def _have_threads_for_virtual_devices() -> None:
    """Gives XLA's CPU backend more threads than it has devices, where a computer's cores stand for several of them.

    With jaxlib 0.10.2 and as many threads as devices, programs whose devices wait for each other were seen to wait
    forever (XLA ends the process after 40 s): every second process on a busy machine of 2 cores and 4 devices, none of
    21 with twice as many threads or more. XLA reads NPROC when its backend starts; a choice of one's own stands.
    """
    counts = re.findall(r"--xla_force_host_platform_device_count=(\d+)", os.environ.get("XLA_FLAGS", ""))
    devices = max(map(int, filter(str.isdecimal, [*counts, os.environ.get("JAX_NUM_CPU_DEVICES", "")])), default=1)
    if devices > 1:
        os.environ.setdefault("NPROC", str(max(os.cpu_count() or 1, 4 * devices)))


_fuse_only_single_products()
_have_threads_for_virtual_devices()
