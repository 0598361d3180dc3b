"""Durable jobs: the loop that claims them, and what each kind does. Knows no Ray and no HTTP."""
