"""Durable jobs: the loop that claims them, and the work of each kind. This package uses neither Ray nor HTTP."""
