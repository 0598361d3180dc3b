"""Answers questions about a set of vectors: neighbours, near-duplicates, outliers, a diverse choice."""
