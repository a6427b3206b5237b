#!/usr/bin/env bash
# arm_python.sh FOLDER: Debian's Python for 64-bit ARM and its libraries, unpacked for `qemu-aarch64 -L FOLDER`.
# The system's own packages and lists stay as they are.
set -euo pipefail
root=$1 apt=$1.apt
mkdir -p "$root/usr/lib" "$apt/lists/partial" "$apt/archives/partial"
arm() {
  apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User=root \
    -o Dir::State::Lists="$PWD/$apt/lists" -o Dir::State::status=/dev/null -o Dir::Cache="$PWD/$apt" "$@"
}
arm update
arm --yes --no-install-recommends --download-only install python3 libstdc++6
ln -sfn usr/lib "$root/lib"
for package in "$apt"/archives/*.deb; do dpkg-deb -x "$package" "$root"; done
rm -r "$apt"
