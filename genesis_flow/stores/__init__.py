"""The stores: the areas, joined."""
