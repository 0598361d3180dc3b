"""Turns images into vectors: models, weights, batches. This package uses neither Ray nor HTTP nor the database."""
