"""From MLflow's filter, order and page token to MongoDB's queries."""
