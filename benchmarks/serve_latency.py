"""Measure how long a page waits for an answer: `python benchmarks/serve_latency.py RUN [RUN2] --photo FILE`.

Starts `civae serve` as a user would, uploads a picture, moves the first slider 60 times after a warm-up, and prints
the median and quartiles of the request times, for one model and, if two are named, for both at once.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

MOVES, WARM_UP = 60, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--photo", type=Path, required=True, help="a picture file")
    parser.add_argument("--engine", default="auto")
    given = parser.parse_args()
    command = [sys.executable, "-m", "civae_cli", "serve", *map(str, given.runs)]
    command += ["--port", "0", "--engine", given.engine, "--json", "--quiet"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        try:
            page = json.loads(_asked(f"{url}api/page"))
            started = time.perf_counter()
            photo = json.loads(_asked(f"{url}api/photos", given.photo.read_bytes()))["photo"]
            print(json.dumps({"upload_ms": round(1000 * (time.perf_counter() - started), 1)}))
            for models in ([0], [0, 1])[: len(given.runs)]:
                print(json.dumps(_moved(f"{url}api/photos/{photo}/answer", page, models)))
        finally:
            process.terminate()


def _moved(url: str, page: dict, models: list[int]) -> dict:
    """Median and quartiles of the milliseconds that a move of the first model's first slider takes."""
    slider = page["models"][models[0]]["treatments"][0]
    took = []
    for move in range(MOVES + WARM_UP):
        value = slider["from"] + (slider["to"] - slider["from"]) * move / (MOVES + WARM_UP)
        question = {"models": models, "treat": {slider["name"]: value}, "noise": 1.0}
        started = time.perf_counter()
        _asked(url, json.dumps(question).encode())
        took.append(1000 * (time.perf_counter() - started))
        time.sleep(0.06)  # as the page does
    low, median, high = statistics.quantiles(took[WARM_UP:], n=4)
    said = {"models": [page["models"][n]["name"] for n in models], "size": page["models"][models[0]]["size"]}
    said |= {"engine": page["models"][models[0]]["engine"]}
    return said | {"median_ms": round(median, 1), "quartiles_ms": [round(low, 1), round(high, 1)]}


def _asked(url: str, body: bytes | None = None) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, data=body), timeout=60) as response:
        content: bytes = response.read()
        return content


if __name__ == "__main__":
    main()
