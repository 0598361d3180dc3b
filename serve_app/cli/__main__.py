"""`python -m serve_app.cli` is the same as `constellate`."""

from serve_app.cli import main

main()
