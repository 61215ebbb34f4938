#!/bin/sh
# Builds a package of Mirroring Controller for Debian or Red Hat and their derivatives: programs, manual pages, units,
# completions and samples.
#
#   sh samples/package.sh deb|rpm [--web] [--out DIR] [--programs DIR] [--version VERSION]
#
# DIR: target/package; prints the path of the package. --web builds the package of the web console, mirroring-controller-web.
# --programs uses existing programs; --version overrides the version in Cargo.toml (1.2.3-1~test). Requires cargo and cc, for
# deb dpkg-deb, and for rpm rpmbuild (Debian: apt-get install rpm).
#
# The package is reproducible with the same compiler (SOURCE_DATE_EPOCH, by default the time of the last commit). Its
# dependencies contain the oldest version of the C library that it requires. Installing, upgrading or removing the package
# does not enable, start or stop anything: a running controller and its instance
# continue.
set -eu
umask 022
export LC_ALL=C TZ=UTC
source=$(cd "$(dirname "$0")/.." && pwd)
fail() { printf 'package: %s\n' "$*" >&2; exit 1; }
key() { sed -n "s/^$1 = \"\(.*\)\"/\1/p" "$source/Cargo.toml" | head -n 1; }

kind=${1:-}
case $kind in
    deb | rpm) shift ;;
    -h | --help) sed -n '2,14s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) fail "usage: $0 deb|rpm [--web] [--out DIR] [--programs DIR] [--version VERSION]" ;;
esac
out=$source/target/package
programs=
web=
version=$(key version)
while [ $# -gt 0 ]; do
    case $1 in
        --web) web=-web; shift ;;
        --out) out=${2:?--out wants a directory}; shift 2 ;;
        --programs) programs=${2:?--programs wants a directory}; shift 2 ;;
        --version) version=${2:?--version wants a version}; shift 2 ;;
        *) fail "unknown argument \"$1\" (see --help)" ;;
    esac
done
if [ -z "${SOURCE_DATE_EPOCH:-}" ]; then
    SOURCE_DATE_EPOCH=$(git -C "$source" log -1 --format=%ct 2>/dev/null) || SOURCE_DATE_EPOCH=$(stat -c %Y "$source/Cargo.toml")
fi
export SOURCE_DATE_EPOCH
main=$(key name)
name=$main$web
summary=$(key description)
[ -z "$web" ] || summary="Web console of Mirroring Controller"
# Whether a file belongs to this package: of the web console, or not.
ours() {
    case ${1##*/} in
        mc_web | mc_web.* | mirroring-web.* | web.conf) [ -n "$web" ] ;;
        *) [ -z "$web" ] ;;
    esac
}
contact="${DEBFULLNAME:-Mirroring Controller maintainers} <${DEBEMAIL:-maintainers@mirroring-controller.invalid}>"
case $kind in
    deb) command -v dpkg-deb >/dev/null || fail "dpkg-deb is missing: it comes with Debian" ;;
    rpm) command -v rpmbuild >/dev/null || fail "rpmbuild is missing: apt-get install rpm, or dnf install rpm-build" ;;
esac

# ---- programs
if [ -z "$programs" ]; then
    command -v cargo >/dev/null || fail "cargo is missing: see https://rustup.rs"
    # no path of this machine in the programs
    home=${CARGO_HOME:-$HOME/.cargo}
    (cd "$source" && RUSTFLAGS="${RUSTFLAGS:-} --remap-path-prefix=$home=/cargo --remap-path-prefix=$source=/source" \
        CARGO_TARGET_DIR="$out/build" cargo build --release --locked --bins >&2)
    programs=$out/build/release
