"""What areas of plain entities are made of: documents that are found by an id and listed in pages."""
