"""One package for each area of MLflow's stores: its documents, its filters, its methods."""
