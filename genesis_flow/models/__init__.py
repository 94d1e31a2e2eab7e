"""Models that are what was logged, and do no more than predict.

``verify`` and ``load`` check a model whatever the settings say; ``seal`` makes one verifiable that was logged
without sums. With secure loading switched on, MLflow's own calls check as ``load`` does. Loads MLflow when
one of them is called.
"""

from genesis_flow.models.calls import Verified, load, seal, verify

__all__ = ["Verified", "load", "seal", "verify"]
