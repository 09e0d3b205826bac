"""``earlytom models``: which model families can be compressed."""

from __future__ import annotations

from earlytom.cli.display import cell, output, print_json, table
from earlytom.cli.options import JsonOption
from earlytom.models import FAMILIES, family_names
from earlytom.shipped import shipped_model

__all__ = ["models"]


def models(as_json: JsonOption = False) -> None:
    """List the model families that can be compressed, and where the shipped test model lies."""
    families = [
        {"model_type": name, "classes": list(FAMILIES[name].classes) if name in FAMILIES else None}
        for name in family_names()
    ]
    present = (shipped_model() / "config.json").is_file()
    if as_json:
        print_json({"families": families, "shipped": {"path": str(shipped_model()), "present": present}})
        return
    made = table(["model type", "transformers class"], title="Model families")
    for family in families:
        classes = family["classes"]
        named = ", ".join(classes) if isinstance(classes, list) else "from another package"
        made.add_row(cell(family["model_type"], "bold"), cell(named))
    console = output()
    console.print(made)
    console.print(f"Shipped test model: {shipped_model()}" + ("" if present else " (missing)"), soft_wrap=True)
    console.print("--model takes a local folder or a hub id, such as llava-hf/llava-onevision-qwen2-7b-ov-hf.")
