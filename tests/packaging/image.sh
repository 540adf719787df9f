#!/usr/bin/env bash
# Carries out the Dockerfile without a container engine: ./dev image. Needs Linux, root and debootstrap.
#
# Each RUN of the stages `build` and `base` runs as it stands: the first in a copy of the build context, with this machine's
# compiler, the second in a fresh Debian of the same release. Then the program runs there as the image's user, on a root that
# cannot be written to, and is asked what the health check asks.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
readonly target=${CARGO_TARGET_DIR:-$PWD/target}
readonly work=$target/image root=$target/image/root

say() { printf '\n== %s\n' "$*" >&2; }
fail() {
  printf './dev image: %s\n' "$*" >&2
  exit 1
}

# The RUN of a stage, on one line, without its mounts.
run_of() {
  awk -v stage="$1" '
    /^FROM / { inside = ($NF == stage) }
    inside && /^RUN / { on = 1; sub(/^RUN /, "") }
    on { line = line $0; if (sub(/\\$/, "", line)) next; print line; exit }
  ' Dockerfile | sed 's/--mount=[^ ]* *//g'
}

# What the last stages set, such as: value_of USER
value_of() { sed -n "s/^$1 //p" Dockerfile | tail -n 1; }

[[ $(id -u) -eq 0 ]] || fail "be root: it makes a root directory of its own"
command -v debootstrap >/dev/null || fail "install debootstrap first"
rm -rf "$work"
mkdir -p "$work/src" "$work/out"

say "Stage build: $(run_of build)"
git ls-files -z --cached --others --exclude-standard | tar --null --files-from=- --ignore-failed-read -cf - |
  tar -xf - -C "$work/src" --anchored --exclude-from=<(grep -v '^#' .dockerignore)
mkdir -p "$target"
ln -s "$target" "$work/src/target"
commands=$(run_of build)
(cd "$work/src" && env -u CARGO_TARGET_DIR bash -ec "${commands//\/out/$work/out}")

say "Stage base: $(run_of base)"
suite=bookworm
grep -q '^FROM debian:12\.' Dockerfile || fail "say which release of Debian the image is made from"
debootstrap --variant=minbase "$suite" "$root" http://deb.debian.org/debian >"$work/debootstrap.log" 2>&1 ||
  fail "debootstrap failed: $work/debootstrap.log"
cp /etc/resolv.conf /etc/hosts "$root/etc/"
chroot "$root" sh -ec "$(run_of base)" >"$work/base.log" 2>&1 || fail "RUN failed: $work/base.log"
cp "$work/out/settle" "$root/usr/local/bin/"

user=$(value_of USER)
directory=$(value_of WORKDIR)
say "Running as $user on a root that is read-only"
[[ $(stat -c %u:%g "$root$directory") == "$user" ]] || fail "$directory does not belong to $user"
# shellcheck disable=SC2016 # the inner shell expands
unshare --mount bash -euo pipefail -c '
  mount --bind "$1" "$1"
  mount -t tmpfs -o "mode=0755,uid=${2%:*},gid=${2#*:}" tmpfs "$1$3"
  mount -t tmpfs tmpfs "$1/tmp"
  mount -o remount,bind,ro "$1"
  inside() { chroot --userspec="$2" "$1" env -i "HOME=$3" PATH=/usr/local/bin:/usr/bin:/bin "SETTLE_STATE__DIRECTORY=$3" "${@:4}"; }
  ! inside "$@" sh -c "touch /etc/written" 2>/dev/null
  inside "$@" sh -c "touch \"\$HOME/written\""
  inside "$@" settle --version
  inside "$@" settle config check
  # Nobody runs: the answer is no, and in time.
  ! inside "$@" timeout 4 settle health
  [[ $(inside "$@" sh -c "timeout 4 settle health 2>/dev/null; echo \$?") == 1 ]]
  # Without Kafka it ends by itself, and says why.
  [[ $(inside "$@" sh -c "timeout 60 settle run >/dev/null 2>&1; echo \$?") == 69 ]]
  inside "$@" ls "$3"
' image "$root" "$user" "$directory"
say "The image would be built and would run."
