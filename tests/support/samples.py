"""A source file of each language, by the name that it would have."""

from pathlib import Path

SAMPLES = {
    path.stem: path.read_text("utf-8") for path in (Path(__file__).parents[1] / "data" / "samples").iterdir()
}
