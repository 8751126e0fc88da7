#!/usr/bin/env bash
# The whole command against gdb, lldb and eu-stack on the same core in one run:
#   scripts/bench.sh [CORE EXE [SYSROOT]]
# Without arguments the comparison is made on kernel cores of real servers with
# 500 connections, which the tests' server package starts for the purpose.
set -euo pipefail
paths=() # as seen from where the script was called
for p in "$@"; do paths+=("$(realpath -- "$p")"); done
cd "$(dirname "$0")/.."
[ -x bin/mycore ] || make build
if [ $# -ge 2 ]; then
  MYCORE_BENCH_CORE=${paths[0]} MYCORE_BENCH_EXE=${paths[1]} MYCORE_BENCH_SYSROOT=${paths[2]:-} \
    go test -count=1 -run '^TestCompareTools$' -v ./internal/servertest/compare
else
  MYCORE_REQUIRE_SERVERS=1 MYCORE_BENCH=1 go test -count=1 -timeout 40m -run '^TestCompareTools$' -v ./internal/servertest/compare
fi
