from experiments.system import Claim

CLAIMS: tuple[Claim, ...] = ()
