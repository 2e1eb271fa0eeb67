"""The default recipe with fewer candidates to choose among, for tests of what surrounds it."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FEWER = {"folds": "2", "prior_scales": "[0.3]", "kl_weights": "[1.0]"}


def quick_recipe(folder):
    """Write it into a folder."""
    lines = (ROOT / "runs" / "rotated-head.toml").read_text(encoding="utf-8").splitlines()
    keys = [line.split("=")[0].strip() for line in lines]
    path = folder / "quick.toml"
    path.write_text(
        "\n".join(f"{key} = {FEWER[key]}" if key in FEWER else line for key, line in zip(keys, lines, strict=True)),
        encoding="utf-8",
    )
    return path
