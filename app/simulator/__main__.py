"""`python -m simulator`: the simulator without Django."""

from __future__ import annotations

import argparse

from simulator.server import add_arguments, run

parser = argparse.ArgumentParser(prog="python -m simulator", description="A stand-in for OpenAI.")
add_arguments(parser)
run(**vars(parser.parse_args()))
