#!/usr/bin/env python3
"""Checks what nvcc makes of every kernel: registers, memory, occupancy, and multiply-adds.

  tools/kernel_table.py            builds kernels/*.cu and compares the result with docs/kernel-table.md
  tools/kernel_table.py --write    writes that file again

The script needs nvcc, but no GPU. It reads the objects that the build links, so that nothing is compiled twice: it
first builds the target kshot_kernels of the folder build/.

The check fails in these cases:
- A kernel that tools/kernel_table.toml calls hot has a stack frame. A stack frame holds spilled registers, and arrays
  whose index the compiler does not know.
- The inner loops of a kernel have fewer multiply-adds or tensor-core instructions than tools/kernel_table.toml asks
  for.
- A kernel needs more registers, shared memory or stack than the table says. This is checked only with the version of
  nvcc that made the table.
- With --strict (.ci/run kernels), the table is out of date in any other way.

The script needs cuobjdump and nvdisasm. It looks for them beside nvcc, in the Python packages nvidia-cuda-cuobjdump and
nvidia-cuda-nvdisasm, and in PATH.

Exit status: 0 if the check passed, 1 if not, 77 if there is no nvcc.
"""

import argparse
import concurrent.futures
import fnmatch
import os
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
SKIPPED = 77

class Failure(Exception):
    """An error whose message is one line for the user."""


# ---- occupancy ----

# For each compute capability: the warps and the blocks that a multiprocessor holds, and its shared
# memory in bytes (CUDA programming guide, "Technical Specifications per Compute Capability"). Every
# multiprocessor has 65,536 registers, which it gives to warps in units of 256, and reserves 1 KiB of
# shared memory per block.
MACHINES = {"80": (64, 32, 164 << 10), "86": (48, 16, 100 << 10), "89": (48, 24, 100 << 10),
            "90": (64, 32, 228 << 10), "100": (64, 32, 228 << 10), "120": (48, 24, 100 << 10)}


def round_up(value, unit):
    return -(-value // unit) * unit


def occupancy(arch, block, registers, shared):
    """Returns the share of a multiprocessor's warps that blocks of `block` threads can fill.

    registers: per thread. shared: bytes per block.
    """
    warps, blocks, shared_of_all = MACHINES[arch]
    of_block = -(-block // 32)
    by_registers = 65536 // round_up(max(registers, 1) * 32, 256) // of_block
    by_shared = shared_of_all // round_up(shared + 1024, 128)
    return min(blocks, warps // of_block, by_registers, by_shared) * of_block / warps


# ---- what is in a cubin ----

def launch_bounds(cubin):
    """Returns {mangled kernel name: threads per block of its __launch_bounds__}.

    The number is the attribute MAX_THREADS in the sections .nv.info of the cubin.
    """
    data = cubin.read_bytes()
    table, size, count, names = (struct.unpack_from("<Q", data, 40)[0],
                                 *struct.unpack_from("<HHH", data, 58))
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, table + i * size) for i in range(count)]
    bounds = {}
    for name, _, _, _, offset, length, *_ in sections:
        begin = sections[names][4] + name
        text = data[begin:data.index(b"\0", begin)].decode()
        if not text.startswith(".nv.info."):
            continue
        at = offset
        while at < offset + length:  # format, attribute, and a size or the value
            form, attribute, value = struct.unpack_from("<BBH", data, at)
            if form == 4 and attribute == 5:
                x, y, z = struct.unpack_from("<III", data, at + 4)
                bounds[text[len(".nv.info."):]] = x * y * z
            at += 4 + (value if form == 4 else 0)
    return bounds


INSTRUCTION = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z]\w*)[^;]*;")
LABEL = re.compile(r"^(\.L_x_\d+):")
TARGET = re.compile(r"\bBRA\b[^`]*`\((\.L_x_\d+)\)")
TENSOR_CORE = {"HMMA", "DMMA", "HGMMA", "QGMMA"}
MULTIPLY_ADDS = {"FFMA", "FFMA2", "DFMA"} | TENSOR_CORE


