"""The diffusion vocabulary: samplers beside each other on a trained network, and what a step costs.

Sources: DDPM (2006.11239), DDIM (2010.02502), score SDE (2011.13456), VDM (2107.00630), EDM (2206.00364),
DPM-Solver++ (2211.01095) and the others named in ``latent/diffusion``. Not one paper: the layer on which several
systems stand. What can be said exactly is said by tests; this experiment measures what needs a trained network.
Claim: second-order samplers reach the quality of first-order ones in fewer network calls, in one compiled program.
Command: ``relic run diffusion_transforms --preset small --seeds 5``.
Cost: no data; smoke half a minute on 2 CPU cores, small about ten minutes of CPU time.
Expect: DPM-Solver++(2M) at 20 calls is as close to the data as DDIM at 50.
"""

from experiments.diffusion_transforms.claims import CLAIMS
from experiments.diffusion_transforms.config import PRESETS
from experiments.diffusion_transforms.figures import COLOURS, FIGURES, TABLES
from experiments.diffusion_transforms.study import plan
from experiments.lab import System

SYSTEM = System(
    slug="diffusion_transforms",
    title="Diffusion transforms",
    line="schedules, samplers, inversion and guidance on which the diffusion systems stand",
    is_layer=True,
    family="latent",
    paper="the layer under several systems; sources in latent/diffusion",
    presets=PRESETS, plan=plan, claims=CLAIMS, metrics=(), tables=TABLES, figures=FIGURES, colours=COLOURS,
)  # fmt: skip
