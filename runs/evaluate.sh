#!/usr/bin/env bash
# Every table and figure of the paper, and samples judged as a distribution: bash runs/evaluate.sh [FOLDER] [WORLDS]
# nano on worlds that it never saw, beside a perfect and a collapsed generator, and nano on the real cells of COPGEN_SAMPLES.
# Run it again to go on where it ended. Hours on 2 cores; QUICK=1 asks little of 3 worlds, in minutes, and gives no figure to quote.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
WORK=${1:-work-evaluate}
WORLDS=${2:-64} RECIPE=recipes/evaluate-small.toml SAMPLES=16 PLACES=50 RESAMPLING=bank LOOKED=1024
[ -z "${QUICK:-}" ] || WORLDS=3 RECIPE=recipes/evaluate-reference.toml SAMPLES=6 PLACES=10 RESAMPLING=exact LOOKED=8
CELLS=${COPGEN_SAMPLES:-$PWD/../shared/data/terramesh}
export OMP_NUM_THREADS=1

evaluate() { copgen evaluate run --workers 2 --set "samples=$SAMPLES" "$@"; }
worlds="worlds:$WORLDS,resampling=$RESAMPLING"
# nano was trained on worlds 0 to 10239
evaluate --generator nano --cases "$worlds" --recipe $RECIPE --training "worlds:$LOOKED@0" --held-out "worlds:$LOOKED@20000000" --out "$WORK/nano"
for reference in perfect collapsed; do
    evaluate --generator "$reference,resampling=$RESAMPLING" --cases "$worlds" --recipe recipes/evaluate-reference.toml --out "$WORK/$reference"
done
on_worlds=("$WORK/nano" "$WORK/perfect" "$WORK/collapsed")
copgen evaluate tables "${on_worlds[@]}" --paper --out "$WORK/tables" --format md > "$WORK/tables.md"
copgen evaluate compare "$WORK/nano" "$WORK/collapsed" --format md > "$WORK/nano-or-collapsed.md"
copgen figures all "${on_worlds[@]}" --out "$WORK/figures"
for class in water trees crops "snow/ice" "bare ground"; do
    copgen generate --constant "LULC=$class" --want place --samples $PLACES --out "$WORK/priors" --overwrite
done
copgen figures priors "$WORK"/priors/LULC-* --out "$WORK/figures"
copgen figures architecture nano --out "$WORK/figures"
copgen evaluate report "${on_worlds[@]}" --title "nano on worlds of the synthetic Earth" --command "bash runs/evaluate.sh" --out "$WORK/report"

if [ -d "$CELLS" ]; then
    evaluate --generator nano --cases "squares:$CELLS" --recipe $RECIPE --out "$WORK/cells"
    copgen evaluate tables "$WORK/cells" --paper --out "$WORK/tables-cells" --format md > "$WORK/tables-cells.md"
    copgen figures all "$WORK/cells" --out "$WORK/figures-cells"
    first=$(find "$CELLS/S2L2A" -name '*.tif' | sort | head -1)
    copgen loop --input "S2L2A=$first" --through S1RTC,S2L2A --rounds 4 --out "$WORK/loop" --overwrite
    copgen evaluate report "$WORK/cells" --title "nano on real cells" --command "bash runs/evaluate.sh" --out "$WORK/report-cells"
else
    echo "the real cells are left out: there are none in $CELLS (COPGEN_SAMPLES names their folder)"
fi