fi
mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$out/$kind
rm -rf "$work"
root=$work/root
mkdir -p "$root/usr/bin"
for program in "$source"/src/bin/*.rs; do
    program=$(basename "$program" .rs)
    ours "$program" || continue
    [ -x "$programs/$program" ] || fail "there is no program at $programs/$program"
    install -m 755 "$programs/$program" "$root/usr/bin/$program"
    ! command -v strip >/dev/null || strip --strip-unneeded --remove-section=.comment --remove-section=.note \
        "$root/usr/bin/$program"
done

# ---- files
put() { # mode file directory [name]: nothing where there is no such file
    [ -e "$2" ] && ours "$2" || return 0
    install -D -m "$1" "$2" "$root/$3/${4:-$(basename "$2")}"
}
samples=$source/samples
doc=usr/share/doc/$name
for page in "$source"/man/*.[1-9]; do
    ours "$page" || continue
    at=$root/usr/share/man/man${page##*.}/$(basename "$page").gz
    mkdir -p "$(dirname "$at")"
    gzip -9nc "$page" >"$at"
done
for unit in "$samples"/mirroring-*.service; do
    ours "$unit" || continue
    put 644 "$unit" usr/lib/systemd/system
    sed -i -e 's|/usr/local/bin/|/usr/bin/|g' \
        -e 's|^\(# A systemd unit.*\.\) Copy it to.*|\1 Put your user and management directory into a|' \
        "$root/usr/lib/systemd/system/$(basename "$unit")"
done
put 644 "$samples/mirroring-controller.tmpfiles" usr/lib/tmpfiles.d mirroring-controller.conf
put 644 "$samples/mirroring-controller.logrotate" etc/logrotate.d mirroring-controller
case $kind in deb) zsh=vendor-completions ;; rpm) zsh=site-functions ;; esac
for program in "$root"/usr/bin/*; do
    program=$(basename "$program")
    put 644 "$samples/completions/$program.bash" usr/share/bash-completion/completions "$program"
    put 644 "$samples/completions/_$program" "usr/share/zsh/$zsh"
    put 644 "$samples/completions/$program.fish" usr/share/fish/vendor_completions.d
done
for file in "$samples"/*; do
    ours "$file" || continue
    case ${file##*/} in
        package.sh | quickstart.sh | *.tmpfiles | *.logrotate | completions | mirroring-*.service) continue ;;
        *.sh | *.rc) mode=755 ;;
        *) mode=644 ;;
    esac
    put $mode "$file" "$doc/examples"
    sed -i 's|/usr/local/bin/|/usr/bin/|g' "$root/$doc/examples/${file##*/}"
done
[ -n "$web" ] || put 644 "$source/README.md" "$doc"

# ---- messages on installation, upgrade and removal; running programs continue
running='
# Processes of a program that was replaced or will be removed.
running() {
    for process in /proc/[0-9]*; do
        exe=$(readlink "$process/exe" 2>/dev/null) || continue
        case $exe in
            /usr/bin/mc_ctl$1 | /usr/bin/mc_arb$1) echo "${process#/proc/}" ;;
        esac
    done
}'
reload='
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || :
fi'
upgraded="$running$reload"'
old=$(running " (deleted)" | tr "\n" " ")
if [ -n "$old" ]; then
    echo "mirroring-controller: these processes continue to run the earlier version: ${old% }" >&2
    echo "To run the new version, see \"Updates without an interruption\" in mirroring-controller(7)." >&2
fi'
removed="$running"'
left=$(running "" | tr "\n" " ")
if [ -n "$left" ]; then
    echo "mirroring-controller: processes ${left}continue, as do the instances, without the commands to control them." >&2
    echo "SIGTERM ends them; a controller under systemd then also stops its instance, any other controller does not." >&2