class Code:
    """The instructions of a kernel.

    `sums` and `tensor_core` are, for every instruction, the numbers of multiply-adds and of
    tensor-core instructions before it. `loops` are pairs of the first and the last instruction.
    """

    def __init__(self, lines):
        self.sums, self.tensor_core, labels, jumps = [0], [0], {}, []
        for line in lines:
            if label := LABEL.match(line):
                labels[label[1]] = len(self.sums) - 1
            elif (instruction := INSTRUCTION.match(line)) and instruction[2] != "NOP":
                if target := TARGET.search(line):
                    jumps.append((len(self.sums) - 1, target[1]))
                self.sums.append(self.sums[-1] + (instruction[2] in MULTIPLY_ADDS))
                self.tensor_core.append(self.tensor_core[-1] + (instruction[2] in TENSOR_CORE))
        last_of = {}  # start of a loop to the last instruction that jumps back to it
        for at, label in jumps:
            first = labels.get(label, at + 1)
            if first < at:  # a jump to itself marks the end of the code and is no loop
                last_of[first] = max(at, last_of.get(first, at))
        self.loops = sorted(last_of.items())

    def multiply_adds(self, loop):
        return self.sums[loop[1] + 1] - self.sums[loop[0]]

    def inner(self, part):
        """Returns the loops that do the work of `part`.

        If the loops within `part` have at least half of its multiply-adds, the result is the same
        for each of these loops. Otherwise it is `part` itself.
        """
        within = [l for l in self.loops if part[0] <= l[0] and l[1] <= part[1] and l != part]
        largest = [l for l in within
                   if not any(o != l and o[0] <= l[0] and l[1] <= o[1] for o in within)]
        if 2 * sum(map(self.multiply_adds, largest)) < max(self.multiply_adds(part), 1):
            return [part]
        return [found for loop in largest if self.multiply_adds(loop) for found in self.inner(loop)]

    def shares(self):
        """Returns the shares of multiply-adds and of tensor-core instructions in the inner loops.

        The share of multiply-adds is None for a kernel without multiply-adds.
        """
        if not self.sums[-1]:
            return {"multiply_adds": None, "tensor_core": 0.0}
        loops = self.inner((0, len(self.sums) - 2))
        length = sum(last + 1 - first for first, last in loops)
        return {kind: sum(sums[last + 1] - sums[first] for first, last in loops) / length
                for kind, sums in (("multiply_adds", self.sums), ("tensor_core", self.tensor_core))}


def shares(nvdisasm, cubin):
    """Returns {mangled kernel name: Code.shares() of the kernel}."""
    text = run([nvdisasm, "-c", cubin])
    parts = re.split(r"^\t\.section\t\.text\.([^,\s]+),.*$", text, flags=re.MULTILINE)
    return {name: Code(body.splitlines()).shares() for name, body in zip(parts[1::2], parts[2::2])}


# ---- the build's objects ----

def run(command, folder=None):
    """Runs a command. Returns its standard output, or its standard error if the output is empty."""
    done = subprocess.run([str(word) for word in command], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failure(f"{pathlib.Path(command[0]).name} failed:\n{done.stdout}{done.stderr}".rstrip())
    return done.stdout or done.stderr


def demangle(names):
    """Returns readable names, without kshot's namespaces and the kernels' parameters and results."""
    text = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True,
                          check=True).stdout
    short = []
    for line in text.splitlines():
        line = re.sub(r"kshot::(cuda::(gpu::(tile::)?)?)?|\(anonymous namespace\)::", "", line)
        line = re.sub(r"^void ", "", line).replace("> >", ">>")
        depth, end = 0, len(line)
        for at, c in enumerate(line):
            depth += (c == "<") - (c == ">")
            if c == "(" and depth == 0:
                end = at
                break
        line = re.sub(r"\((\w+)\)(\d+)", r"\1 \2", line[:end])
        # A kernel that runs a pass over elements gets the name of the pass.
        if wrapped := re.fullmatch(r"\w+_kernel<([A-Z]\w*(<.*>)?)>", line):
            line = wrapped[1]
        short.append(line)
    return short


def usage(log, arch):
    """Returns {mangled name: (registers, static shared bytes, stack-frame bytes)}.

    log: the output of cuobjdump -res-usage.
    """
    # From compute capability 9.0 on, the count of a kernel with shared memory contains the 1 KiB
    # that the driver reserves. occupancy() adds this 1 KiB.
    kept = 1024 if int(arch) >= 90 else 0
    return {name: (int(registers), max(int(shared) - kept, 0), int(stack)) for name, registers, stack, shared in
            re.findall(r"^ Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+)", log, re.MULTILINE)}


class Reader:
    def __init__(self, args):
        self.args = args
        self.version = re.search(r"V([\d.]+)", run([args.nvcc, "--version"]))[1]

    def kernels(self, source):
        """Returns [(arch, {name, block, registers, shared, stack, multiply_adds, tensor_core})].

        source: the .cu file whose object is read.
        """
        found = []
        with tempfile.TemporaryDirectory() as folder:
            link = pathlib.Path(folder) / f"{source.stem}.o"  # cubins are named after the object
            link.symlink_to((self.args.objects / f"{source.name}.o").resolve())
            run([self.args.cuobjdump, "-xelf", "all", link.name], folder)
            for arch in self.args.archs:
                cubins = list(pathlib.Path(folder).glob(f"*.sm_{arch}.cubin"))
                if len(cubins) != 1:
                    raise Failure(f"{self.args.objects / source.name}.o: expected one cubin of sm_{arch}, it has "
                                  f"{len(cubins)} (CMAKE_CUDA_ARCHITECTURES)")
                facts = usage(run([self.args.cuobjdump, "-res-usage", cubins[0]]), arch)
                bounds, code = launch_bounds(cubins[0]), shares(self.args.nvdisasm, cubins[0])
                for mangled, name in zip(facts, demangle(facts)):
                    registers, shared, stack = facts[mangled]
                    found.append((arch, {"name": name, "block": bounds.get(mangled), "registers": registers,
                                         "shared": shared, "stack": stack, "multiply_adds": None,
                                         "tensor_core": None, **code.get(mangled, {})}))
        return found


