"""How MLflow's gateway cuts time into the windows of budgets, and which calls a budget is for.

For a server only: a client has no need of the gateway.
"""

from mlflow.gateway.budget_tracker import (
    BudgetTracker,
    BudgetWindow,
    _compute_window_end,
    _compute_window_start,
    _policy_applies,
)
from mlflow.gateway.budget_tracker.in_memory import InMemoryBudgetTracker
from mlflow.tracking._tracking_service.utils import _get_store

applies = _policy_applies
window_start = _compute_window_start
window_end = _compute_window_end
# The store that the calls of this process go to.
store_of_calls = _get_store

__all__ = [
    "BudgetTracker",
    "BudgetWindow",
    "InMemoryBudgetTracker",
    "applies",
    "store_of_calls",
    "window_end",
    "window_start",
]