fi'
# links of enabled units that no longer exist
purged='
for link in /etc/systemd/system/*.wants/mirroring-controller.service /etc/systemd/system/*.wants/mirroring-arbiter.service; do
    if [ -L "$link" ] && [ ! -e "$link" ]; then
        rm -f "$link"
        rmdir --ignore-fail-on-non-empty "$(dirname "$link")"
    fi
done'
if [ -n "$web" ]; then
    upgraded=$reload
    removed=
    purged='
:'
fi
description=" Monitors a primary and its synchronous standby. If the primary fails, the
 standby takes over; if the standby fails, the primary continues alone. With
 an arbiter on a third host, no acknowledged commit is lost, whatever fails.
 .
 This package contains the controller with its command (mc_ctl) and the
 arbiter (mc_arb). The installation neither starts nor enables them."
[ -z "$web" ] || description=" A page that shows the state of a pair of PostgreSQL servers and runs the
 commands of mc_ctl, with users, roles and a JSON interface. The installation
 neither starts nor enables it."

# Every file, and the package, is as old as the source.
settle() { find "$work" -depth -newermt "@$SOURCE_DATE_EPOCH" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +; }

# ---- deb
# The packages of the libraries that the programs need, with the version of the C library whose symbols they use.
depends() {
    readelf -dW "$root"/usr/bin/* | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | sort -u | while read -r library; do
        case $library in
            libc.so.* | libm.so.* | libpthread.so.* | libdl.so.* | librt.so.* | ld-linux*)
                echo "libc6 (>= $(readelf -VW "$root"/usr/bin/* | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -n 1 | cut -d_ -f2))" ;;
            libgcc_s.so.1) echo "libgcc-s1 (>= 4.2)" ;;
            *) fail "the programs need $library, whose package is unknown" ;;
        esac
    done | sort -u | paste -sd, | sed 's/,/, /g'
}

script() { # name text
    printf '#!/bin/sh\nset -e\n%s\n' "$2" >"$root/DEBIAN/$1"
    chmod 755 "$root/DEBIAN/$1"
}

make_deb() {
    architecture=$(dpkg --print-architecture)
    {
        sed 's/^$/ ./; s/^/ /; s/^  \./ ./' "$source/LICENSE" >"$work/license"
        echo "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/"
        printf 'Upstream-Name: %s\n\nFiles: *\n' "$name"
        printf 'Copyright: %s\nLicense: %s\n' "$(sed -n 's/^Copyright (c) //p' "$source/LICENSE")" "$(key license)"
        cat "$work/license"
    } >"$root/$doc/copyright"
    printf '%s (%s) unstable; urgency=medium\n\n  * Built from the source of version %s.\n\n -- %s  %s\n' \
        "$name" "$version" "$(key version)" "$contact" "$(date -R -d "@$SOURCE_DATE_EPOCH")" |
        gzip -9n >"$root/$doc/changelog.gz"
    needed=$(depends)
    [ -z "$web" ] || needed="$needed, $main (>= $(key version))"
    recommends="Recommends: postgresql | postgresql-18 | postgresql-17 | postgresql-16 | postgresql-15 | postgresql-14 | postgresql-13"
    [ -z "$web" ] || recommends="Enhances: $main"
    mkdir "$root/DEBIAN"
    cat >"$root/DEBIAN/control" <<END
Package: $name
Version: $version
Architecture: $architecture
Maintainer: $contact
Installed-Size: $(du -k -s --apparent-size --exclude=DEBIAN "$root" | cut -f1)
Depends: $needed
$recommends
Section: database
Priority: optional
Description: $summary
$description
END
    script postinst "[ \"\$1\" = configure ] || exit 0$upgraded"
    script prerm "[ \"\$1\" = remove ] || exit 0$removed"
    script postrm "[ \"\$1\" != purge ] || {$purged
}
case \$1 in remove | purge) ;; *) exit 0 ;; esac$reload"
    if [ -d "$root/etc" ]; then
        (cd "$root" && find etc -type f | sed 's|^|/|' | sort) >"$root/DEBIAN/conffiles"
    fi
    (cd "$root" && find usr -type f -print0 | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
    settle
    file=$out/${name}_${version}_$architecture.deb
    dpkg-deb --root-owner-group -Zxz --build "$root" "$file" >/dev/null
}

# ---- rpm
make_rpm() {
    install -D -m 644 "$source/LICENSE" "$root/usr/share/licenses/$name/LICENSE"
    (cd "$root" && find . \( -type f -o -type l \) -printf '/%P\n' | sort | sed \
        -e 's|^/etc/.*|%config(noreplace) &|' -e 's|^/usr/share/licenses/.*|%license &|' \
        -e 's|^/usr/share/doc/.*|%doc &|') >"$work/files"
    # its own directories, and those of shells that need not be there
    printf '%%dir /%s\n' "$doc" "$doc/examples" "usr/share/licenses/$name" \
        usr/share/fish usr/share/fish/vendor_completions.d usr/share/zsh usr/share/zsh/site-functions >>"$work/files"
    settle
    cat >"$work/$name.spec" <<END
%global debug_package %{nil}
%global __os_install_post %{nil}
%global _build_id_links none
%global use_source_date_epoch_as_buildtime 1
%global clamp_mtime_to_source_date_epoch 1
%global _buildhost reproducible
Name: $name
Version: $(printf '%s' "$version" | tr - '~')
Release: 1
Summary: $summary
License: $(key license)
$([ -n "$web" ] && echo "Requires: $main >= $(key version)" || echo "Recommends: postgresql-server")
%description
$(printf '%s\n' "$description" | sed 's/^ \.$//; s/^ //')
%install
mkdir -p %{buildroot}
cp -a "$root/." %{buildroot}/
%files -f $work/files
%post
$upgraded
exit 0
%preun
[ "\$1" = 0 ] || exit 0
$removed
exit 0
%postun
[ "\$1" = 0 ] || exit 0
$purged
$reload
exit 0
END
    rpmbuild -bb --quiet --define "_topdir $work/rpmbuild" --define "_rpmdir $work/made" \
        --define "_tmppath $work" "$work/$name.spec" >&2
    made=$(find "$work/made" -name '*.rpm')
    file=$out/$(basename "$made")
    mv "$made" "$file"
}

make_$kind
rm -rf "$work"
echo "$file"
