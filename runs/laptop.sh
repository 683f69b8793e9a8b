#!/usr/bin/env bash
# The whole pipeline from nothing to a model folder and its evaluation, small: less than an hour on two cores.
# WORLDS, CODEC_STEPS and STEPS make it larger or smaller; every step goes on where it was stopped.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
WORK=${1:-work-laptop}
WORLDS=${WORLDS:-1536} CODEC_STEPS=${CODEC_STEPS:-250} STEPS=${STEPS:-1200}
RECIPE=recipes/nano.toml
export OMP_NUM_THREADS=1                         # two processes use two cores better than one with two threads

copgen synthesize --shards --seed 0 --worlds "$WORLDS" --workers 2 --out "$WORK/worlds"
train_codecs() {
    for row in "$@"; do
        copgen train-vae "$row" --recipe $RECIPE --data "$WORK/worlds" --out "$WORK/vae/$row" --resume --set train_vae.how.steps="$CODEC_STEPS"
    done
}
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
train_codecs s2l2a_10m s2l2a_20m s1rtc dem s2l2a_60m > "$WORK/codecs.log" &
train_codecs s2l1c_10m s2l1c_20m lulc cloud_mask s2l1c_60m
wait $!
copgen encode --recipe $RECIPE --vaes "$WORK/vae" --data "$WORK/worlds" --out "$WORK/latents"
copgen train --recipe $RECIPE --latents "$WORK/latents" --vaes "$WORK/vae" --out "$WORK/run" --half --resume --devices 2 \
    --set train.how.steps="$STEPS"
copgen codec-report "$WORK/run/model" --data synthetic:9000000..9000032 --fit "$WORK/worlds"
python benchmarks/nano.py --model "$WORK/run/model" --quick
