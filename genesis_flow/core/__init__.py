"""Settings, URIs, masking and errors: what everything else stands on."""
