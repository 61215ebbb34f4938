#!/bin/sh
# Demonstrates Mirroring Controller with two PostgreSQL servers and an arbiter on this machine: sets up the pair with mc_ctl
# init, starts it, writes rows, kills the primary, shows how long the client waited, rebuilds the server, and switches back.
#
#   sh samples/quickstart.sh [--dir DIR] [--port N]     DIR: /var/tmp/mirroring-quickstart; N, N+1: PostgreSQL's
#                                                       ports (5540), N+2 to N+4: the controllers'
#   sh samples/quickstart.sh --clean [--dir DIR]        stops the pair and removes DIR
#
# On Debian and Ubuntu it installs PostgreSQL if it is missing (as root, or with sudo). The servers run as the current user,
# or as the user postgres if that is root. To skip the build, set MC_CTL to an mc_ctl with mc_arb beside it.
set -eu
umask 077

dir=/var/tmp/mirroring-quickstart
port=5540
clean=
step() { printf '\n== %s\n' "$*"; }
fail() { printf 'quickstart: %s\n' "$*" >&2; exit 1; }
while [ $# -gt 0 ]; do
    case $1 in
        --dir) dir=${2:?--dir wants a directory}; shift 2 ;;
        --dir=*) dir=${1#--dir=}; shift ;;
        --port) port=${2:?--port wants a number}; shift 2 ;;
        --port=*) port=${1#--port=}; shift ;;
        --clean) clean=yes; shift ;;
        -h | --help) sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 0 ;;
        *) fail "unknown argument \"$1\" (see --help)" ;;
    esac
done
case $port in '' | *[!0-9]*) fail "--port requires a number, not \"$port\"" ;; esac
case $dir in /*) ;; *) dir=$(pwd)/$dir ;; esac
case $dir in *[!A-Za-z0-9/._-]*) fail "the name of the directory may contain only letters, digits and /._-: $dir" ;; esac
source=$(cd "$(dirname "$0")/.." && pwd)

# ---- the user of the servers: PostgreSQL and mc_ctl reject root
if [ "$(id -u)" -eq 0 ]; then
    user=postgres
    as() { (cd / && setpriv --reuid "$user" --regid "$user" --clear-groups \
        env HOME="$dir" USER="$user" LOGNAME="$user" PGPASSFILE="$dir/pgpass" "$@"); }
    root() { "$@"; }
    prefix="runuser -u postgres -- "
else
    user=$(id -un)
    as() { (cd / && env PGPASSFILE="$dir/pgpass" "$@"); }
    root() {
        command -v sudo >/dev/null || fail "this needs root, and there is no sudo: $*"
        sudo "$@"
    }
    prefix=
fi
mc() { as "$dir/bin/mc_ctl" "$@" -M "$dir/mc"; }

# ---- a pair of an earlier run
# Any user may create a directory in /var/tmp. Nothing is run from a directory that another user owns or can write to.
is_ours() {
    [ -d "$dir" ] && [ ! -L "$dir" ] || return 1
    case $(stat -c %U "$dir") in root | "$user" | "$(id -un)") ;; *) return 1 ;; esac
    case $(stat -c %a "$dir") in *[2367]? | *[2367]) return 1 ;; esac
}
remove() {
    [ -e "$dir" ] || [ -L "$dir" ] || return 0
    is_ours || fail "$dir belongs to another user, or other users can write to it; use another --dir"
    [ -e "$dir/.quickstart" ] || fail "$dir exists and was not created by this script; use another --dir"
    [ ! -x "$dir/bin/mc_arb" ] || as "$dir/bin/mc_arb" stop -e -M "$dir/arb" >/dev/null 2>&1 || :
    if [ -x "$dir/bin/mc_ctl" ]; then
        for id in nd2 nd1; do
            mc stop -e --local-server "$id" >/dev/null 2>&1 || :
        done
    fi
    for data in "$dir/nd1" "$dir/nd2"; do
        if pid=$(postmaster "$data"); then
            as kill -INT "$pid" 2>/dev/null || :
            tries=0
            while [ -d "/proc/$pid" ] && [ $tries -lt 50 ]; do
                sleep 0.2
                tries=$((tries + 1))
            done
            [ ! -d "/proc/$pid" ] || as kill -QUIT "$pid" 2>/dev/null || :
        fi
    done
    rm -rf "$dir"
}
# The postmaster of a data directory; the number in a stale file may belong to another process.
postmaster() {
    pid=$(sed -n 1p "$1/postmaster.pid" 2>/dev/null) && [ -n "$pid" ] || return 1
    [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = postgres ] || return 1
    [ "$(as readlink "/proc/$pid/cwd" 2>/dev/null)" = "$1" ] || return 1
    echo "$pid"
}
if [ -n "$clean" ]; then
    [ -e "$dir" ] || { echo "there is nothing at $dir"; exit 0; }
    remove
    echo "stopped, and removed $dir"
    exit 0
fi

# ---- PostgreSQL
find_postgresql() {
    bin=$(for d in /usr/lib/postgresql/*/bin; do
        [ -x "$d/pg_basebackup" ] && [ -x "$d/postgres" ] && echo "$d"
    done | sort -t/ -k5n | tail -n 1)
    if [ -z "$bin" ] && command -v pg_config >/dev/null; then
        bin=$(pg_config --bindir)
        [ -x "$bin/postgres" ] || bin=
    fi
    [ -n "$bin" ]
}
install() {
    command -v apt-get >/dev/null || fail "please install: $*"
    root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y "$@"
}
if ! find_postgresql; then
    step "installing PostgreSQL (without the cluster that Debian creates by default)"
    command -v apt-get >/dev/null || fail "PostgreSQL is missing: please install its server, version 12 to 18"
    root apt-get update -q
    install postgresql-common
    conf=/etc/postgresql-common/createcluster.conf
    root cp -p $conf $conf.quickstart
    root sh -c "echo 'create_main_cluster = false' >>$conf"
    result=0
    install postgresql || result=$?
    root mv $conf.quickstart $conf
    [ "$result" -eq 0 ] && find_postgresql || fail "could not install PostgreSQL"
