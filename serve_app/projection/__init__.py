"""Lays vectors out on a map in two dimensions."""
