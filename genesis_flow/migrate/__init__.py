"""The schema's steps and the tool that runs them."""
