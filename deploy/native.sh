#!/usr/bin/env bash
# Installs what Scoregate needs from the operating system, on Debian and its relatives.
#
#   deploy/native.sh [build|redis|prometheus|test]
#
# build: what compiling and running needs. redis: that, and the redis-server that
# `make demo STORE=redis` starts. prometheus: what building needs, and the Prometheus that
# `make demo PROMETHEUS=1` starts. test (`make test`): all that, and the programs that the tests
# and the benchmarks drive. PYTHON names the interpreter (python3).
#
# Looks for the things themselves, not for packages: nothing is installed where a compiler or a
# library is there already, whoever put it there, and the check takes a fraction of a second.
# Installs with root or password-less sudo; else prints the line to type and ends with 1.
#
# Debian starts a service as it is installed, and again at every boot. Ours start a server of
# their own when they need one, so a redis-server or a prometheus that comes from here is neither
# started nor enabled; one that was there before stays as it was.
set -euo pipefail

profile=${1:-build}
python=${PYTHON:-python3}
case $profile in
    build | redis | prometheus | test) ;;
    -h | --help)
        sed -nE '2,/^set /{/^set /d;s/^# ?//p}' "${BASH_SOURCE[0]}"
        exit 0
        ;;
    *)
        echo "deploy/native.sh: unknown profile '$profile': give build, redis, prometheus or test" >&2
        exit 2
        ;;
esac

have() { command -v "$1" >/dev/null 2>&1; }

missing=()
have make || missing+=(make)
{ have cc || have gcc; } && [[ -e /usr/include/stdio.h || ! -e /etc/debian_version ]] ||
    missing+=(build-essential)
have pkg-config || missing+=(pkg-config)
# setup.py asks for the same versions.
while read -r package wanted; do
    { have pkg-config && pkg-config --exists "$wanted"; } || missing+=("$package")
done <<'EOF'
libnghttp2-dev libnghttp2 >= 1.43
liblmdb-dev lmdb >= 0.9.22
libhiredis-dev hiredis >= 0.14
libssl-dev openssl >= 3.0
EOF
if have "$python"; then
    # Four lines: who packaged the interpreter, its version, has it headers, can it make a venv.
    found=$("$python" - <<'EOF'
import importlib.util
import os
import sys
import sysconfig

print("debian" if sys.base_prefix == "/usr" else "other")
print("%d.%d" % sys.version_info[:2])
print("yes" if os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")) else "no")
print("yes" if importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip") else "no")
EOF
    )
    { read -r origin; read -r version; read -r headers; read -r venv; } <<<"$found"
    if [[ $origin == debian ]]; then
        # Named by version: python3-dev would bring headers of another one where several are there.
        [[ $headers == yes ]] || missing+=("python$version-dev")
        [[ $venv == yes ]] || missing+=("python$version-venv")
    elif [[ $headers == no || $venv == no ]]; then
        echo "deploy/native.sh: $(command -v "$python") comes without Python.h, venv or ensurepip." >&2
        echo "Use another interpreter: make PYTHON=/usr/bin/python3" >&2
        exit 1
    fi
else
    if [[ $python != python3 ]]; then
        echo "deploy/native.sh: there is no $python; set PYTHON to Python 3.11 or newer" >&2
        exit 1
    fi
    missing+=(python3 python3-dev python3-venv)
fi
if [[ $profile == redis || $profile == test ]]; then
    have redis-server || missing+=(redis-server)
fi
if [[ $profile == prometheus || $profile == test ]]; then
    # With promtool: rules and dashboards are tried on a real one.
    have prometheus || missing+=(prometheus)
fi
if [[ $profile == test ]]; then
    have h2load || missing+=(nghttp2-client)
    have openssl || missing+=(openssl)
    have curl || missing+=(curl)
    have valgrind || missing+=(valgrind)
    # The report is looked at in a real browser; without fonts it would be looked at in vain.
    have chromium || have chromium-browser || missing+=(chromium fonts-dejavu-core)
fi

((${#missing[@]})) || exit 0

line="apt-get install -y --no-install-recommends ${missing[*]}"
if ! have apt-get; then
    echo "deploy/native.sh: missing: ${missing[*]} (as Debian names them)." >&2
    echo "There is no apt-get here: install them with this system's package manager." >&2
    exit 1
fi
if ((EUID == 0)); then
    root=()
elif have sudo && sudo -n true 2>/dev/null; then
    root=(sudo -n)
else
    # With the lists refreshed: those of a new machine are often older than the archive, or absent.
    if have sudo; then
        why="This is not root, and sudo asks for a password" as="sudo "
    else
        why="This is not root, and there is no sudo; as root" as=
    fi
    echo "deploy/native.sh: missing: ${missing[*]}. $why: type" >&2
    echo "  ${as}apt-get update && $as$line" >&2
    echo "and then the same again." >&2
    exit 1
fi

apt() {
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get -q -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@"
}
known() {
    local package
    for package in "${missing[@]}"; do
        apt-cache show "$package" >/dev/null 2>&1 || return 1
    done
}
fetch() { apt install -y --no-install-recommends "${missing[@]}"; }

# Packages that start a service, which is then named like them.
services=()
for package in "${missing[@]}"; do
    case $package in redis-server | prometheus) services+=("$package") ;; esac
done
policy=/usr/sbin/policy-rc.d
mark="Made by Scoregate's deploy/native.sh while it installs; a left-over one can be removed."
# Has dpkg start none of `services`. A policy that is the machine's own stays.
deny_starts() {
    [[ ! -e $policy ]] || grep -qsF "$mark" "$policy" || return 0
    ours=$(mktemp)
    cat >"$ours" <<EOF
#!/bin/sh
# $mark
for word in "\$@"; do
    case \$word in $(IFS='|' && echo "${services[*]/%/*}")) exit 101 ;; esac
done
EOF
    chmod 755 "$ours"
    "${root[@]}" cp "$ours" "$policy"
}
# Whatever happened: starts are allowed again, and no service of ours is started at boot.
clean_up() {
    local service
    if [[ -n $ours ]]; then
        rm -f "$ours"
        "${root[@]}" rm -f "$policy"
    fi
    for service in "${services[@]}"; do
        have "$service" || continue
        if [[ -d /run/systemd/system ]]; then
            "${root[@]}" systemctl --quiet disable --now "$service"
        elif have systemctl; then
            "${root[@]}" systemctl --quiet disable "$service"
        else
            "${root[@]}" env PATH="$PATH:/usr/sbin:/sbin" update-rc.d "$service" disable
        fi || echo "deploy/native.sh: $service is installed, but could not be disabled" >&2
    done
}

echo "Installing ${missing[*]}"
if ((${#services[@]})); then
    ours=
    trap clean_up EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    deny_starts
fi
updated=
known || { apt update && updated=yes; }
# Lists may be older than what the archive still holds: refresh them once.
if ! fetch; then
    if [[ -n $updated ]] || ! { apt update && fetch; }; then
        echo "deploy/native.sh: apt-get failed; see above, then type: ${root[*]:+sudo }$line" >&2
        exit 1
    fi
fi
