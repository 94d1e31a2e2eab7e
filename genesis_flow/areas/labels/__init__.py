"""Label schemas: the questions that people answer about traces."""
