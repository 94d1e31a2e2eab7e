"""What a collection is declared with: fields, indexes, keys, and what a portable server can do."""
