#!/bin/sh
# Measures outages, waits and costs on two hosts made of namespaces, and prints a Markdown table.
#
#   sh tests/bench.sh                          everything but the other products, 5 runs each (about an hour)
#   RUNS=9 BENCH_CASES="postmaster switch" sh tests/bench.sh
#   BENCH_CASES=list sh tests/bench.sh         the names of the cases
#   MC_BENCH_GB=2                              how large the database of the rebuilds is
#   sh tests/bench.sh peers                    the headline figures beside those of Patroni, pg_auto_failover and repmgr, 3 runs
#                                              each (about 25 minutes); installs their Debian packages, of which nothing runs afterwards
#
# Needs root and what tests/run.sh installs.
set -eu
cd "$(dirname "$0")/.."

# Installs the packages that are missing, without starting or enabling their services.
install_peers() {
    missing=
    for package in patroni python3-etcd etcd-server postgresql-15-auto-failover pg-auto-failover-cli repmgr \
        postgresql-15-repmgr openssh-server; do
        dpkg -s "$package" 2>/dev/null | grep -q '^Status: .* installed' || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    policy=/usr/sbin/policy-rc.d
    [ ! -e $policy ] || mv $policy $policy.bench
    trap 'rm -f $policy; [ ! -e $policy.bench ] || mv $policy.bench $policy' EXIT
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
    # shellcheck disable=SC2086
    apt-get install -y --no-install-recommends $missing
    for service in etcd-server:etcd patroni:patroni openssh-server:ssh; do
        case "$missing " in *" ${service%:*} "*) ;; *) continue ;; esac
        systemctl disable "${service#*:}" 2>/dev/null || :
        update-rc.d "${service#*:}" disable || :
    done
    rm $policy
    [ ! -e $policy.bench ] || mv $policy.bench $policy
    trap - EXIT
}

if [ "${1:-}" = peers ]; then
    install_peers
    export BENCH_CASES=peers RUNS="${RUNS:-3}"
fi
cargo bench --quiet --bench outage
# one arbiter with a thousand pairs
[ -n "${BENCH_CASES:-}" ] || cargo bench --quiet --bench arbiter_load