# ---- the table ----

# Names of the shares of the inner loops that tools/kernel_table.toml may ask for.
ASKED_FOR = {"multiply_adds": "multiply-adds", "tensor_core": "tensor-core instructions"}


def rules_for(rules, kernel):
    """Returns the rules of tools/kernel_table.toml for "topic/Name<float>"; later entries win."""
    told = {}
    for rule in rules:
        if fnmatch.fnmatchcase(kernel, rule["kernel"]):
            told.update(rule)
    return told


def collect(args, reader, rules):
    """Returns {"topic/kernel": {arch: facts}}, sorted. The facts include occupancy and the rules."""
    sources = sorted(args.kernels.glob("*.cu"))
    if not sources:
        raise Failure(f"{args.kernels}: no *.cu files")
    table = {}
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for source, found in zip(sources, pool.map(reader.kernels, sources)):
            for arch, facts in found:
                if facts["name"].startswith(("cub::", "thrust::")):
                    continue  # kernels of the toolkit, which are not ours to tune
                name = f"{source.stem}/{facts['name']}"
                rule = rules_for(rules, name)
                facts["hot"] = rule.get("hot", False)
                facts["least"] = {kind: rule[kind] for kind in ASKED_FOR if kind in rule}
                facts["block"] = rule.get("block", facts["block"])
                facts["shared"] += rule.get("dynamic_shared", 0)
                if facts["block"]:
                    facts["occupancy"] = occupancy(arch, facts["block"], facts["registers"],
                                                   facts["shared"])
                table.setdefault(name, {})[arch] = facts
    return dict(sorted(table.items()))


HEAD = """# What nvcc makes of the kernels

Written by `tools/kernel_table.py --write`, which needs nvcc and no GPU; `.ci/run kernels` compares. How to read it:
[kernels.md](kernels.md#what-nvcc-makes-of-them).

nvcc {version}, compute capabilities {archs}. Where numbers differ, one of each.

| kernel | threads a block | registers | shared memory, B | stack frame, B | occupancy, % | multiply-adds, % |
|---|--:|--:|--:|--:|--:|--:|
"""


def one_or_each(values):
    texts = ["-" if value is None else str(value) for value in values]
    return texts[0] if len(set(texts)) == 1 else " / ".join(texts)


def percent(value):
    return None if value is None else round(100 * value)


def render(table, version, archs):
    lines = []
    for name, by_arch in table.items():
        facts = [by_arch[arch] for arch in archs]
        bold = "**" if facts[0]["hot"] else ""
        cells = [f"{bold}`{name}`{bold}"]
        cells += [one_or_each([f[key] for f in facts])
                  for key in ("block", "registers", "shared", "stack")]
        cells.append(one_or_each([percent(f.get("occupancy")) for f in facts]))
        # Only hot kernels show the share, because it says nothing of other kernels.
        cells.append(one_or_each([percent(f["multiply_adds"]) for f in facts])
                     if facts[0]["hot"] else "")
        lines.append("| " + " | ".join(cells) + " |\n")
    return HEAD.format(version=version, archs=", ".join(archs)) + "".join(lines)


def read_table(text, archs):
    """Returns (version of nvcc, {kernel: {arch: {registers, shared, stack}}}) of a rendered table."""
    version = re.search(r"^nvcc ([\d.]+), compute capabilities (.*)\. Where", text, re.MULTILINE)
    if not version or version[2].split(", ") != archs:
        return None, {}
    kernels = {}
    for cells in re.findall(r"^\| \**`(.+?)`\** \| (.*) \|$", text, re.MULTILINE):
        columns = [column.split(" / ") for column in cells[1].split(" | ")]
        kernels[cells[0]] = {
            arch: {key: int(column[min(i, len(column) - 1)])
                   for key, column in zip(("registers", "shared", "stack"), columns[1:4])}
            for i, arch in enumerate(archs)}
    return version[1], kernels


