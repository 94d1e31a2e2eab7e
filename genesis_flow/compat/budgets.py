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

applies = _policy_applies
window_start = _compute_window_start
window_end = _compute_window_end

__all__ = ["BudgetTracker", "BudgetWindow", "InMemoryBudgetTracker", "applies", "window_end", "window_start"]
