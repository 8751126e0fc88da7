#!/usr/bin/env bash
# go test -v without what passed: every package, and each test that was skipped
# or failed with what it said. Arguments go to go test.
set -euo pipefail
cd "$(dirname "$0")/.."
"${GO:-go}" test -v "$@" | awk '
  /^=== (RUN|CONT|NAME)/ { test = $3; next }
  /^===/ { next }
  /^ *--- (SKIP|FAIL)/ { printf "%s\n%s", $0, said[$3]; next }
  /^ *--- PASS/ { next }
  /^(ok|FAIL|\?)/ { if ($1 == "FAIL") printf "%s", said[""]; print; test = ""; delete said; next }
  /^panic:/ { test = "" }
  { said[test] = said[test] $0 "\n" }'
