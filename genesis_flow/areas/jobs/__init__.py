"""Background jobs of MLflow's server, and the locks and leases of those who run them."""
