"""`make fuzz`: as many generated requests as one has minutes for, a new seed every round."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.run import fuzz
from tests.fuzz.service import FuzzedService, seed


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--examples", type=int, default=100, help="most of an operation and phase in a round")
    parser.add_argument("--seed", type=int, default=1, help="of the first round")
    given = parser.parse_args()
    deadline = time.monotonic() + 60 * given.minutes
    number = given.seed
    while time.monotonic() < deadline:
        with tempfile.TemporaryDirectory() as folder:
            service = FuzzedService(Path(folder))
            service.start()
            try:
                outcome = fuzz(
                    service,
                    seed(service),
                    Path(folder),
                    max_examples=given.examples,
                    seed=number,
                    timeout_s=max(deadline - time.monotonic() + 300, 300),
                )
            finally:
                service.stop()
        print(f"seed {number}: {service.n_requests} requests, {dict(sorted(service.by_status.items()))}", flush=True)
        if not outcome.is_clean or service.failures:
            sys.exit(f"{outcome.report}\n{service.failures}")
        number += 1


if __name__ == "__main__":
    main()
