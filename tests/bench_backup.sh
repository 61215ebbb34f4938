#!/bin/sh
# Compares "mc_ctl backup" with pg_basebackup and pg_verifybackup that are run by hand, in turn, on a pair of
# samples/quickstart.sh on this machine. Prints each time and the ratio of the medians.
#
#   sh tests/bench_backup.sh                         6 rounds, a database of 2 GB; about 10 minutes, and 12 GB of disk space
#   ROUNDS=9 MC_BENCH_GB=4 sh tests/bench_backup.sh
#
# MC_CTL: an mc_ctl with mc_arb beside it; default: a release build. Needs root.
set -eu
cd "$(dirname "$0")/.."

rounds=${ROUNDS:-6}
gb=${MC_BENCH_GB:-2}
dir=${MC_BENCH_DIR:-/var/tmp/mirroring-bench-backup}
port=5640
[ "$(id -u)" -eq 0 ] || { echo "tests/bench_backup.sh: run it as root" >&2; exit 1; }
if [ -z "${MC_CTL:-}" ]; then
    cargo build --quiet --release
    MC_CTL=$(pwd)/target/release/mc_ctl
fi
export MC_CTL
# shellcheck disable=SC2012
bin=${PGBIN:-$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1)}
as() { (cd / && setpriv --reuid postgres --regid postgres --clear-groups env HOME="$dir" PGPASSFILE="$dir/pgpass" "$@"); }
clean() { sh samples/quickstart.sh --clean --dir "$dir" >/dev/null 2>&1 || :; }
trap clean EXIT
trap 'exit 130' INT TERM
clean
sh samples/quickstart.sh --dir "$dir" --port "$port" >/dev/null

server="host=127.0.0.1 port=$port user=postgres"
sql() { as "$bin/psql" -qAtX -v ON_ERROR_STOP=1 -d "$server dbname=postgres" -c "$1"; }
as mkdir -m 700 "$dir/backup" "$dir/bare"
# shellcheck disable=SC2016
as sh -c 'printf "backup_destination = %s\nbackup_generations = 1\n" "$1" >>"$2"' sh "'$dir/backup'" "$dir/mc/nd1.conf"
# 1000 bytes a row.
sql "CREATE TABLE bulk (id bigint, text text)"
i=0
while [ "$i" -lt $((gb * 10)) ]; do
    sql "INSERT INTO bulk SELECT g, repeat(md5(g::text), 30) FROM generate_series(1, 100000) g"
    i=$((i + 1))
done
sql "ALTER TABLE bulk SET (autovacuum_enabled = off)"
sql "VACUUM (FREEZE) bulk"
echo "database: $(sql "SELECT pg_size_pretty(pg_database_size('postgres'))")"

ours() { as "$dir/bin/mc_ctl" backup --fast-checkpoint -M "$dir/mc" --local-server nd1 >/dev/null 2>"$dir/run/backup.log"; }
bare() {
    as "$bin/pg_basebackup" -X stream -c fast -w -P -D "$dir/bare/data" -d "$server" >/dev/null 2>&1
    as "$bin/pg_verifybackup" -q "$dir/bare/data"
}
# Seconds of a command.
timed() {
    rm -rf "$dir/bare/data"
    sql CHECKPOINT
    sync
    sleep 2
    begin=$(date +%s%3N)
    "$@" || { cat "$dir/run/backup.log" >&2; exit 1; }
    echo "$(($(date +%s%3N) - begin))"
}
: >"$dir/run/ours"
: >"$dir/run/bare"
round=1
while [ "$round" -le "$rounds" ]; do
    # What precedes a measurement, such as a removal, can slow it down: each is the first in every second round.
    if [ $((round % 2)) -eq 1 ]; then
        ours_ms=$(timed ours)
        bare_ms=$(timed bare)
    else
        bare_ms=$(timed bare)
        ours_ms=$(timed ours)
    fi
    echo "$ours_ms" >>"$dir/run/ours"
    echo "$bare_ms" >>"$dir/run/bare"
    echo "round $round: mc_ctl backup $ours_ms ms, pg_basebackup and pg_verifybackup $bare_ms ms"
    round=$((round + 1))
done
median() { sort -n "$1" | awk '{ all[NR] = $1 } END { print (all[int((NR + 1) / 2)] + all[int(NR / 2) + 1]) / 2 }'; }
awk -v ours="$(median "$dir/run/ours")" -v bare="$(median "$dir/run/bare")" \
    'BEGIN { printf "median: mc_ctl backup %d ms, bare %d ms, ratio %.2f\n", ours, bare, ours / bare }'
