#!/usr/bin/env bash
# All tests but the long ones (those run in .ci/run): bash runs/test.sh [pytest arguments]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}       # two processes share the cores
exec python -m pytest -m "not long" -n 2 --dist loadfile "$@"
