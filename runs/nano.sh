#!/usr/bin/env bash
# How the bundled model was made, from nothing: some three hours on two cores. Every step goes on where it was stopped.
# SAMPLES is the folder with the real files (s2-100k, mol-l1c-l2a); without it the model sees synthetic worlds only.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
WORK=${1:-work-nano}
SAMPLES=${SAMPLES:-../shared/data}
RECIPE=recipes/nano.toml
export OMP_NUM_THREADS=1

copgen synthesize --shards --seed 0 --worlds 10240 --workers 2 --out "$WORK/worlds"
real=()
if [ -d "$SAMPLES/s2-100k" ]; then
    python runs/real_squares.py --samples "$SAMPLES" --out "$WORK/real"
    real=("$WORK/real:6")
fi
codec() { copgen train-vae "$1" --recipe $RECIPE --data "$WORK/worlds" ${real[0]:+--data "${real[0]}"} --out "$WORK/vae/$1" --resume --set train_vae.how.steps="$2"; }
codec s2l2a_10m 5000
codec s2l1c_10m 4000
for row in s1rtc dem s2l1c_60m s2l2a_60m; do codec $row 3000; done
for row in s2l1c_20m s2l2a_20m; do codec $row 2500; done
codec lulc 3500
codec cloud_mask 1500
# decoders once more, in single precision: heights need it; the encoders, and so the latents, stay what they are
decoder() { copgen train-vae "$1" --recipe $RECIPE --data "$WORK/worlds" ${real[0]:+--data "${real[0]}"} --init "$WORK/vae/$1" --out "$WORK/decoder/$1" --resume \
    --precision fp32 --set train_vae.encoder=kept --set train_vae.how.learning_rate=5e-4 --set train_vae.how.steps="$2"; }
decoder dem 1500
decoder s2l2a_10m 1200
cp -r "$WORK"/vae "$WORK"/codecs && cp -r "$WORK"/decoder/* "$WORK"/codecs/
copgen encode --recipe $RECIPE --vaes "$WORK/codecs" --data "$WORK/worlds" --out "$WORK/latents"
latents=(--latents "$WORK/latents")
if [ ${#real[@]} -gt 0 ]; then
    copgen encode --recipe $RECIPE --vaes "$WORK/codecs" --data "$WORK/real" --out "$WORK/latents-real"
    latents+=(--latents "$WORK/latents-real:6")
fi
copgen train --recipe $RECIPE "${latents[@]}" --vaes "$WORK/codecs" --out "$WORK/run" --half --resume --devices 2
python benchmarks/nano.py --model "$WORK/run/model"
