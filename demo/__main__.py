"""`python -m demo`, which `make demo` runs."""

from demo.command import main

main()
