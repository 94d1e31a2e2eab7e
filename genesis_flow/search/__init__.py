"""From MLflow's filters, orders and page tokens to MongoDB's queries: what areas share."""
