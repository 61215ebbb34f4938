#!/bin/sh
# Fetches axe-core, with which the tests of the web console look for mistakes in accessibility, into target/axe-core. It is not
# part of any package of this project (MPL 2.0).
set -eu
cd "$(dirname "$0")/.."
version=4.14.1
sum=29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c
dir=target/axe-core
file=$dir/axe.min.js
check() { echo "$sum  $file" | sha256sum -c --status 2>/dev/null; }
check && exit 0
mkdir -p "$dir"
if command -v npm >/dev/null; then
    (cd "$dir" && npm pack --silent "axe-core@$version" >/dev/null)
else
    curl -fsS -o "$dir/axe-core-$version.tgz" "https://registry.npmjs.org/axe-core/-/axe-core-$version.tgz"
fi
tar -xzf "$dir/axe-core-$version.tgz" -C "$dir" --strip-components=1 package/axe.min.js package/LICENSE
rm "$dir/axe-core-$version.tgz"
check || { echo "tests/axe.sh: $file is not axe-core $version" >&2; exit 1; }
