"""The AI gateway: keys, models, endpoints, budgets and guardrails."""