def findings(table):
    """Returns the failures that do not depend on the version of nvcc."""
    wrong = []
    for name, by_arch in table.items():
        for arch, facts in by_arch.items():
            if facts["hot"] and facts["stack"]:
                wrong.append(f"{name} is hot and has a stack frame of {facts['stack']} bytes (sm_{arch})")
            for kind, least in facts["least"].items():
                if facts[kind] is not None and facts[kind] < least:
                    wrong.append(f"{name} has {percent(facts[kind])} % {ASKED_FOR[kind]} in its inner "
                                 f"loops (sm_{arch}), at least {percent(least)} are asked for")
    return wrong


def growth(table, known):
    return [f"{name} (sm_{arch}): {key} {known[name][arch][key]} -> {facts[key]}"
            for name, by_arch in table.items() if name in known
            for arch, facts in by_arch.items()
            for key in ("registers", "shared", "stack") if facts[key] > known[name][arch][key]]


# ---- command line ----

def find_program(name, *folders):
    for folder in folders:
        if folder and os.access(path := pathlib.Path(folder) / name, os.X_OK):
            return path
    return shutil.which(name)


def find_nvcc():
    cuda = [os.environ.get(key) for key in ("CUDA_PATH", "CUDA_HOME")]
    return (find_program("nvcc", *(f"{folder}/bin" for folder in cuda if folder))
            or find_program("nvcc", "/usr/local/cuda/bin"))


def find_binary_tool(name, nvcc):
    packages = [f"{folder}/nvidia/cu13/bin" for folder in sys.path if folder.endswith("-packages")]
    return find_program(name, pathlib.Path(nvcc).parent, *packages)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0],
                                     epilog=__doc__.split("\n\n", 1)[1],
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the table instead of comparing")
    parser.add_argument("--strict", action="store_true", help="the table must be up to date")
    parser.add_argument("--kernels", type=pathlib.Path, default=ROOT / "kernels")
    parser.add_argument("--table", type=pathlib.Path, default=ROOT / "docs" / "kernel-table.md")
    parser.add_argument("--rules", type=pathlib.Path, default=ROOT / "tools" / "kernel_table.toml")
    parser.add_argument("--archs", default="80,90", type=lambda text: text.split(","))
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build", help="the build folder")
    parser.add_argument("--objects", type=pathlib.Path,
                        help="folder of objects NAME.cu.o instead of those of the build folder")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--nvcc", default=find_nvcc())
    parser.add_argument("--cuobjdump", help="default: found as said below")
    parser.add_argument("--nvdisasm", help="default: found as said below")
    args = parser.parse_args()
    if not args.nvcc:
        print("kernel_table: no nvcc in PATH, CUDA_PATH or /usr/local/cuda: nothing is checked "
              "(docs/cuda.md says how to get CUDA)")
        return SKIPPED
    for arch in args.archs:
        if arch not in MACHINES:
            raise Failure(f"--archs {arch}: expected some of {', '.join(MACHINES)}")
    for name in ("cuobjdump", "nvdisasm"):
        found = getattr(args, name) or find_binary_tool(name, args.nvcc)
        if not found:
            raise Failure(f"no {name}: pip install nvidia-cuda-{name}, or --{name}")
        setattr(args, name, found)
    if not args.objects:
        run(["cmake", "--build", args.build, "--target", "kshot_kernels", "--parallel", args.jobs])
        args.objects = args.build / "CMakeFiles" / "kshot_kernels.dir" / "kernels"
    reader = Reader(args)
    table = collect(args, reader, tomllib.loads(args.rules.read_text())["kernels"])
    fresh = render(table, reader.version, args.archs)
    wrong, notes = findings(table), []

    if args.write:
        part = args.table.with_suffix(".part")
        part.write_text(fresh)
        part.replace(args.table)
        notes.append(f"{args.table}: {len(table)} kernels")
    else:
        version, known = read_table(args.table.read_text() if args.table.exists() else "", args.archs)
        if version != reader.version:
            notes.append(f"{args.table.name} was made by nvcc {version}, here is {reader.version}: "
                         "registers are not compared")
        else:
            wrong += growth(table, known)
            stale = [f"{name} is new" for name in table if name not in known]
            stale += [f"{name} is gone" for name in known if name not in table]
            if not stale and not wrong and args.table.read_text() != fresh:
                stale = ["other numbers, none of them worse"]
            (wrong if args.strict else notes).extend(
                f"{args.table.name} is out of date: {what}" for what in stale)
        if wrong:
            notes.append("where that is meant: tools/kernel_table.py --write")
    for line in wrong:
        print(f"kernel_table: {line}")
    for line in notes:
        print(f"kernel_table: note: {line}")
    if not wrong:
        print(f"kernel_table: {len(table)} kernels for {', '.join(args.archs)}: good")
    return 1 if wrong else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failure as failure:
        sys.exit(f"kernel_table: {failure}")
