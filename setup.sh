#!/usr/bin/env bash
# Sets up everything that `make run` and `make test` need: .venv with the pinned packages, this project in it, and a
# Chromium. Safe to call at any time: when all is in place it returns at once, and a set-up that was interrupted is
# completed by the next call, because the stamp that says "done" is written last.
#
#   PYTHON=/path/to/python3.11   the interpreter to build .venv from (3.11 or newer)
#   DPO_DRIVER_CHROMIUM=/path    a Chromium of your own
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
ROOT=$PWD
VENV=$ROOT/.venv
STAMP=$VENV/.dpo-driver-setup # line 1: what was installed; line 2: the Chromium that was found

say() { printf '\033[1m[setup]\033[0m %s\n' "$*"; }
die() { printf '\033[1;31m[setup]\033[0m %s\n' "$*" >&2; exit 1; }
is_root_on_debian() { [[ $(id -u) == 0 && -f /etc/debian_version ]] && command -v apt-get >/dev/null; }

apt_install() { # quiet, never asks, gives up rather than wait for ever on another apt
  say "apt-get install $*"
  export DEBIAN_FRONTEND=noninteractive
  local apt=(apt-get -q -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
  "${apt[@]}" install --no-install-recommends "$@" >/dev/null 2>&1 && return
  "${apt[@]}" update >/dev/null && "${apt[@]}" install --no-install-recommends "$@" >/dev/null
}

fingerprint() { cat requirements.txt pyproject.toml setup.sh <(echo "$ROOT") | sha256sum | cut -d' ' -f1; }

is_done() {
  [[ -f $STAMP && -x $VENV/bin/python && -x $VENV/bin/dpo-driver ]] || return 1
  local lines
  mapfile -t lines <"$STAMP"
  [[ ${#lines[@]} == 2 && ${lines[0]} == "$(fingerprint)" && -x ${lines[1]} ]]
}

find_python() {
  local candidate
  for candidate in ${PYTHON:-} python3.11 python3 python3.12 python3.13; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  die "no Python 3.11 or newer found; install one (Debian 12: apt-get install python3 python3-venv) or set PYTHON=..."
}

make_venv() {
  local python version
  python=$(find_python)
  if ! "$python" -c 'import ensurepip' 2>/dev/null; then # Debian packs venv apart from Python
    version=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    is_root_on_debian || die "this Python cannot make virtual environments; run as root: apt-get install $version"
    apt_install "$version" || die "apt-get could not install $version"
  fi
  say "making .venv with $("$python" --version)"
  "$python" -m venv --clear "$VENV"
}

venv_works() { # a folder that was moved keeps the old path in its scripts
  "$VENV/bin/python" -m pip --version >/dev/null 2>&1 && grep -qF "$VENV" "$VENV/bin/activate"
}

drop_half_installed() { # pip writes INSTALLER last but one: without it a package is not all there, though pip thinks so
  local info
  for info in "$VENV"/lib/python3*/site-packages/*.dist-info; do
    [[ ! -d $info || -f $info/INSTALLER ]] || rm -rf "$info"
  done
}

install_packages() {
  say "installing $(grep -c == requirements.txt) pinned packages (about 2 GB on disk; minutes the first time)"
  local pip=("$VENV/bin/python" -m pip --disable-pip-version-check --no-input)
  "${pip[@]}" install --quiet --progress-bar off -r requirements.txt \
    || die "pip failed; mend the cause above (network? disk?) and run the same command again"
  "${pip[@]}" install --quiet --no-deps --no-build-isolation -e . || die "this project could not be installed into .venv"
}

find_chromium() { "$VENV/bin/python" -c 'from dpo_driver.browser.chromium import find_chromium as f; print(f())' 2>/dev/null; }

install_chromium() {
  if is_root_on_debian && { apt_install chromium-headless-shell || apt_install chromium; }; then
    find_chromium >/dev/null && return
  fi
  say "installing Chromium with Playwright (about 100 MB)"
  "$VENV/bin/playwright" install chromium --only-shell || true
}

if is_done; then exit 0; fi
if command -v flock >/dev/null; then # two calls at once: the second waits, then finds the work done
  exec 9>"$ROOT/.setup.lock"
  flock -w 1800 9 || die "another set-up has been running for 30 minutes; stop it first"
  if is_done; then exit 0; fi
fi

started=$SECONDS
rm -f "$STAMP"
venv_works || make_venv
drop_half_installed
install_packages
find_chromium >/dev/null || install_chromium
chromium=$(find_chromium) || die "no Chromium. Do one of these and run the same command again:
  as root on Debian or Ubuntu:  apt-get install chromium
  anywhere:                     .venv/bin/playwright install chromium --with-deps
  or point to your own:         export DPO_DRIVER_CHROMIUM=/path/to/chromium"
printf '%s\n%s\n' "$(fingerprint)" "$chromium" >"$STAMP.new"
sync "$STAMP.new"
mv "$STAMP.new" "$STAMP"
say "ready in $((SECONDS - started)) s (Chromium: $chromium)"
