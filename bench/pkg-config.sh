#!/bin/sh
# Runs the pkg-config of .deps/ (bench/device.sh --prepare) with the library that it needs.
deps=$(cd "$(dirname "$0")/../.deps/usr" && pwd)
LD_LIBRARY_PATH=$deps/lib/$(uname -m)-linux-gnu exec "$deps/bin/pkgconf" "$@"
