#!/bin/sh
# Builds the packages and uses them as a stranger would, in a clean Debian of its own (debootstrap): installs the .deb,
# sets up a pair with an arbiter, upgrades while it runs, kills what should survive it, removes and purges; then the .rpm.
#
#   sh tests/package.sh [--programs DIR]       DIR: programs that are built already, such as target/release
#
# Needs root, the network (Debian's mirror: MC_TEST_MIRROR, or else apt's own; MC_TEST_SUITE: bookworm) and 1 GB in target/.
# The clean system is made once and kept as target/package/clean-SUITE.tar. It runs in namespaces: nothing outlives it.
set -eu
cd "$(dirname "$0")/.."
umask 022
say() { printf '\n== %s\n' "$*"; }
fail() { printf 'tests/package.sh: %s\n' "$*" >&2; exit 1; }

# ---------------------------------------------------------------------------------- inside the clean system
if [ "${1:-}" = --inside ]; then
    first=$2 second=$3 old=$4 new=$5
    bin=$(echo /usr/lib/postgresql/*/bin)
    as() { (cd / && exec setpriv --reuid postgres --regid postgres --clear-groups env HOME=/var/lib/postgresql USER=postgres "$@"); }
    mc() { as mc_ctl "$@" -M /mc; }
    until_word() { # word, server
        tries=0
        until [ "$(mc status --local-server "$2" | sed -n 3p)" = "$1" ]; do
            tries=$((tries + 1))
            [ $tries -lt 240 ] || { mc status --local-server "$2"; fail "waited in vain for $1 on $2"; }
            sleep 0.5
        done
    }
    sql() { as "$bin/psql" -qAtX -v ON_ERROR_STOP=1 -c "$1" "host=127.0.0.1,127.0.0.1 port=5540,5541 dbname=postgres \
        target_session_attrs=read-write connect_timeout=20"; }
    # processes of a program, in order; those of the users' alone
    of() { for p in /proc/[0-9]*; do
        case $(readlink "$p/exe" 2>/dev/null) in "$1" | "$1 (deleted)") echo "${p#/proc/}" ;; esac
    done | sort -n; }
    postmasters() { for id in nd1 nd2; do sed -n 1p /data/$id/postmaster.pid; done; }
    everything() { find / -xdev \( -path /proc -o -path /dev -o -path /sys -o -path /tmp -o -path /mc -o -path /arb -o -path /data \
        -o -path /var/lib/dpkg -o -path /var/cache -o -path /var/log -o -path /packages -o -path /var/lib/systemd \) -prune -o -print | sort; }

    say "installing"
    everything >/tmp/before
    dpkg -i "$first"
    [ "$(mc_ctl --version)" = "mc_ctl $old" ] || fail "mc_ctl --version says $(mc_ctl --version)"
    mc_arb --version
    dpkg --verify mirroring-controller | grep . && fail "files differ from the package's"
    [ -z "$(of /usr/bin/mc_ctl)$(of /usr/bin/mc_arb)" ] || fail "something was started"
    [ -z "$(find /etc/systemd -name 'mirroring-*')" ] || fail "something was enabled"
    for page in $(dpkg -L mirroring-controller | sed -n 's|^/usr/share/man/man./\(.*\)\.\(.\)\.gz$|\2:\1|p'); do
        text=$(man "${page%%:*}" "${page#*:}" 2>&1) || fail "man ${page%%:*} ${page#*:}: $text"
        echo "$text" | grep -q NAME || fail "man ${page%%:*} ${page#*:} says: $text"
    done
    for script in $(dpkg -L mirroring-controller | grep 'bash-completion/completions/'); do
        program=$(basename "$script")
        said=$(bash -c ". $script && COMP_WORDS=($program st) COMP_CWORD=1 COMP_LINE='$program st' COMP_POINT=$((${#program} + 3)) &&
            f=\$(complete -p $program | sed 's/.*-F \([^ ]*\).*/\1/') && \$f $program st $program && echo \"\${COMPREPLY[*]}\"")
        case " $said " in *" status "*) ;; *) fail "$script completes \"$program st\" to \"$said\"" ;; esac
        echo "$program st<TAB>: $said"
    done
    grep -rn /usr/local/bin/mc_ /usr/lib/systemd/system/mirroring-* /usr/share/doc/mirroring-controller/examples && fail "a path of another place"

    say "a pair and its arbiter"
    install -d -m 700 -o postgres -g postgres /mc /arb /data
    as sh -c 'umask 077; cd /mc
        printf "%s\n" "nd1 127.0.0.1 27540" "nd2 127.0.0.1 27541" "arb 127.0.0.1 27542 arbiter" >network.conf
        openssl rand -hex 32 >mc.key
        for id in nd1 nd2; do echo "db_instance = '\''/data/$id'\''" >$id.conf; done
        cp network.conf mc.key /arb; : >/arb/arbitration.conf'
    as "$bin/initdb" -D /data/nd1 -A trust >/dev/null
    as sh -c 'cat >>/data/nd1/postgresql.conf' <<END
