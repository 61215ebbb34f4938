#!/bin/sh
# Compares commands of mc_ctl with what they do in PostgreSQL's own commands, in turn, on a pair of samples/quickstart.sh on this
# machine. Prints each figure and the ratios of the medians.
#
#   sh tests/bench_backup.sh [PART...]       default: all parts; 6 rounds, a database of 2 GB; 20 GB of disk space
#   ROUNDS=9 MC_BENCH_GB=4 sh tests/bench_backup.sh backup
#
#   backup    "mc_ctl backup": pg_basebackup and pg_verifybackup
#   load      the transactions per second of pgbench during both, and without a backup
#   recover   "mc_ctl recover" until the server serves: copy the backup, make the copy durable, pg_verifybackup, and recover it to the
#             same restore point with the same settings and archive
#
# MC_CTL: an mc_ctl with mc_arb beside it; default: a release build. Needs root.
set -eu
cd "$(dirname "$0")/.."

rounds=${ROUNDS:-6}
gb=${MC_BENCH_GB:-2}
dir=${MC_BENCH_DIR:-/var/tmp/mirroring-bench-backup}
port=5640
parts=${*:-backup load recover}
fail() { echo "tests/bench_backup.sh: $*" >&2; exit 1; }
[ "$(id -u)" -eq 0 ] || fail "run it as root"
for part in $parts; do
    case $part in backup | load | recover) ;; *) fail "\"$part\" is not a part" ;; esac
done
if [ -z "${MC_CTL:-}" ]; then
    cargo build --quiet --release
    MC_CTL=$(pwd)/target/release/mc_ctl
fi
export MC_CTL
# shellcheck disable=SC2012
bin=${PGBIN:-$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1)}
as() { (cd / && setpriv --reuid postgres --regid postgres --clear-groups env HOME="$dir" PGPASSFILE="$dir/pgpass" "$@"); }
client=
clean() {
    [ -z "$client" ] || kill "$client" 2>/dev/null || :
    [ ! -e "$dir/bare/data/postmaster.pid" ] || as "$bin/pg_ctl" -D "$dir/bare/data" -m immediate stop >/dev/null 2>&1 || :
    sh samples/quickstart.sh --clean --dir "$dir" >/dev/null 2>&1 || :
}
trap clean EXIT
trap 'exit 130' INT TERM
clean
sh samples/quickstart.sh --dir "$dir" --port "$port" >/dev/null

server="host=127.0.0.1 port=$port user=postgres"
sql() { as "$bin/psql" -qAtX -v ON_ERROR_STOP=1 -d "$server dbname=postgres" -c "$1"; }
mc() { id=$1; shift; as "$dir/bin/mc_ctl" "$@" -M "$dir/mc" --local-server "$id"; }
now() { date +%s%3N; }
as mkdir -m 700 "$dir/bare"
for id in nd1 nd2; do
    as mkdir -m 700 "$dir/backup-$id"
    # shellcheck disable=SC2016
    as sh -c 'printf "backup_destination = %s\nbackup_generations = 1\n" "$1" >>"$2"' sh "'$dir/backup-$id'" "$dir/mc/$id.conf"
done
# 1000 bytes a row.
sql "CREATE TABLE bulk (id bigint, text text)"
i=0
chunks=$(awk -v gb="$gb" 'BEGIN { print int(gb * 10 + 0.5) }')
while [ "$i" -lt "$chunks" ]; do
    sql "INSERT INTO bulk SELECT g, repeat(md5(g::text), 30) FROM generate_series(1, 100000) g"
    i=$((i + 1))
done
sql "ALTER TABLE bulk SET (autovacuum_enabled = off)"
sql "VACUUM (FREEZE) bulk"
for id in nd1 nd2; do
    command="$dir/bin/mc_ctl archive-wal -M $dir/mc --local-server $id \"%p\" \"%f\""
    # shellcheck disable=SC2016
    as sh -c 'printf "archive_mode = always\narchive_command = %s\n" "$1" >>"$2"' sh "'$command'" "$dir/$id/postgresql.conf"
done
mc nd1 stop -a >/dev/null
mc nd1 start -w -f >/dev/null
mc nd2 start -w -f >/dev/null
echo "database: $(sql "SELECT pg_size_pretty(pg_database_size('postgres'))")"

