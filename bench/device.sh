#!/usr/bin/env bash
# Builds, tests, measures and trains kshot on a GPU, in one call of under ten minutes.
#
#   bench/device.sh --prepare [--peers]   Prepares a machine without a network: unpacks the libraries
#                                         that the build needs into .deps/ (with --peers also JAX and
#                                         PyTorch, 5 GB). Runs on a Debian or Ubuntu machine with a
#                                         network and the same kind of processor.
#   bench/device.sh [OPTION...]           Runs on the machine with the GPU, CUDA 13, CMake and a
#                                         compiler. It needs no network if .deps/ was copied there.
#
#   --data FILE       Omniglot as a data file (kshot import omniglot). Default: made-up classes
#   --out DIR         folder of the results (default: device-results/)
#   --limit SECONDS   time limit of all steps together (default: 570)
#   --device D        cuda (default), cuda:N, or cpu, which tries out this script without a GPU
#   --steps A,B       runs only these of the steps after `devices`
#   --dry-run         prints what would run, and runs nothing
#
# The steps are: configure, build, devices, equivalence (the backends' tests on the device),
# sinusoid, abml, conv4 and leo (training steps, compared with JAX and PyTorch where an installed
# Python or bench/peers/.venv has them), train (a training of a minute), memory, and kernels (each
# kernel alone). The comparisons use few meta-batch sizes; `bench/compare --device cuda` uses all.
# Each step has a time limit. After a step that fails the others still run, except for those that
# need it. After every step, DIR has the logs and numbers of all steps so far, summary.json,
# table.txt, and reach.json (the goals for an H100 or H200, bench/reach.py).
# Environment: KSHOT_BUILD_DIR (default: build-device/), KSHOT_JOBS (default: all cores).
# Exit status: 0 if all steps passed or were left out, 1 if a step failed, 2 if there is no usable
# device or a tool is missing.
#
# shellcheck disable=SC2317  # steps are called by name
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
root=$PWD
deps=$root/.deps
triple=$(uname -m)-linux-gnu