port = 5540
unix_socket_directories = '/tmp'
synchronous_standby_names = 'nd2'
wal_log_hints = on
logging_collector = on
END
    as mc_arb start -M /arb
    mc start -w -f --local-server nd1
    as "$bin/pg_basebackup" -D /data/nd2 -R -c fast -h 127.0.0.1 -p 5540 -d application_name=nd2
    as sed -i "s/^port = .*/port = 5541/; s/^#*synchronous_standby_names = 'nd2'/synchronous_standby_names = 'nd1'/" /data/nd2/postgresql.conf
    mc start -w -f --local-server nd2
    until_word switchable nd1
    sql "CREATE TABLE t (id int); INSERT INTO t VALUES (1)"
    # as a unit that was enabled by hand
    mkdir -p /etc/systemd/system/multi-user.target.wants
    ln -s /usr/lib/systemd/system/mirroring-controller.service /etc/systemd/system/multi-user.target.wants/

    say "an upgrade while it runs"
    before=$(of /usr/bin/mc_ctl; of /usr/bin/mc_arb; postmasters)
    dpkg -i "$second" 2>&1 | tee /tmp/upgrade
    grep -q "continue to run the earlier version" /tmp/upgrade || fail "the output does not name what still runs"
    [ "$(dpkg-query -W -f '${Version}' mirroring-controller)" = "$new" ] || fail "not upgraded"
    [ "$before" = "$(of /usr/bin/mc_ctl; of /usr/bin/mc_arb; postmasters)" ] || fail "the upgrade touched what runs"
    mc status --local-server nd1
    until_word switchable nd1
    sql "INSERT INTO t VALUES (2)"
    echo "a controller that dies is started again by its watcher, whose program was replaced"
    for victim in $(of /usr/bin/mc_ctl); do
        # the controller of nd1: the child of a process of the same program
        parent=$(sed -n 's/^PPid:\t//p' "/proc/$victim/status")
        case $(readlink "/proc/$parent/exe") in /usr/bin/mc_ctl*) ;; *) continue ;; esac
        kill -KILL "$victim"
        break
    done
    sleep 3
    until_word switchable nd1
    until_word switchable nd2
    [ "$(of /usr/bin/mc_ctl | wc -l)" = 4 ] || fail "the watcher has not started a controller"
    sql "INSERT INTO t VALUES (3)"
    echo "the new program, one member after the other"
    postmasters >/tmp/postmasters
    for id in nd2 nd1; do
        mc stop --mc-only --local-server $id
        mc start --mc-only -w -f --local-server $id
        until_word switchable $id
    done
    as mc_arb stop -M /arb
    as mc_arb start -M /arb
    until_word switchable nd1
    postmasters | cmp - /tmp/postmasters || fail "an instance was restarted"
    for p in $(of /usr/bin/mc_ctl) $(of /usr/bin/mc_arb); do
        case $(readlink "/proc/$p/exe") in *deleted*) fail "process $p runs the earlier program" ;; esac
    done

    say "a failover with the new program"
    kill -KILL "$(sed -n 1p /data/nd1/postmaster.pid)"
    until_word switched nd2
    sql "INSERT INTO t VALUES (4)"
    mc rebuild --yes --local-server nd1
    until_word switchable nd2
    [ "$(sql "SELECT string_agg(id::text, ',' ORDER BY id) FROM t")" = 1,2,3,4 ] || fail "rows are lost"

    say "removing it under a running pair"
    before=$(of /usr/bin/mc_ctl; of /usr/bin/mc_arb; postmasters)
    dpkg -r mirroring-controller 2>&1 | tee /tmp/removal
    grep -q "continue, as do the instances" /tmp/removal || fail "the output does not name what still runs"
    [ ! -e /usr/bin/mc_ctl ] || fail "mc_ctl is still there"
    [ "$before" = "$(of /usr/bin/mc_ctl; of /usr/bin/mc_arb; postmasters)" ] || fail "the removal touched what runs"
    sql "INSERT INTO t VALUES (5)"
    echo "SIGTERM ends what was not started by a unit, and leaves the instances alone"
    before=$(postmasters)
    for p in $(of /usr/bin/mc_ctl) $(of /usr/bin/mc_arb); do kill -TERM "$p" 2>/dev/null || :; done
    tries=0
    while [ -n "$(of /usr/bin/mc_ctl)$(of /usr/bin/mc_arb)" ]; do
        tries=$((tries + 1))
        [ $tries -lt 240 ] || fail "it does not end: $(of /usr/bin/mc_ctl) $(of /usr/bin/mc_arb)"
        sleep 0.5
    done
    [ "$before" = "$(postmasters)" ] || fail "an instance was touched"
    sql "SELECT 1"
    for id in nd1 nd2; do as "$bin/pg_ctl" -s -D /data/$id -m fast stop; done
    say "purging it"
    dpkg -P mirroring-controller
    everything | diff /tmp/before - || fail "something is left"
    [ -d /mc/nd1 ] && [ -s /mc/network.conf ] && [ -s /data/nd1/PG_VERSION ] || fail "files of the user's are gone"
    exit 0
