#!/usr/bin/env bash
# From a fresh clone to samples on disk: installs, makes a synthetic place, and draws what the satellites might have seen there.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
OUT=${1:-out/demo}

# A place of which only the terrain, the land cover and the date (in the files' tags) are known; any GeoTIFFs of yours do as well.
copgen synthesize --seed 10000007 --out "$OUT/world" --overwrite
WORLD="$OUT/world/world-10000007"

copgen generate --model nano --input "DEM=$WORLD/DEM.tif" --input "LULC=$WORLD/LULC.tif" \
    --want S2L2A,S1RTC --samples 4 --seed 0 --out "$OUT" --overwrite
