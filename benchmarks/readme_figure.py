"""Draw the README's figure anew: ``python -m benchmarks.readme_figure`` trains the main job and saves it."""

from __future__ import annotations

from PIL import Image

import layerwise
from benchmarks.measuring import CHECKOUT
from layerwise import figures

IMAGE = CHECKOUT / "docs" / "images" / "accuracy-by-depth.png"


def main() -> None:
    """Train the study over all its seeds, in this process, and draw accuracy by depth."""
    result = layerwise.run(layerwise.load("blobs-supervised"))
    IMAGE.parent.mkdir(parents=True, exist_ok=True)
    figures.save(figures.score_by_depth(result.metrics(), result.table()), str(IMAGE))
    # Few colours are in it: a palette takes a quarter of the bytes.
    with Image.open(IMAGE) as drawn:
        drawn.convert("RGB").quantize(64).save(IMAGE, optimize=True)
    print(IMAGE.relative_to(CHECKOUT))


if __name__ == "__main__":
    main()