fi

# ---------------------------------------------------------------------------------- outside
programs=
[ "${1:-}" != --programs ] || programs=$(cd "$2" && pwd)
[ "$(id -u)" -eq 0 ] || fail "run it as root, as tests/run.sh"
suite=${MC_TEST_SUITE:-bookworm}
missing=
for pair in debootstrap:debootstrap rpmbuild:rpm unshare:util-linux ip:iproute2; do
    PATH=$PATH:/usr/sbin:/sbin command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair#*:}"
done
if [ -n "$missing" ]; then
    command -v apt-get >/dev/null || fail "please install:$missing"
    apt-get update -q
    # shellcheck disable=SC2086 # a list of packages
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
fi
work=$(pwd)/target/package
root=$work/root
clean=$work/clean-$suite.tar
mkdir -p "$work"
rm -rf "$root"
trap 'rm -rf "$root"' EXIT
trap 'exit 130' INT TERM HUP

if [ ! -e "$clean" ]; then
    say "a clean $suite with PostgreSQL"
    mirror=${MC_TEST_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 'Label: Debian' | head -n 1)}
    [ -n "$mirror" ] || fail "apt knows no mirror of Debian; set MC_TEST_MIRROR"
    debootstrap --variant=minbase --include=ca-certificates "$suite" "$root" "$mirror" >"$work/debootstrap.log" 2>&1 ||
        { tail -n 20 "$work/debootstrap.log"; fail "debootstrap failed"; }
    mkdir -p "$root/etc/postgresql-common"
    # no server of the distribution's own
    echo 'create_main_cluster = false' >"$root/etc/postgresql-common/createcluster.conf"
    mount -t proc proc "$root/proc"
    code=0
    DEBIAN_FRONTEND=noninteractive chroot "$root" apt-get install -q -y --no-install-recommends \
        postgresql man-db openssl >"$work/debootstrap.log" 2>&1 || code=$?
    umount "$root/proc"
    [ "$code" -eq 0 ] || { tail -n 20 "$work/debootstrap.log"; fail "apt-get failed"; }
    rm -rf "$root/var/cache/apt/archives"/*.deb
    tar -C "$root" -cf "$clean.new" .
    mv "$clean.new" "$clean"
else
    mkdir -p "$root"
    tar -C "$root" -xf "$clean"
fi

say "building"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
first=$(sh samples/package.sh deb ${programs:+--programs "$programs"})
[ -n "$programs" ] || programs=$work/build/release
cp "$first" "$work/first"
sh samples/package.sh deb --programs "$programs" >/dev/null
cmp "$work/first" "$first" || fail "the same source gave another package"
rm "$work/first"
second=$(sh samples/package.sh deb --programs "$programs" --version "$version+1~test")
rpm=$(sh samples/package.sh rpm --programs "$programs")
web=$(sh samples/package.sh deb --web --programs "$programs")
web_rpm=$(sh samples/package.sh rpm --web --programs "$programs")
ls -l "$first" "$second" "$rpm" "$web" "$web_rpm"
dpkg-deb -c "$first" | grep -q 'mc_web' && fail "the package contains the web console"
for file in /usr/bin/mc_web /usr/lib/systemd/system/mirroring-web.service /usr/share/man/man8/mc_web.8.gz; do
    dpkg-deb -c "$web" | grep -q " \.$file\$" || fail "the package of the web console lacks $file"
    rpm -qlp "$web_rpm" | grep -qx "$file" || fail "the package of the web console lacks $file"
done
if command -v lintian >/dev/null; then
    lintian --allow-root --fail-on error,warning "$first" || fail "lintian has complaints"
fi
mkdir "$root/packages"
cp "$first" "$root/packages/first.deb"
cp "$second" "$root/packages/second.deb"
rm "$second"
cp tests/package.sh "$root/packages/package.sh"
PATH=$PATH:/usr/sbin:/sbin unshare --mount --pid --net --ipc --uts --fork --kill-child=KILL sh -c '
    set -e
    ip link set lo up
    mount -t proc proc "$1/proc"
    mount -t tmpfs -o mode=1777 none "$1/dev/shm"
    exec chroot "$@"' sh "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
    sh /packages/package.sh --inside /packages/first.deb /packages/second.deb "$version" "$version+1~test"

say "the rpm"
rpm -K "$rpm"
# what the packaging systems keep for themselves, each in its own place
listed() { sed -e '/\/share\/licenses\//d' -e '/\/copyright$/d' -e '/changelog/d' -e 's|/site-functions/|/vendor-completions/|'; }
dpkg-deb --fsys-tarfile "$first" | tar -t | sed -n 's|^\.\(.*[^/]\)$|\1|p' | listed | sort >"$work/deb.list"
rpm -qp --qf '[%{FILEMODES:perms} %{FILENAMES}\n]' "$rpm" | sed -n 's/^-[^ ]* //p' | listed | sort | diff "$work/deb.list" - ||
    fail "the packages differ in their files"
(cd "$root" && find . | sort) >"$work/before.list"
at="--root $root --dbpath /packages/rpm"
# shellcheck disable=SC2086 # options
rpm $at --initdb && rpm $at -i --nodeps "$rpm" && rpm $at -V --nodeps mirroring-controller
[ "$(chroot "$root" mc_ctl --version)" = "mc_ctl $version" ] || fail "mc_ctl of the rpm does not run"
# shellcheck disable=SC2086
rpm $at -e mirroring-controller
rm -rf "$root/packages/rpm"
rmdir "$root/usr/share/licenses" # of a package that Debian does not have
(cd "$root" && find . | sort) | diff "$work/before.list" - || fail "the rpm left something behind"
rm -f "$work/deb.list" "$work/before.list"
echo
echo "package: passed"
