"""Whose the things are that calls make and speak of."""
