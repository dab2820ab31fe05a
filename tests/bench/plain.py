"""The plain script that a user would write: Pillow decode, eager float32 NCHW forward of the whole network.

    python -m tests.bench.plain MODEL DATA BATCH LIMIT

Prints the seconds of the loop (start-up apart) and the peak memory.
"""

import csv
import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image


def main() -> None:
    name, data, batch, limit = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    with open(data / "index.csv", newline="") as file:
        files = [row["image"] for row in csv.DictReader(file)][: limit or None]
    network = torchvision.models.get_model(name).eval()
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    start = time.perf_counter()
    with torch.no_grad():
        for first in range(0, len(files), batch):
            images = [np.array(Image.open(data / "images" / f).convert("RGB")) for f in files[first : first + batch]]
            network(torch.stack([(torch.from_numpy(i).permute(2, 0, 1).float() / 255 - mean) / std for i in images]))
    loop = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"loop_s": loop, "peak_rss_bytes": peak}))


if __name__ == "__main__":
    main()
