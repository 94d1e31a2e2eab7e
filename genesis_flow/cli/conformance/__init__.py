"""``genesis-flow conformance``: whether a server does what genesis_flow asks of it, tried out on it."""
