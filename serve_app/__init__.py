"""Constellate as plain Python: all work of the service, without Ray.

`deployments` spreads these modules over Ray actors and Serve replicas. Only `serve_app.main` uses both packages.
"""
