"""A model of the time of a training step against the number of GPUs.

    bench/scale_model.py

The time of a step is tasks / ranks / speed + exchange, where speed is in tasks per second of one
GPU. The time of the exchange, in seconds, is

    to all     2 * latency * ceil(log2 ranks) + (ranks - 1) * bytes / bandwidth
    in pieces  5 * latency * ceil(log2 ranks) + (ranks - 1) * 0.2 us
               + 2 * bytes * (ranks - 1) / ranks / bandwidth

Vectors of less than 64 KiB are sent from all ranks to all. Larger vectors are exchanged in pieces:
every rank receives one piece from all ranks and sends back its sum (backend::exchanged_in_pieces).
The size from which pieces are faster was not measured between GPUs.

Latency and bandwidth come from data sheets: NVLink 4 (450 GB/s per direction and GPU) for up to 8
GPUs of one machine, and InfiniBand NDR (50 GB/s per port, 2 us) between machines, with 3 us more
for the library. The speeds of one GPU are those that docs/kernels.md expects of an H100. Nothing
here was measured on a GPU.
"""

import math

NVLINK = (5e-6, 450e9)  # seconds, bytes per second
INFINIBAND = (2e-6 + 3e-6, 50e9)

# name: tasks per second of one GPU, tasks per meta-batch, numbers in the gradient
CASES = {
    "sinusoids, 8,192 tasks": (1.1e7, 8192, 1761),
    "sinusoids, 262,144 tasks": (1.1e7, 262144, 1761),
    "conv4-64, 512 tasks": (1.4e4, 512, 112_709),
    "conv4-64, 16,384 tasks": (1.4e4, 16384, 112_709),
    "LEO, 1,024 tasks": (5.0e5, 1024, 172_000),
    "LEO, 131,072 tasks": (5.0e5, 131072, 172_000),
}


def exchange(ranks: int, numbers: int, pieces: bool) -> float:
    if ranks == 1:
        return 0.0
    latency, bandwidth = NVLINK if ranks <= 8 else INFINIBAND
    chain = latency * math.ceil(math.log2(ranks))
    size = 8 * numbers
    to_all = 2 * chain + (ranks - 1) * size / bandwidth
    if not pieces or ranks <= 2 or size < 64 << 10:
        return to_all
    moved = 2 * size * (ranks - 1) / ranks / bandwidth
    return 5 * chain + (ranks - 1) * 0.2e-6 + moved


def main() -> None:
    counts = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]
    for pieces in (False, True):
        print("large vectors in pieces, as it is built" if pieces else "all nodes to all")
        print("| | " + " | ".join(str(c) for c in counts) + " |")
        print("|---|" + "---:|" * len(counts))
        for name, (speed, tasks, numbers) in CASES.items():
            cells = []
            for ranks in counts:
                share = 16 * math.ceil(math.ceil(tasks / 16) / ranks)  # whole blocks of 16 tasks
                time = min(tasks, share) / speed + exchange(ranks, numbers, pieces)
                cells.append(f"{tasks / speed / time:.1f}")
            print(f"| {name} | " + " | ".join(cells) + " |")
        print()


if __name__ == "__main__":
    main()
