#!/bin/sh
# Measures outages, waits and costs on two hosts made of namespaces, and prints a Markdown table.
#
#   sh tests/bench.sh                          everything, 5 runs each (about an hour)
#   RUNS=9 BENCH_CASES="postmaster switch" sh tests/bench.sh
#   BENCH_CASES=list sh tests/bench.sh         the names of the cases
#   MC_BENCH_GB=2                              how large the database of the rebuilds is
#
# Needs root and what tests/run.sh installs.
set -eu
cd "$(dirname "$0")/.."
cargo bench --quiet --bench outage
# one arbiter with a thousand pairs
[ -n "${BENCH_CASES:-}" ] || cargo bench --quiet --bench arbiter_load
