#!/usr/bin/env bash
# How the bundled model was made, from nothing: about three hours on two cores. Every step goes on where it was stopped.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
WORK=${1:-work-nano}
RECIPE=recipes/nano.toml

copgen synthesize --shards --recipe $RECIPE --seed 0 --worlds 2560 --workers 2 --out "$WORK/codec-worlds"
for row in dem lulc cloud_mask s1rtc s2l1c_10m s2l1c_20m s2l1c_60m s2l2a_10m s2l2a_20m s2l2a_60m; do
    case $row in s2*_10m) steps=2000 ;; *) steps=1200 ;; esac
    copgen train-vae $row --recipe $RECIPE --data "$WORK/codec-worlds" --out "$WORK/vae/$row" --resume --set train_vae.how.steps=$steps
done
copgen encode --recipe $RECIPE --vaes "$WORK/vae" --data synthetic:2560..11776 --workers 2 --out "$WORK/latents"
data=(--latents "$WORK/latents" --vaes "$WORK/vae" --half --resume)
copgen train --recipe recipes/nano-first.toml "${data[@]}" --out "$WORK/first" --stop 2000
copgen train --recipe recipes/nano-second.toml "${data[@]}" --init "$WORK/first/model" --out "$WORK/second"
copgen train --recipe recipes/nano-third.toml "${data[@]}" --init "$WORK/second/model" --out "$WORK/third"
copgen train --recipe $RECIPE "${data[@]}" --init "$WORK/third/model" --out "$WORK/run"
python benchmarks/nano.py --model "$WORK/run/model"
