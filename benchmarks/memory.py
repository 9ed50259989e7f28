"""Does the server's memory stay flat? python benchmarks/memory.py PHOTO... --model balloon-fast

Sends thousands of photos to ``maskserve serve``, drawn and as JSON in turn, from some clients at
a time, and prints what its process holds in between.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from maskserve.benchmarking.benchmark import ANSWERS
from maskserve.benchmarking.clients import send_photos
from maskserve.benchmarking.server import ServerProcess


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path, nargs="+", metavar="PHOTO")
    parser.add_argument("--model", default="balloon-fast", help="shipped model or bundle")
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--every", type=int, default=250, help="requests between two rows")
    arguments = parser.parse_args()

    photos = [path.read_bytes() for path in arguments.photos]
    print("requests  resident, MB  peak, MB  answers/s")
    with ServerProcess([arguments.model]) as server:
        sent = 0
        while sent < arguments.requests:
            traffic = send_photos(
                server.connect,
                photos,
                accept=ANSWERS[sent // arguments.every % len(ANSWERS)],
                clients=arguments.clients,
                rounds=arguments.every // arguments.clients,
            )
            sent += len(traffic.times_ms)
            memory = server.memory
            if memory is None:
                raise SystemExit("This system does not tell how much memory a process holds.")
            resident, peak = memory.resident_bytes / 1e6, memory.peak_bytes / 1e6
            print(f"{sent:8}  {resident:12.0f}  {peak:8.0f}  {traffic.per_second:9.1f}", flush=True)


if __name__ == "__main__":
    main()
