#!/usr/bin/env python3
"""Measures cost and results of HVI and ABML against the number of training tasks.

HVI keeps a posterior for every training task. ABML keeps one prior for all of them. The script writes a
table (Markdown), a plot (SVG) and the numbers (JSON). It needs only Python and a built kshot.

    bench/hvi_versus_abml.py --kshot build/kshot --out docs/hvi-versus-abml

Times are processor time (user and system, one thread), so that they are valid on a machine that is not
idle. The time of a step is the difference between a run of many steps and a run of few steps, divided by
the difference of the numbers of steps.
"""
import argparse
import json
import math
import os
import resource
import shutil
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = {"hvi": ROOT / "configs/sinusoid-hvi.toml", "abml": ROOT / "configs/sinusoid-abml.toml"}
# Both algorithms have the same tasks, with 10 support rows. In training, ABML's outer loss sees 10 more
# rows.
COMMON = {"data.shots": 10, "data.queries": 10, "data.noise_std": 0.3,
          "train.validate_every": 0, "optimizer.schedule": "constant", "train.log_every": 100000,
          "train.checkpoint_every": 1000000}


def run(arguments):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([str(a) for a in arguments], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, arguments))}\n{done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


class Bench:
    def __init__(self, options, scratch):
        self.kshot = options.kshot
        self.scratch = scratch

    def train(self, algorithm, tasks, steps, keep=None):
        """Trains a run. Returns its processor seconds, and the bytes of its task store and checkpoint."""
        folder = self.scratch / (keep or "run")
        shutil.rmtree(folder, ignore_errors=True)
        sets = dict(COMMON, **{"data.tasks": tasks, "train.steps": steps, "train.meta_batch": min(16, tasks)})
        command = [self.kshot, "train", CONFIGS[algorithm], "--out", folder, "--threads", 1,
                   "--device", "cpu", "--quiet"]
        for key, value in sets.items():
            command += ["--set", f"{key}={value}"]
        seconds = run(command)
        store = folder / "tasks.store"
        kept = store.stat().st_size if store.exists() else 0
        shared = (folder / "last.safetensors").stat().st_size
        if keep is None:
            shutil.rmtree(folder)
        return seconds, kept, shared

    def step_seconds(self, algorithm, tasks, few, many):
        short, _, _ = self.train(algorithm, tasks, few)
        long, kept, shared = self.train(algorithm, tasks, many)
        return (long - short) / (many - few), kept, shared

    def evaluate(self, folder, steps):
        out = self.scratch / "evaluation.json"
        run([self.kshot, "evaluate", self.scratch / folder, "--threads", 1, "--device", "cpu",
             "--quiet", "--out", out, "--set", "evaluate.episodes=400", "--set", "evaluate.samples=20", "--set",
             f"evaluate.steps={steps}"])
        return json.loads(out.read_text())


def store_bytes(tasks, weights):
    """Returns the size of HVI's task store in bytes (src/io/row_store.h).

    The store has a header page, an index with two step numbers per row, and per row two states of
    6 D + 1 floats, rounded up to cache lines. D is the number of weights.
    """
    page = 4096
    index = -(-16 * tasks // page) * page
    return page + index + tasks * 2 * (-(-(6 * weights + 1) * 4 // 64) * 64)


def size_text(n):
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.3g} PB"


def plot(path, rows):
    """Draws the bytes kept and the time per step against the number of tasks, on logarithmic axes."""
    width, height, gap, left, top = 380, 260, 90, 80, 40
    colours = {"hvi": "#b5442e", "abml": "#2b6ca3"}
    parts = []

    def panel(index, title, key, unit, scale):
        x0 = left + index * (width + gap)
        points = {a: [(r["tasks"], r[key] / scale, r["measured"]) for r in rows if r["algorithm"] == a]
                  for a in colours}
        values = [v for p in points.values() for _, v, _ in p]
        low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
        if high == low:
            high += 1
        xs = sorted({r["tasks"] for r in rows})
        xl, xh = math.log10(xs[0]), math.log10(xs[-1])

        def place(n, v):
            return (x0 + (math.log10(n) - xl) / (xh - xl) * width,
                    top + height - (math.log10(v) - low) / (high - low) * height)

        parts.append(f'<text x="{x0}" y="{top - 16}" class="t">{title}</text>')
        for e in range(low, high + 1):
            y = place(xs[0], 10.0 ** e)[1]
            parts.append(f'<line x1="{x0}" y1="{y:.1f}" x2="{x0 + width}" y2="{y:.1f}" class="g"/>')
            label = f"{10.0 ** e:g} {unit}"
            parts.append(f'<text x="{x0 - 8}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
        for n in xs:
            x = place(n, 10.0 ** low)[0]
            parts.append(f'<text x="{x:.1f}" y="{top + height + 18}" text-anchor="middle">{n:,}</text>')
        parts.append(f'<text x="{x0 + width / 2}" y="{top + height + 38}" text-anchor="middle">'
                     "training tasks</text>")
        for algorithm, p in points.items():
            line = " ".join("{:.1f},{:.1f}".format(*place(n, v)) for n, v, _ in p)
            parts.append(f'<polyline points="{line}" fill="none" stroke="{colours[algorithm]}" '
                         'stroke-width="2"/>')
            for n, v, measured in p:
                x, y = place(n, v)
                fill = colours[algorithm] if measured else "white"
                parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{fill}" '
                             f'stroke="{colours[algorithm]}" stroke-width="1.5"/>')
            x, y = place(*p[-1][:2])
            parts.append(f'<text x="{x - 6:.1f}" y="{y - 10:.1f}" text-anchor="end" '
                         f'fill="{colours[algorithm]}">{algorithm.upper()}</text>')

    panel(0, "Kept for the run (parameters, optimiser, tasks)", "bytes", "MB", 1e6)
    panel(1, "Processor time of a step of 16 tasks", "step_seconds", "ms", 1e-3)
    total = left + 2 * width + gap + 20
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total} {top + height + 60}" '
        f'width="{total}" height="{top + height + 60}" font-family="sans-serif" font-size="11">\n'
        "<style>.t{font-size:13px;font-weight:bold}.g{stroke:#ddd}</style>\n"
        '<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(parts) + "\n"
        f'<text x="{left}" y="{top + height + 55}" fill="#666">filled: measured; open: planned</text>\n</svg>\n')


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kshot", default=ROOT / "build/kshot", type=Path)
    parser.add_argument("--out", default=ROOT / "docs/hvi-versus-abml", type=Path,
                        help="PREFIX of PREFIX.json, PREFIX-table.md, PREFIX.svg")
    parser.add_argument("--tasks", default="10,100,1000,10000", help="numbers of training tasks to run")
    parser.add_argument("--planned", default="100000,1000000", help="to plan alone")
    parser.add_argument("--equal", default="100,1000,10000", help="where both train for the same time")
    parser.add_argument("--budget", default=60.0, type=float, help="processor seconds of those runs")
    parser.add_argument("--steps", default="200,2200", help="of the two runs whose difference is timed")
    options = parser.parse_args()
    few, many = map(int, options.steps.split(","))
    numbers = lambda text: [int(n) for n in text.split(",") if n]
    scratch = Path(tempfile.mkdtemp(prefix="hvi-versus-abml-", dir=os.environ.get("TMPDIR")))
    try:
        bench = Bench(options, scratch)
        rows, seconds = [], {}
        for tasks in numbers(options.tasks):
            for algorithm in CONFIGS:
                step, kept, shared = bench.step_seconds(algorithm, tasks, few, many)
                if kept and kept != store_bytes(tasks, 1761):
                    raise SystemExit(f"store of {kept} bytes, expected {store_bytes(tasks, 1761)}")
                seconds[algorithm, tasks] = step
                rows.append(dict(algorithm=algorithm, tasks=tasks, step_seconds=step,
                                 bytes=kept + shared, store=kept, measured=True))
                print(rows[-1], flush=True)
        shared = {a: next(r["bytes"] - r["store"] for r in rows if r["algorithm"] == a) for a in CONFIGS}
        for tasks in numbers(options.planned):
            for algorithm in CONFIGS:
                store = store_bytes(tasks, 1761) if algorithm == "hvi" else 0
                # A step uses as many rows of the store as in the largest measured run, so that its time is taken.
                most = max(r["tasks"] for r in rows if r["measured"])
                rows.append(dict(algorithm=algorithm, tasks=tasks, step_seconds=seconds[algorithm, most],
                                 bytes=store + shared[algorithm], store=store, measured=False))
        results = []
        for tasks in numbers(options.equal):
            for algorithm in CONFIGS:
                steps = max(1, int(options.budget / seconds[algorithm, tasks]))
                used, _, _ = bench.train(algorithm, tasks, steps, keep=algorithm)
                score = bench.evaluate(algorithm, 100 if algorithm == "hvi" else 10)
                last = score["steps"][-1]
                results.append(dict(
                    algorithm=algorithm, tasks=tasks, steps=steps, seconds=used,
                    mse=last["mse"], nll=last["nll"],
                    coverage={str(c["level"]): c for c in last["coverage"]},
                    mean_mse=next(b["mse"] for b in score["baselines"] if b["name"] == "support mean")))
                print(results[-1], flush=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)

    options.out.parent.mkdir(parents=True, exist_ok=True)
    Path(f"{options.out}.json").write_text(json.dumps(dict(cost=rows, equal_time=results), indent=1) + "\n")
    pm = lambda s, d: f"{s['mean']:.{d}f} ± {s['half_width']:.{d}f}"
    lines = ["| training tasks | HVI: kept | of it the store | HVI: a step | ABML: kept | ABML: a step |",
             "|---:|---:|---:|---:|---:|---:|"]
    time = lambda r: f"{1e3 * r['step_seconds']:.2f} ms" + ("" if r["measured"] else " (planned)")
    for tasks in sorted({r["tasks"] for r in rows}):
        h, a = ([r for r in rows if r["tasks"] == tasks and r["algorithm"] == x][0] for x in ("hvi", "abml"))
        lines.append(f"| {tasks:,} | {size_text(h['bytes'])} | {size_text(h['store'])} | {time(h)} | "
                     f"{size_text(a['bytes'])} | {time(a)} |")
    lines += ["", "| training tasks | | steps | processor time | MSE | NLL | in the 90 % band |",
              "|---:|---|---:|---:|---:|---:|---:|"]
    for r in results:
        band = r["coverage"]["0.9"]
        lines.append(f"| {r['tasks']:,} | {r['algorithm'].upper()} | {r['steps']:,} | {r['seconds']:.0f} s | "
                     f"{pm(r['mse'], 3)} | {pm(r['nll'], 2)} | {100 * band['mean']:.1f} ± "
                     f"{100 * band['half_width']:.1f} % |")
    Path(f"{options.out}-table.md").write_text("\n".join(lines) + "\n")
    plot(Path(f"{options.out}.svg"), rows)


if __name__ == "__main__":
    main()
