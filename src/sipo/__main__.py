"""`python -m sipo`, for launchers such as `accelerate launch -m sipo train CONFIG`."""

from sipo.cli import main

main()
