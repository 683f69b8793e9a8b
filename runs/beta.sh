#!/usr/bin/env bash
# How the small model of thumbnails is made, from nothing: cells of the synthetic Earth, their thumbnails, one codec, the backbone; some four
# hours on two cores. QUICK=1 shows in minutes that it runs. Every step goes on where it was stopped.
# bash runs/beta.sh [FOLDER] [ARCHIVE]: with an archive of your own that is taken instead of synthetic cells.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
WORK=${1:-work-beta}
ARCHIVE=${2:-$WORK/archive}
RECIPE=recipes/beta-nano.toml
WORLDS=${QUICK:+2} CODEC_STEPS=${QUICK:+20} STEPS=${QUICK:+20} CALLS=${QUICK:+3}   # worlds by each of the two processes that make them
WORLDS=${WORLDS:-200} CODEC_STEPS=${CODEC_STEPS:-4000} STEPS=${STEPS:-4000} CALLS=${CALLS:-15}
TRAIN=${QUICK:+0.75} CELLS=${QUICK:+2}
export OMP_NUM_THREADS=1                         # two processes use two cores better than one with two threads

if [ $# -lt 2 ]; then
    trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
    copgen synthesize --archive --seed 5000001 --worlds "$WORLDS" --out "$ARCHIVE" &
    copgen synthesize --archive --seed 5100001 --worlds "$WORLDS" --out "$ARCHIVE"
    wait $!
fi
[ -f "$WORK/split/train.txt" ] || copgen split --archive "$ARCHIVE" --how shuffled --train "${TRAIN:-0.9}" --out "$WORK/split"
head -n "${CELLS:-60}" "$WORK/split/train.txt" > "$WORK/codec-cells.txt"           # of sixteen patches, 12 MB each
encode() { copgen encode --archive "$ARCHIVE" --recipe $RECIPE --cells-per-shard 4 --devices 2 "$@"; }
encode --layers --cells-file "$WORK/codec-cells.txt" --out "$WORK/layers"
copgen train-vae rgb --recipe $RECIPE --data "$WORK/layers" --out "$WORK/vae/rgb" --resume --set train_vae.how.steps="$CODEC_STEPS"
encode --vaes "$WORK/vae" --cells-file "$WORK/split/train.txt" --out "$WORK/latents"
train() { copgen train --recipe $RECIPE --latents "$WORK/latents" --vaes "$WORK/vae" --half --resume --devices 2 "$@"; }
# L1C tells nearly all of L2A: first without it, so that radar and relief are learnt, too
train --out "$WORK/first" --set 'table.rows=["DEM","S1RTC","S2L2A"]' --set train.how.steps="$STEPS"
train --out "$WORK/run" --init "$WORK/first/model" --set train.how.steps="$STEPS"
copgen generate --model "$WORK/run/model" --archive "$ARCHIVE" --cells-file "$WORK/split/test.txt" --given DEM,S1RTC --want S2L2A \
    --samples 3 --steps "$CALLS" --devices 2 --out "$WORK/samples"
