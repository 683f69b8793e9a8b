#!/usr/bin/env bash
# All tests but the long ones (those run in .ci/run): bash runs/test.sh [pytest arguments]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
exec python -m pytest -m "not long" "$@"
