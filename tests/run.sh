#!/bin/sh
# Installs what the tests need, and runs them all: format, lint, unit tests, decision table, simulation, model check,
# command line, single PostgreSQL servers, and pairs of them with an arbiter on three hosts made of namespaces. Needs root
# (or sudo) for the last. About 25 minutes on two cores.
#
#   sh tests/run.sh              all
#   sh tests/run.sh quick        all that starts no PostgreSQL server: 3 minutes where it is built already
#   MC_TEST_MATRIX=full sh tests/run.sh      every cut of the network with every disturbance: 25 minutes more
#   MC_TEST_KILLS=50 sh tests/run.sh         so many rebuilds that are killed: 10 minutes more
#
# Of the fault matrix in tests/postgres/FAULTS.md it runs five rows, and of the manual's procedures those that other tests go through. All rows
# and procedures, 10 and 5 minutes:  cargo test --test postgres faults:: -- --include-ignored --test-threads=2  (manual::).
set -eu
cd "$(dirname "$0")/.."

say() { printf '\n== %s\n' "$*"; }
fail() { printf 'tests/run.sh: %s\n' "$*" >&2; exit 1; }

if [ "$(id -u)" -ne 0 ] && [ "${1:-}" != quick ]; then
    command -v sudo >/dev/null || fail "run it as root: the tests make network namespaces"
    exec sudo --preserve-env=PATH,HOME,CARGO_HOME,RUSTUP_HOME,PGBIN,MC_TEST_ROUNDS,MC_TEST_MATRIX,MC_TEST_KILLS sh tests/run.sh "$@"
fi

# What is missing, as packages of Debian and Ubuntu.
missing=
need() { # program package
    PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null || missing="$missing $2"
}
need cc gcc
need mandoc mandoc
need openssl openssl
need mkfs.ext4 e2fsprogs
need ip iproute2
need bridge iproute2
need nsenter util-linux
need setpriv util-linux
need unshare util-linux
# for the samples of hooks
need arping iputils-arping
need curl curl
need pg_createcluster postgresql-common
need logger bsdutils
need pgbouncer pgbouncer
need sudo sudo
# tools of sites for backups
need pgbackrest pgbackrest
need barman barman
# for the others, and a load balancer
need systemd-analyze systemd
need logrotate logrotate
need shellcheck shellcheck
need haproxy haproxy
# restores data in place
need rsync rsync
ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || [ -n "${PGBIN:-}" ] || missing="$missing postgresql"
if [ -n "$missing" ]; then
    say "installing$missing"
    command -v apt-get >/dev/null || fail "please install:$missing"
    [ "$(id -u)" -eq 0 ] || fail "please install, as root:$missing"
    # no server of the distribution's own is wanted: not on port 5432, nor anywhere
    if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
        mkdir -p /etc/postgresql-common
        echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q
    # shellcheck disable=SC2086 # a list of packages
    apt-get install -q -y --no-install-recommends -o Dpkg::Options::=--force-confold $missing
fi

# For the page of the web console. A system may have no such package; only these tests are skipped then, and they report it.
browser() {
    if command -v chromium >/dev/null && command -v chromedriver >/dev/null; then return 0; fi
    [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null || return 1
    say "installing chromium chromium-driver"
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends chromium chromium-driver
}
if [ "${1:-}" != quick ]; then
    browser || { say "Chromium cannot be installed: the tests of the web console's page are skipped"; export MC_TEST_NO_BROWSER=1; }
    sh tests/axe.sh || { say "axe-core cannot be fetched: the page is not tested for accessibility"; export MC_TEST_NO_AXE=1; }
fi
command -v cargo >/dev/null || fail "cargo is missing: see https://rustup.rs"

log=$(mktemp)
group=
repeated=
finish() {
    code=$?
    trap - EXIT INT TERM HUP
    # the step under way, with all that it started; hosts and their servers die with the test process
    [ -z "$group" ] || kill -s TERM -- "-$group" 2>/dev/null || :
    if grep -q '^test result' "$log"; then
        say "results"
        grep -E '^( +Running|test result|failures:|    [a-z_:]+$)' "$log" || :
        # last, because the begin of a long output may be cut off where it is shown
        grep -A 6 -E "^thread '.*panicked at" "$log" | cut -c 1-400 | head -n 80 || :
    fi
    rm -f "$log" "$log.step"
    [ -z "$repeated" ] || say "failed first, and passed when repeated alone: $repeated"
    if [ "$code" -eq 0 ]; then say "all passed"; else say "FAILED (exit code $code)"; fi
    exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

failed=0
step() { # what command...
    say "$1"
    shift
    : >"$log.step"
    setsid "$@" >"$log.step" 2>&1 &
    group=$!
    tail -n +1 -f --pid="$group" "$log.step" &
    wait "$group" || failed=1
    group=
    wait
    cat "$log.step" >>"$log"
}

# Cases that waited in vain, as happens on a busy machine, must pass when they are run again alone; the summary names them.
# A case that lost a row or saw two primaries is never repeated, and neither are more than five.
repeat() {
    cases=$(sed -n '/^failures:$/,/^test result/s/^    \([a-z0-9_:]*\)$/\1/p' "$log.step" | sort -u)
    count=$(printf '%s' "$cases" | grep -c . || :)
    if [ "$count" -eq 0 ] || [ "$count" -gt 5 ]; then return 0; fi
    if grep -qE 'acknowledged rows are lost|two primaries|acknowledged, in turn' "$log.step"; then return 0; fi
    failed=$1
    # shellcheck disable=SC2086 # a list of cases
    step "once more, alone" cargo test --test postgres -- --exact --test-threads=1 $cases
    if [ "$failed" -eq "$1" ]; then repeated=$(printf '%s' "$cases" | tr '\n' ' '); fi
}

step "format" cargo fmt --check
step "lint" cargo clippy --quiet --all-targets -- -D warnings

targets="--lib --bins"
servers=
for file in tests/*.rs tests/*/main.rs; do
    name=${file#tests/}
    name=${name%.rs}
    case $name in
        # the simulator's thousands of seeds, and the model's millions of states, want some optimisation; pairs come last
        sim | model | postgres/main) continue ;;
        pg_files | probes | rebuild | rebuild_perform | tls) servers="$servers --test $name" ;;
        *) targets="$targets --test ${name%/main}" ;;
    esac
done
# Most tests wait most of the time, for a detection time or for a server to start: four at once keep two cores busy.
threads=--test-threads=4
# shellcheck disable=SC2086 # a list of targets
step "unit tests, decision table, command line" cargo test --no-fail-fast $targets -- $threads
step "simulation, model check" cargo test --profile sim --test sim --test model
if [ "${1:-}" != quick ]; then
    # shellcheck disable=SC2086 # a list of targets
    step "single PostgreSQL servers" cargo test --no-fail-fast $servers -- $threads
    # heavy: each case runs two servers, two controllers, an arbiter and clients
    before=$failed
    step "pairs of PostgreSQL servers" cargo test --test postgres -- $threads
    repeat "$before"
fi
exit "$failed"