back_up() { mc nd1 backup --fast-checkpoint >/dev/null 2>"$dir/run/backup.log"; }
bare_backup() {
    rm -rf "$dir/bare/data"
    as "$bin/pg_basebackup" -X stream -c fast -w -P -D "$dir/bare/data" -d "$server" >/dev/null 2>&1
    as "$bin/pg_verifybackup" -q "$dir/bare/data"
}
# What precedes a measurement is written, and nothing is left of an earlier one.
settle() {
    rm -rf "$dir/bare/data" "$dir"/nd?.old-*
    sql CHECKPOINT
    sync
    sleep 2
}
# Milliseconds of a command.
ms() {
    begin=$(now)
    "$@" || { cat "$dir"/run/*.log >&2; fail "$1 failed"; }
    echo "$(($(now) - begin))"
}
# Transactions per second during a command, and its milliseconds.
xid() { sql "SELECT txid_snapshot_xmax(txid_current_snapshot())"; }
tps() {
    first=$(xid)
    took=$(ms "$@")
    echo "$((($(xid) - first) * 1000 / took)) $took"
}
# What precedes a measurement can slow it down: each command is the first in every second round.
each() { # round ours bare
    if [ $(($1 % 2)) -eq 1 ]; then "$2"; "$3"; else "$3"; "$2"; fi
}
median() { sort -n "$dir/run/$1" | awk '{ all[NR] = $1 } END { print (all[int((NR + 1) / 2)] + all[int(NR / 2) + 1]) / 2 }'; }
ratio() { # text ours bare unit
    awk -v text="$1" -v ours="$(median "$2")" -v bare="$(median "$3")" -v unit="$4" \
        'BEGIN { printf "median: %s %d %s, bare %d %s, ratio %.3f\n", text, ours, unit, bare, unit, ours / bare }'
}

backup_ours() { settle; ours=$(ms back_up); echo "$ours" >>"$dir/run/backup.ours"; }
backup_bare() { settle; bare=$(ms bare_backup); echo "$bare" >>"$dir/run/backup.bare"; }
part_backup() {
    round=1
    while [ "$round" -le "$rounds" ]; do
        each "$round" backup_ours backup_bare
        echo "round $round: mc_ctl backup $ours ms, pg_basebackup and pg_verifybackup $bare ms"
        round=$((round + 1))
    done
    ratio "mc_ctl backup" backup.ours backup.bare ms
}

load_ours() { settle; ours=$(tps back_up); echo "$ours" >>"$dir/run/load.ours"; }
load_bare() { settle; bare=$(tps bare_backup); echo "$bare" >>"$dir/run/load.bare"; }
part_load() {
    as "$bin/pgbench" -i -q -s 20 -d "$server dbname=postgres" >"$dir/run/pgbench.log" 2>&1
    as "$bin/pgbench" -n -c 4 -j 2 -T 100000 -d "$server dbname=postgres" >"$dir/run/pgbench.log" 2>&1 &
    client=$!
    sleep 5
    round=1
    while [ "$round" -le "$rounds" ]; do
        settle
        none=$(tps sleep 10)
        echo "$none" >>"$dir/run/load.none"
        each "$round" load_ours load_bare
        echo "round $round: ${ours% *} transactions/s during mc_ctl backup (${ours#* } ms)," \
            "${bare% *} during pg_basebackup and pg_verifybackup (${bare#* } ms), ${none% *} without"
        round=$((round + 1))
    done
    kill "$client"
    wait "$client" || :
    client=
    ratio "during mc_ctl backup" load.ours load.bare transactions/s
    ratio "without a backup" load.none load.bare transactions/s
}

# Until this server serves with the recovered data; the rebuild of the other server follows.
recover() {
    mc nd1 recover --yes --backup "$name" --name bench 2>&1 | while IFS= read -r line; do echo "$(now) $line"; done >"$dir/run/recover.log"
    grep -q 'the pair is mirrored$' "$dir/run/recover.log"
}
recover_ours() {
    settle
    begin=$(now)
    recover || { cat "$dir/run/recover.log" >&2; fail "mc_ctl recover failed"; }
    whole=$(($(now) - begin))
    ours=$(($(awk '/ordering the rebuild of server/ { print $1; exit }' "$dir/run/recover.log") - begin))
    echo "$ours" >>"$dir/run/recover.ours"
}
bare_recovery() {
    data=$dir/bare/data
    as cp -a "$dir/backup-nd1/$name/data" "$data"
    sync -f "$data"
    as "$bin/pg_verifybackup" -q "$data"
    as touch "$data/recovery.signal"
    # pg_ctl passes them on one line to a shell.
    options="-c port=$((port + 9)) -c hot_standby=off -c autovacuum=off -c huge_pages=off -c archive_mode=on -c archive_command="
    options="$options -c synchronous_standby_names= -c logging_collector=off -c recovery_target_name=bench"
    options="$options -c recovery_target_timeline=$timeline -c recovery_target_action=promote"
    options="$options -c restore_command='cp $dir/backup-nd1/archived_wal/%f %p'"
    as "$bin/pg_ctl" -s -w -t 3600 -D "$data" -l "$dir/run/bare.log" -o "$options" start
}
recover_bare() {
    settle
    bare=$(ms bare_recovery)
    as "$bin/pg_ctl" -s -w -m immediate -D "$dir/bare/data" stop
    echo "$bare" >>"$dir/run/recover.bare"
}
part_recover() {
    back_up
    name=$(mc nd1 backup --list --format json | sed -n 's/.*"name": *"\([^"]*\)".*/\1/p' | tail -n 1)
    timeline=$(sql "SELECT timeline_id FROM pg_control_checkpoint()")
    # A quarter of the database is WAL. What follows the last checkpoint before the target is replayed twice: once while the pair
    # serves, and once when it is stopped.
    sql "CREATE TABLE later AS SELECT * FROM bulk LIMIT $((chunks * 25000))"
    sql CHECKPOINT
    sql "CREATE TABLE afterwards AS SELECT * FROM bulk LIMIT 10000"
    sql "SELECT pg_create_restore_point('bench')" >/dev/null
    sql "CREATE TABLE lost AS SELECT 1"
    segment=$(sql "SELECT pg_walfile_name(pg_switch_wal())")
    until [ -e "$dir/backup-nd1/archived_wal/$segment" ]; do sleep 0.2; done
    round=1
    while [ "$round" -le "$rounds" ]; do
        each "$round" recover_ours recover_bare
        echo "round $round: mc_ctl recover $ours ms until the server serves, $whole ms until the pair is mirrored; by hand $bare ms"
        round=$((round + 1))
    done
    ratio "mc_ctl recover" recover.ours recover.bare ms
}

for part in $parts; do
    "part_$part"
done