say() { printf 'device: %s\n' "$*" >&2; }
die() {
  say "$*"
  exit 2
}
usage() { sed -n '2,/^# shellcheck/{/^# shellcheck/d;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; }

# ---- preparation: libraries without an installation ---------------------------------------------------

prepare() {
  local package wanted=() all=()
  if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
    die "--prepare needs apt-get and dpkg-deb (Debian, Ubuntu); elsewhere install the packages of " \
      "cmake/packages.txt by your own tool"
  fi
  # These are all packages, without those that every machine with a compiler has.
  mapfile -t wanted < <(awk '/^(build|test) / && $2 !~ /^(g\+\+|cmake|git)$/ {print $2}' cmake/packages.txt)
  mapfile -t all < <(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts \
    --no-breaks --no-replaces --no-enhances "${wanted[@]}" | grep '^[a-z0-9]' | sort -u |
    grep -v -E '^(lib(c6|c-|gcc|stdc|crypt|nsl|tirpc|gssapi|k5|krb5|keyutils|com-err)|gcc-|linux-|rpcsvc)')
  ((${#all[@]})) || die "no package lists: apt-get update first"
  rm -rf "${deps:?}/debs" "${deps:?}/usr"
  mkdir -p "$deps/debs"
  say "downloading ${#all[@]} packages"
  (cd "$deps/debs" && apt-get download "${all[@]}" >download.log 2>&1) ||
    die "apt-get download failed: $(tail -n 1 "$deps/debs/download.log") (apt-get update?)"
  for package in "$deps"/debs/*.deb; do
    dpkg-deb -x "$package" "$deps" || die "cannot unpack $package"
  done
  # Debian 12 has some libraries under /lib.
  if [[ -d $deps/lib ]]; then
    cp -a "$deps/lib/." "$deps/usr/lib/" && rm -rf "${deps:?}/lib"
  fi
  rm -rf "$deps/debs" "$deps/usr/share/doc" "$deps/usr/share/man"
  if $peers; then
    say "downloading JAX and PyTorch for $(python3 --version)"
    python3 -m pip download --quiet --dest "$deps/wheels" -r bench/peers/requirements-cuda.txt ||
      die "pip download failed"
  fi
  say "$deps: $(du -sh "$deps" | cut -f1); copy it beside the sources"
}

# ---- arguments -----------------------------------------------------------------------------------

data='' out=$root/device-results limit=570 device=cuda steps='' dry=false peers=false preparing=false
all_steps='equivalence sinusoid train conv4 abml leo memory kernels'
while (($#)); do
  case $1 in
    --prepare) preparing=true ;;
    --peers) peers=true ;;
    --dry-run) dry=true ;;
    --data | --out | --limit | --device | --steps)
      (($# > 1)) || die "$1 takes a value"
      declare "${1#--}=$2"
      shift
      ;;
    -h | --help) usage && exit 0 ;;
    *) die "unknown option $1 (--help)" ;;
  esac
  shift
done
$preparing && {
  prepare
  exit
}
[[ $device =~ ^(cpu|cuda(:[0-9]+)?)$ ]] || die "--device $device: expected cuda, cuda:N or cpu"
[[ $limit =~ ^[0-9]+$ ]] || die "--limit $limit: expected seconds"
for wanted in ${steps//,/ }; do
  [[ " $all_steps " == *" $wanted "* ]] || die "--steps $wanted: expected some of ${all_steps// /, }"
done
[[ -z $data || -f $data ]] || die "--data $data: no such file"
[[ -z $data ]] || data=$(realpath "$data")
out=$(realpath -m "$out")
build=${KSHOT_BUILD_DIR:-$root/build-device}
jobs=${KSHOT_JOBS:-$(nproc)}

# ---- requirements --------------------------------------------------------------------------------

if ! $dry; then
  for tool in cmake c++ timeout; do
    command -v "$tool" >/dev/null || die "$tool not found"
  done
  if [[ $device == cuda* ]]; then
    # Only the driver is checked here. kshot lists the devices once it is built.
    ldconfig -p 2>/dev/null | grep -q 'libcuda\.so\.1' || compgen -G '/dev/nvidia[0-9]*' >/dev/null ||
      die "no usable device: no NVIDIA driver on this machine (--device cpu tries this script out)"
    PATH=$PATH:/usr/local/cuda/bin
    command -v nvcc >/dev/null || die "nvcc not found in PATH or /usr/local/cuda/bin: CUDA 13 is needed"
  fi
fi

options=(-DCMAKE_BUILD_TYPE=RelWithDebInfo -DKSHOT_BUILD_TESTS=ON -DKSHOT_BUILD_BENCH=ON -DKSHOT_SIMT=OFF)
if [[ $device == cpu ]]; then
  options+=(-DKSHOT_CUDA=OFF)
else
  options+=(-DKSHOT_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES=native)
fi
if [[ -d $deps/usr ]]; then
  libraries=$deps/usr/lib/$triple
  # DT_RPATH also finds the libraries that these libraries need. LD_LIBRARY_PATH would affect CMake.
  options+=("-DCMAKE_PREFIX_PATH=$deps/usr"
    "-DCMAKE_EXE_LINKER_FLAGS=-Wl,--disable-new-dtags,-rpath,$libraries,-rpath-link,$libraries")
  PATH=$PATH:$deps/usr/bin
  # CMake does not look into the folder of headers that depend on the processor.
  export CPLUS_INCLUDE_PATH=$deps/usr/include/$triple${CPLUS_INCLUDE_PATH:+:$CPLUS_INCLUDE_PATH}
fi
command -v ninja >/dev/null && options+=(-G Ninja)

# ---- steps ---------------------------------------------------------------------------------------

names=() states=() seconds=() notes=()
state_of() {
  local i
  for i in "${!names[@]}"; do [[ ${names[i]} == "$1" ]] && echo "${states[i]}" && return; done
}

quoted() {
  local text=${1//\\/\\\\}
  text=${text//\"/\\\"}
  printf '"%s"' "${text//[[:cntrl:]]/ }"
}
# Writes all results so far, so that they remain when the script is stopped.
report() {
  {
    printf '{"device": %s, "date": %s, "commit": %s, "seconds": %d, "steps": [' "$(quoted "$device")" \
      "$(quoted "$(date -u +%FT%TZ)")" \
      "$(quoted "$(git rev-parse --short HEAD 2>/dev/null || echo unknown)")" "$SECONDS"
    for i in "${!names[@]}"; do
      printf '%s\n {"name": %s, "state": %s, "seconds": %d, "note": %s}' "$( ((i)) && echo ,)" \
        "$(quoted "${names[i]}")" "$(quoted "${states[i]}")" "${seconds[i]}" "$(quoted "${notes[i]}")"
    done
    printf '\n]}\n'
  } >"$out/summary.json"
  {
    grep -E '^(cuda|cpu)' "$out/devices.txt" 2>/dev/null
    printf '\n%-12s %-9s %5s\n' step state s
    for i in "${!names[@]}"; do
      printf '%-12s %-9s %5d  %s\n' "${names[i]}" "${states[i]}" "${seconds[i]}" "${notes[i]}"
    done
    printf '\n' && python3 bench/reach.py "$out" 2>&1
    for part in sinusoid conv4 abml leo memory train; do
      [[ -z $(state_of "$part") || $(state_of "$part") == left-out ]] ||
        { printf '\n%s\n' "$part" && tail -n 25 "$out/$part.log" 2>/dev/null; }
    done
  } >"$out/table.txt"
}

# step NAME LIMIT NEEDS COMMAND... runs a step for at most LIMIT seconds. NEEDS is an earlier step
# that must have passed, or - where there is none.
step() {
  local name=$1 most=$2 needs=$3 state=passed note='' started=$SECONDS status=0
  shift 3
  [[ -n $steps && " $all_steps " == *" $name "* && ",$steps," != *",$name,"* ]] && return
  if $dry; then
    printf '%-12s at most %3d s%s\n             %s\n' "$name" "$most" \
      "$([[ $needs == - ]] || echo ", after $needs")" "$*"
    return
  fi
  ((most > limit - SECONDS)) && most=$((limit - SECONDS))
  if [[ $needs != - && $(state_of "$needs") != passed ]]; then
    state=left-out note="needs $needs"
  elif ((most < 5)); then
    state=left-out note="no time left"
  else
    say "$name (at most $most s)"
    export step_limit=$most
    timeout --kill-after=5 "$most" "$@" >"$out/$name.log" 2>&1 || status=$?
    if ((status == 124 || status == 137)); then
      state=failed note="out of time after $most s"
    elif ((status == 77)); then
      state=left-out note=$(tail -n 1 "$out/$name.log")
    elif ((status)); then
      state=failed note=$(tail -n 1 "$out/$name.log")
    fi
  fi
  names+=("$name") states+=("$state") seconds+=($((SECONDS - started))) notes+=("$note")
  [[ $state == passed ]] || say "$name: $state: $note"
  report
}

# The functions below are called by name, each in its own step and under the step's time limit.
usable() {
  "$build/kshot" devices | tee "$out/devices.txt"
  local name=$device
  [[ $device == cuda ]] && name=cuda:0
  grep -E "^$name " "$out/devices.txt" | grep -q -v 'not usable' || {
    echo "no usable device: $(grep -E '^cuda' "$out/devices.txt" | head -n 1)"
    return 1
  }
}
equivalence() {
  local pattern=${device%%:*}
  # ctest passes without a message where no test matches.
  ctest --test-dir "$build" -L equivalence -R "$pattern" -N | grep -q "$pattern" || {
    echo "no test of the label equivalence is for $pattern"
    return 1
  }
  # The tests share one GPU. Several tests run at a time, so that the GPU works while one of them
  # waits. The tests Training.* run on all backends in one test.
  ctest --test-dir "$build" -L equivalence -R "$pattern|Training" --output-on-failure --parallel 6
}
kernels() {
  [[ $device == cpu ]] && echo "kernels are a GPU's" && return 77
  "$build/bench/kshot_bench" "--device=$device" '--benchmark_filter=^kernel/' --benchmark_min_time=0.05 \
    "--benchmark_out=$out/kernels.json" --benchmark_out_format=json &&
    ! grep -q '"error_occurred": true' "$out/kernels.json"
}
compare() {
  if [[ -d $deps/wheels && ! -x bench/peers/.venv/bin/python ]]; then
    bench/compare --setup --device "${device%%:*}" || echo "the peers could not be installed"
  fi
  # shellcheck disable=SC2154  # step sets it
  bench/compare --quick --device "$device" --limit $((step_limit - 4)) \
    --kshot-bench "$build/bench/kshot_bench" "$@"
}
# Writes a NumPy file with 60 classes of strokes, each with 20 examples that are moved by up to two
# pixels.
made_up_classes() {
  python3 - "$1" <<'PYTHON'
import random, struct, sys
random.seed(1)
side, classes, examples = 28, 60, 20
body = bytearray()
for _ in range(classes):
    points, (x, y) = [], (14, 14)
    for _ in range(60):
        x = min(24, max(3, x + random.choice((-1, 0, 1))))
        y = min(24, max(3, y + random.choice((-1, 0, 1))))
        points.append((x, y))
    for _ in range(examples):
        image, dx, dy = bytearray(side * side), random.randint(-2, 2), random.randint(-2, 2)
        for x, y in points:
            image[(y + dy) * side + x + dx] = 255
        body += image
head = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({classes}, {examples}, {side}, {side}), }}"
head = head.ljust(128 - 10 - 1) + "\n"
with open(sys.argv[1], "wb") as file:
    file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode() + body)
PYTHON
}
train() {
  local file=$data most=60 run=$out/run
  if [[ -z $file ]]; then
    file=$out/made-up.kshot most=20
    made_up_classes "$out/made-up.npy" && "$build/kshot" import arrays "$out/made-up.npy" -o "$file" || return
  fi
  rm -rf "$run"
  "$build/kshot" train configs/omniglot-maml-5w1s.toml --device "$device" --out "$run" --quiet \
    --set "data.path=$file" --set "train.time_limit=$most" --set train.validate_every=100 || return
  "$build/kshot" evaluate "$run" --device "$device" --episodes 600 --quiet --out "$out/evaluation.json"
}

if ! $dry; then
  mkdir -p "$out" || die "cannot write to $out"
  rm -rf "${out:?}"/{*.log,*.json,table.txt,devices.txt,run,made-up.*}
fi
export -f usable equivalence kernels compare made_up_classes train
export build out device deps data root
step configure 60 - cmake -S "$root" -B "$build" "${options[@]}"
step build 270 configure cmake --build "$build" --parallel "$jobs" \
  --target kshot_cli test_backend test_algorithms test_equivalence kshot_bench
step devices 20 build bash -c usable
step equivalence 110 devices bash -c equivalence
measured() { echo "compare --only $1 --json \"\$out/compare-$1.json\""; }
step sinusoid 80 devices bash -c "$(measured sinusoid_maml_k5)"
step train 90 devices bash -c train
step conv4 120 devices bash -c "$(measured conv4_maml_k5_q75)"
step abml 70 devices bash -c "$(measured sinusoid_abml_k5_s10)"
step leo 50 devices bash -c "$(measured leo_5w1s_t12)"
step memory 60 devices bash -c "compare --memory --json \"\$out/memory.json\""
step kernels 90 devices bash -c kernels
$dry && exit 0
cat "$out/table.txt"
say "results: $out"
[[ $(state_of devices) == failed ]] && exit 2
for state in "${states[@]}"; do [[ $state == failed ]] && exit 1; done
exit 0
