#!/usr/bin/env bash
# Every table and figure of the paper, and samples judged as a distribution: bash runs/evaluate.sh [FOLDER] [WORLDS]
# nano on worlds that it never saw, beside a perfect and a collapsed generator, and nano on the real cells of COPGEN_SAMPLES.
# Run it again to go on where it ended. About two hours on 2 cores; WORLDS=4 takes a quarter of an hour.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
WORK=${1:-work-evaluate}
WORLDS=${2:-64}
CELLS=${COPGEN_SAMPLES:-$PWD/../shared/data/terramesh}
export OMP_NUM_THREADS=1

evaluate() { copgen evaluate run --workers 2 "$@"; }
evaluate --generator nano --cases "worlds:$WORLDS" --recipe recipes/evaluate-small.toml --out "$WORK/nano"
for reference in perfect collapsed; do
    evaluate --generator $reference --cases "worlds:$WORLDS" --recipe recipes/evaluate-reference.toml --out "$WORK/$reference"
done
on_worlds=("$WORK/nano" "$WORK/perfect" "$WORK/collapsed")
copgen evaluate tables "${on_worlds[@]}" --paper --out "$WORK/tables" --format md > "$WORK/tables.md"
copgen evaluate compare "$WORK/nano" "$WORK/collapsed" --format md > "$WORK/nano-or-collapsed.md"
copgen figures all "${on_worlds[@]}" --out "$WORK/figures"
for class in water trees crops "snow/ice" "bare ground"; do
    copgen generate --constant "LULC=$class" --want place --samples 50 --out "$WORK/priors" --overwrite
done
copgen figures priors "$WORK"/priors/LULC-* --out "$WORK/figures"
copgen figures architecture nano --out "$WORK/figures"
copgen evaluate report "${on_worlds[@]}" --title "nano on worlds of the synthetic Earth" --command "bash runs/evaluate.sh" --out "$WORK/report"

if [ -d "$CELLS" ]; then
    evaluate --generator nano --cases "squares:$CELLS" --recipe recipes/evaluate-small.toml --out "$WORK/cells"
    copgen evaluate tables "$WORK/cells" --paper --out "$WORK/tables-cells" --format md > "$WORK/tables-cells.md"
    copgen figures all "$WORK/cells" --out "$WORK/figures-cells"
    first=$(find "$CELLS/S2L2A" -name '*.tif' | sort | head -1)
    copgen loop --input "S2L2A=$first" --through S1RTC,S2L2A --rounds 4 --out "$WORK/loop" --overwrite
    copgen evaluate report "$WORK/cells" --title "nano on real cells" --command "bash runs/evaluate.sh" --out "$WORK/report-cells"
else
    echo "the real cells are left out: there are none in $CELLS (COPGEN_SAMPLES names their folder)"
fi
