#!/usr/bin/env python3
"""Compares the goals for kshot on an H100 or H200 with the measurements of bench/device.sh.

  bench/reach.py FOLDER     FOLDER has the results of bench/device.sh

The script prints a table and writes FOLDER/reach.json. A line whose measurement is missing says
so. All measurements are in float32 and of second order. A ratio compares kshot with the best peer
on the same GPU, each program at its best meta-batch size.
"""

import json
import pathlib
import re
import sys

MIB = 1024.0 * 1024.0
FLAT = 0.8  # a rate is flat if its lowest value is at least this share of its highest
LEAST_ACCURACY, LONGEST = 0.98, 60.0


def load(path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return None


class Results:
    def __init__(self, folder):
        self.folder = folder

    def work(self, name):
        """Returns the entry that bench/compare wrote for a work, or None."""
        entries = load(self.folder / f"compare-{name}.json") or []
        return next((entry for entry in entries if entry["work"] == name), None)

    def ratio(self, name, least):
        asked = f">= {least} x"
        entry = self.work(name)
        if entry is None or entry["kshot"] is None:
            return asked, "no result", None
        missing = " and ".join(entry.get("peers_missing", []))
        note = f" (without {missing})" if missing else ""
        if entry["ratio"] is None:
            return asked, f"no peer has a result{note}", None
        return asked, f"{entry['ratio']:.1f} x {entry['best_peer']}{note}", entry["ratio"] >= least

    def rate(self, name, least):
        asked = f">= {least:,} tasks/s"
        entry = self.work(name)
        if entry is None or entry["kshot"] is None:
            return asked, "no result", None
        return asked, f"{entry['kshot']:,.0f} tasks/s", entry["kshot"] >= least

    def scaling(self, name):
        asked = f"flat from T = 1,000: lowest rate >= {FLAT} of the highest"
        entry = self.work(name)
        rates = {r["tasks"]: r["tasks_per_second"] for r in entry["sizes"]["kshot"]
                 if r["tasks"] >= 1000} if entry else {}
        if len(rates) < 2:
            return asked, "no result", None
        share = min(rates.values()) / max(rates.values())
        sizes = ", ".join(f"{tasks:,}: {rate:,.0f}" for tasks, rate in sorted(rates.items()))
        return asked, f"{share:.2f} ({sizes})", share >= FLAT

    def many_steps(self, steps):
        asked = "fits where a peer runs out of memory"
        cells = [cell for cell in load(self.folder / "memory.json") or [] if cell["steps"] == steps]
        if not cells:
            return asked, "no result", None

        def text(size):
            return f"{size / MIB:,.0f} MiB" if size else "failed"
        told, met = [], None
        for cell in cells:
            error = cell["jax_error"]
            sizes = {key.split("_")[0]: value for key, value in cell.items()
                     if key.endswith("_bytes")}
            told.append(f"T = {cell['tasks']:,}: kshot {text(sizes['kshot'])}, "
                        f"jax {error[:60] if error else text(sizes['jax'])}")
            out_of_memory = error and re.search("memory|RESOURCE_EXHAUSTED", error, re.IGNORECASE)
            if not error or out_of_memory:  # other errors say nothing about memory
                met = bool(met) or bool(sizes["kshot"] and out_of_memory)
            if not sizes["kshot"]:
                return asked, "; ".join(told), False
        return asked, "; ".join(told), met

    def omniglot(self):
        asked = f"{LEAST_ACCURACY:.0%} in under {LONGEST:.0f} s"
        try:
            lines = (self.folder / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
            events = [json.loads(line) for line in lines]
        except (OSError, json.JSONDecodeError):
            return asked, "no result", None
        seen = [event for event in events if event["kind"] == "validation"]
        if not seen:
            return asked, "no validation came", None
        first = next((event for event in seen if event["accuracy"] >= LEAST_ACCURACY), None)
        best = max(event["accuracy"] for event in seen)
        told = (f"validation {first['accuracy']:.1%} after {first['seconds']:.1f} s" if first
                else f"validation {best:.1%} at best")
        if (self.folder / "made-up.kshot").exists():
            return asked, f"{told}, of made-up classes: no answer (--data)", None
        return asked, told, bool(first and first["seconds"] < LONGEST)

    def lines(self):
        sinusoid, abml = "sinusoid_maml_k5", "sinusoid_abml_k5_s10"
        conv4, leo = "conv4_maml_k5_q75", "leo_5w1s_t12"
        yield "sinusoid 1-40-40-1, K = 5, 10 + 10 points", *self.ratio(sinusoid, 20)
        yield "the same", *self.rate(sinusoid, 10_000_000)
        yield "the same, against T", *self.scaling(sinusoid)
        yield "the same, K = 50", *self.many_steps(50)
        yield "ABML with S = 10 on it", *self.ratio(abml, 20)
        yield "conv4-64 stride 2, 5-way 1-shot, 75 queries, K = 5", *self.ratio(conv4, 5)
        yield "the same", *self.rate(conv4, 10_000)
        yield "LEO, 5-way 1-shot on 640 features, 12 tasks a step", *self.ratio(leo, 10)
        yield "the same: 100,000 steps in ten minutes", *self.rate(leo, 2_000)
        yield "Omniglot 5-way 1-shot", *self.omniglot()


def main():
    if len(sys.argv) != 2 or not pathlib.Path(sys.argv[1]).is_dir():
        sys.exit("bench/reach.py: expected the folder of bench/device.sh's results")
    folder = pathlib.Path(sys.argv[1])
    lines = list(Results(folder).lines())
    words = {True: "yes", False: "NO", None: "?"}
    for what, asked, measured, met in lines:
        print(f"{words[met]:<3}  {what}\n       asked     {asked}\n       measured  {measured}")
    (folder / "reach.json").write_text(json.dumps(
        [{"what": what, "asked": asked, "measured": measured, "met": met}
         for what, asked, measured, met in lines], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
