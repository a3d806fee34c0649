"""The HTTP client that calls to the upstream go through."""
