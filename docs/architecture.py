"""Makes docs/architecture.png, .svg, -nano.png and -beta.png, and writes the numbers of docs/architecture.md anew.

    python docs/architecture.py
"""

import io
from pathlib import Path

import matplotlib

import copgen
from copgen.figures.architecture import Plan, architecture, numbers, paper_plan, plan_of
from copgen.figures.style import paper
from copgen.modalities import THUMBNAILS

HERE = Path(__file__).parent
NANO = Path(copgen.__file__).parent / "assets" / "nano"


def main() -> None:
    page = HERE / "architecture.md"
    text = page.read_text(encoding="utf-8")
    beta = paper_plan("COP-GEN-Beta", THUMBNAILS, shared="rgb")
    for mark, plan, name in (("paper", paper_plan(), "architecture"), ("nano", plan_of(NANO), "architecture-nano"),
                             ("beta", beta, "architecture-beta")):
        before, after = f"<!-- numbers: {mark} -->\n\n", "\n\n<!-- end -->"
        start = text.index(before) + len(before)
        text = text[:start] + numbers(plan) + text[text.index(after, start - len(after)):]
        draw(plan, name)
    page.write_text(text, encoding="utf-8")


def draw(plan: Plan, name: str) -> None:
    with paper(), matplotlib.rc_context({"svg.hashsalt": name}):
        figure = architecture(plan)
        figure.savefig(HERE / f"{name}.png", dpi=200, facecolor="white", metadata={"Software": None})
        if name == "architecture":
            memory = io.BytesIO()
            figure.savefig(memory, format="svg", facecolor="white", metadata={"Date": None, "Creator": None})
            (HERE / f"{name}.svg").write_bytes(memory.getvalue())


if __name__ == "__main__":
    main()