fi
id "$user" >/dev/null 2>&1 || fail "there is no user $user: it comes with Debian's package postgresql-common"
version=$("$bin/postgres" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')
[ "$version" -ge 12 ] || fail "PostgreSQL $version in $bin is too old: 12 to 18 are supported"

# ---- mc_ctl
rust=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$source/Cargo.toml")
new_enough() { # version
    [ "$(printf '%s\n%s\n' "$rust" "$1" | sort -V | head -n 1)" = "$rust" ]
}
if [ -z "${MC_CTL:-}" ]; then
    if ! command -v cargo >/dev/null && command -v apt-cache >/dev/null; then
        offered=$(apt-cache policy cargo | sed -n 's/^ *Candidate: \([0-9.]*\).*/\1/p')
        [ -z "$offered" ] || ! new_enough "$offered" || install cargo
    fi
    how="install Rust's toolchain, as this user:
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh
    . \"\$HOME/.cargo/env\"
and run this script again"
    command -v cargo >/dev/null || fail "cargo is missing; $how"
    have=$(cd "$source" && cargo --version | cut -d' ' -f2)
    new_enough "$have" || fail "cargo $have is too old ($rust is required); $how"
    command -v cc >/dev/null || install gcc libc6-dev
    step "building mc_ctl and mc_arb (a few minutes the first time)"
    (cd "$source" && umask 022 && cargo build --release --locked --bin mc_ctl --bin mc_arb)
    MC_CTL=$(cd "$source" && cargo metadata --format-version 1 --no-deps --offline |
        sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/release/mc_ctl
fi
mc_arb=$(dirname "$MC_CTL")/mc_arb
for program in "$MC_CTL" "$mc_arb"; do
    [ -x "$program" ] || fail "there is no program at $program"
done

# ---- two servers, and an arbiter
step "creating a pair in $dir: PostgreSQL $version on ports $port and $((port + 1)), as the user $user"
remove
for p in "$port" $((port + 1)) $((port + 2)) $((port + 3)) $((port + 4)); do
    hex=$(printf ':%04X' "$p")
    ! awk '$4 == "0A" { print $2 }' /proc/net/tcp /proc/net/tcp6 2>/dev/null | grep -q "$hex\$" ||
        fail "port $p is in use; choose others with --port"
done
mkdir -p "$(dirname "$dir")"
mkdir "$dir" || fail "could not create $dir"
: >"$dir/.quickstart"
mkdir "$dir/bin" "$dir/mc" "$dir/arb" "$dir/run"
cp "$MC_CTL" "$dir/bin/mc_ctl"
cp "$mc_arb" "$dir/bin/mc_arb"
chmod 700 "$dir/bin/mc_ctl" "$dir/bin/mc_arb"

random() { od -An -N"$1" -tx1 /dev/urandom | tr -d ' \n'; }
password=$(random 16)
printf '%s\n' "$password" >"$dir/password"
printf '127.0.0.1:*:*:%s:%s\n' "$user" "$password" >"$dir/pgpass"
[ "$(id -u)" -ne 0 ] || chown -R "$user:" "$dir"

as "$bin/initdb" -D "$dir/nd1" -U "$user" -A scram-sha-256 --pwfile="$dir/password" -E UTF8 --locale=C \
    >"$dir/run/initdb.log" || fail "initdb failed: see $dir/run/initdb.log"
as sh -c 'cat >>"$0"' "$dir/nd1/postgresql.conf" <<EOF

# for the pair
port = $port
synchronous_standby_names = 'nd2'
listen_addresses = '127.0.0.1'
unix_socket_directories = '$dir/run'
logging_collector = on
log_directory = 'log'
EOF

step "mc_ctl init, for nd1 and for nd2; and the arbiter's copy of the common files"
mc init --self "nd1=127.0.0.1:$((port + 2))" --peer "nd2=127.0.0.1:$((port + 3))" --arbiter "arb=127.0.0.1:$((port + 4))" \
    --data "$dir/nd1" --password-file "$dir/password" --apply >"$dir/run/init.log" 2>&1 ||
    fail "mc_ctl init failed: see $dir/run/init.log"
mc init --local-server nd2 --data "$dir/nd2" --password-file "$dir/password" >>"$dir/run/init.log" 2>&1 ||
    fail "mc_ctl init failed for nd2: see $dir/run/init.log"
grep -A9 '^written into' "$dir/run/init.log" | sed '/^$/,$d'
as cp -p "$dir/mc/network.conf" "$dir/mc/mc.key" "$dir/arb/"
as touch "$dir/arb/arbitration.conf"

step "starting the arbiter, and the primary, nd1"
as "$dir/bin/mc_arb" start -M "$dir/arb"
mc start -w -f --local-server nd1
step "copying it to the standby, nd2, and starting the standby"
# On a separate host, "mc_ctl rebuild" does this; here the copy needs a different port before its start.
as "$bin/pg_basebackup" -D "$dir/nd2" -R -c fast -h 127.0.0.1 -p "$port" -U "$user" -d "application_name=nd2" \
    >"$dir/run/basebackup.log" 2>&1 || fail "pg_basebackup failed: see $dir/run/basebackup.log"
as sed -i "s/^port = .*/port = $((port + 1))/
    s/^#*synchronous_standby_names = 'nd2'/synchronous_standby_names = 'nd1'/" "$dir/nd2/postgresql.conf"
mc start -w -f --local-server nd2
mc status --arbiter --local-server nd1

# ---- a client, and a failure
both="host=127.0.0.1,127.0.0.1 port=$port,$((port + 1)) user=$user dbname=postgres target_session_attrs=read-write"
sql() { as env PGCONNECT_TIMEOUT=2 "$bin/psql" -qAtX -v ON_ERROR_STOP=1 -d "$both" -c "$1"; }
sql "CREATE TABLE quickstart (id bigint PRIMARY KEY)"
log=$dir/run/acknowledged
: >"$log"
: >"$dir/run/write"
(
    n=0
    while [ -e "$dir/run/write" ]; do
        n=$((n + 1))
        if sql "INSERT INTO quickstart VALUES ($n)" 2>/dev/null; then
            echo "$n $(date +%s%3N)" >>"$log"
        fi
    done
) &
client=$!
trap 'rm -f "$dir/run/write"; wait "$client" 2>/dev/null || :' EXIT
trap 'exit 130' INT TERM
step "a client writes, a session for each row; after three seconds the primary's postmaster is killed (SIGKILL)"
sleep 3
pid=$(postmaster "$dir/nd1") || fail "the primary has no postmaster"
as kill -KILL "$pid"
echo "kill -KILL $pid"
sleep 5
rm -f "$dir/run/write"
wait "$client" || :
trap - EXIT INT TERM
mc status --local-server nd2
rows=$(wc -l <"$log")
wait=$(awk 'NR > 1 && $2 - last > max { max = $2 - last } { last = $2 } END { print max + 0 }' "$log")
sql "SELECT id FROM quickstart" | sort >"$dir/run/there"
lost=$(cut -d' ' -f1 "$log" | sort | comm -23 - "$dir/run/there" | wc -l)
step "$rows rows were acknowledged, $lost of them are lost; the client waited at most $wait ms"
[ "$lost" -eq 0 ] || fail "acknowledged rows are lost"

# ---- failback
step "the killed server, nd1, becomes the standby: mc_ctl rebuild"
mc rebuild --yes --local-server nd1
step "failback: mc_ctl switch, then mc_ctl rebuild on nd2, which has lost its role"
mc switch --local-server nd1
mc rebuild --yes --local-server nd2
mc status --local-server nd1
step "the history of nd1: mc_ctl history"
mc history --local-server nd1

# ---- next steps
wrapper=$dir/bin/mc
cat >"$wrapper" <<EOF
#!/bin/sh
cd / && PGPASSFILE='$dir/pgpass' exec '$dir/bin/mc_ctl' "\$@" -M '$dir/mc'
EOF
chmod 700 "$wrapper"
[ "$(id -u)" -ne 0 ] || chown "$user:" "$wrapper"
cat <<EOF

The pair and the arbiter continue to run: nd1 is the primary, nd2 its standby.

  ${prefix}$wrapper status --local-server nd1
  ${prefix}$wrapper check --local-server nd1      (warns of same-file-system, because all data is on one disk)
  ${prefix}$wrapper what-if all --local-server nd1
  ${prefix}$wrapper switch --local-server nd1
  ${prefix}$wrapper rebuild --local-server nd1
  ${prefix}$wrapper stop -a --local-server nd1

Both servers:  ${prefix}env PGPASSFILE=$dir/pgpass $bin/psql \\
      "$both"
Clean up:      sh $source/samples/quickstart.sh --clean --dir $dir
EOF
