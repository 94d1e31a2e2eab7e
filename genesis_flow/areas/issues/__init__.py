"""Issues: problems that were found in traces."""
