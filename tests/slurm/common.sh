# Sourced by the scripts that start a SLURM for tests: packages, munged, waiting. They set $lab, the folder of its state.

die() { echo "$(basename "$0"): $*" >&2; exit 1; }

until_true() { # until_true SECONDS COMMAND...
  local end=$((SECONDS + $1)); shift
  until "$@" >/dev/null 2>&1; do [ $SECONDS -lt $end ] || return 1; sleep 0.2; done
}

running() { [ -s "$lab/$1.pid" ] && [ "$(cat "/proc/$(cat "$lab/$1.pid")/comm" 2>/dev/null)" = "$1" ]; }

install_packages() { # install_packages NAME...
  local missing=() name
  for name in "$@"; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || missing+=("$name")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || die "no apt-get: install ${missing[*]} by hand"
  export DEBIAN_FRONTEND=noninteractive
  # Packages start their services when installed; this answers "not allowed" for the time being.
  local policy=/usr/sbin/policy-rc.d ours=
  if [ ! -e $policy ]; then ours=1; printf '#!/bin/sh\nexit 101\n' >$policy; chmod +x $policy; fi
  apt-get update -qq >/dev/null 2>&1 || true
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null 2>&1 || { [ -z $ours ] || rm -f $policy; die "cannot install ${missing[*]}"; }
  [ -z $ours ] || rm -f $policy
}

start_munge() {
  install -d -o munge -g munge -m 0755 /run/munge
  install -d -o munge -g munge -m 0700 /etc/munge /var/lib/munge /var/log/munge
  if [ ! -s /etc/munge/munge.key ]; then head -c 1024 /dev/urandom >/etc/munge/munge.key; fi
  chown munge:munge /etc/munge/munge.key
  chmod 400 /etc/munge/munge.key
  if ! munge -n 2>/dev/null | unmunge >/dev/null 2>&1; then runuser -u munge -- munged --force; fi
  until_true 10 sh -c 'munge -n | unmunge' || die "munge does not answer"
}
