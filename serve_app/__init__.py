"""Constellate as plain Python: everything the service does, with no knowledge of Ray.

`deployments` spreads these modules over Ray actors and Serve replicas; `serve_app.main` is the one
place where the two meet.
"""
