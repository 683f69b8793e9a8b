#!/usr/bin/env bash
# From an archive to a training, small: two cells of the synthetic Earth, or an archive of your own: bash runs/data.sh [FOLDER] [ARCHIVE]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
WORK=${1:-work-data}
ARCHIVE=${2:-$WORK/archive}
export OMP_NUM_THREADS=1

[ $# -ge 2 ] || copgen synthesize --archive --cells 618U_30L,38D_378R --out "$ARCHIVE"
[ -f "$WORK/split/train.txt" ] || copgen split --archive "$ARCHIVE" --how shuffled --train 1 --out "$WORK/split"
copgen encode --archive "$ARCHIVE" --cells-file "$WORK/split/train.txt" --model nano --cells-per-shard 1 --devices 2 --out "$WORK/latents"
copgen latents info "$WORK/latents" --model nano
copgen latents verify "$WORK/latents" --model nano
copgen latents sample "$WORK/latents" --archive "$ARCHIVE" --out "$WORK/latents.png" --overwrite
copgen train --recipe recipes/nano.toml --latents "$WORK/latents" --vaes nano --workers 1 --out "$WORK/run" --resume --set train.how.steps=10
copgen generate --archive "$ARCHIVE" --cells all --given DEM,LULC --want S2L2A --steps 4 --devices 2 --out "$WORK/samples"
