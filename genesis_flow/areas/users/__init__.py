"""Users of MLflow's login, their roles, and what these may."""
