"""Training of the test model from nothing: ``python -m earlytom.testbed.train --output DIR``.

Two stages, the encoder on single frames (or pairs, where that is what the architecture encodes) and then the language
model on growing clips; the state is saved every two minutes, and ``--resume`` goes on from there. Data, order and
initial weights follow from fixed seeds; how many steps fit into the minutes depends on the machine.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, ProcessorMixin

from earlytom.testbed.architectures import (
    ARCHITECTURES,
    DEFAULT_ARCHITECTURE,
    Architecture,
    find_architecture,
    output_file,
)
from earlytom.testbed.checkpoint import load_checkpoint, save_checkpoint
from earlytom.testbed.course import FROM_CHECKPOINT, FROM_LANGUAGE_MODEL, FROM_NOTHING, Course
from earlytom.testbed.starting import is_of, start_from
from earlytom.testbed.training_encoder import train_encoder
from earlytom.testbed.training_language import train_language

CURVE_NAME = "training_curve"


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and train."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    options.output.mkdir(parents=True, exist_ok=True)
    train(find_architecture(options.architecture), options, device)


def train(architecture: Architecture, options: argparse.Namespace, device: torch.device) -> None:
    """Run both stages and write the checkpoint and the training curve."""
    torch.manual_seed(0)
    encoder = architecture.build_encoder().to(device)
    course = _course(architecture, options.start)
    if course is FROM_CHECKPOINT:
        encoder.load_state_dict(architecture.encoder(load_checkpoint(options.start)[0]).state_dict())
    curve = train_encoder(
        architecture,
        encoder,
        options.output,
        options.encoder_minutes,
        options.resume,
        device,
        fresh=course is not FROM_CHECKPOINT,
    )
    processor = architecture.build_processor()
    model = architecture.build_model(processor.tokenizer).to(device)
    if options.start:
        start_from(model, processor.tokenizer, options.start)
    architecture.encoder(model).load_state_dict(encoder.state_dict())
    folders = [options.output / "checkpoint", *([architecture.folder] if options.install else [])]

    def export() -> None:
        _export(model, processor, folders)

    language_minutes = options.minutes - options.encoder_minutes
    curve = curve + train_language(
        architecture,
        model,
        processor.tokenizer,
        options.output,
        language_minutes,
        options.resume,
        device,
        export,
        course,
    )
    _write_curve(options.output / f"{CURVE_NAME}.json", curve)
    if options.install:
        _write_curve(output_file(CURVE_NAME, architecture.name), curve)


def _course(architecture: Architecture, start: Path | None) -> Course:
    """Return how the second stage goes, by what training starts from."""
    if start is None:
        return FROM_NOTHING
    return FROM_CHECKPOINT if is_of(start, architecture.name) else FROM_LANGUAGE_MODEL


def _export(model: PreTrainedModel, processor: ProcessorMixin, folders: list[Path]) -> None:
    """Save the model as it stands into every folder."""
    for folder in folders:
        save_checkpoint(model, processor, folder)


def _write_curve(path: Path, curve: list[dict[str, Any]]) -> None:
    """Write the training curve as JSON, atomically."""
    temporary = path.with_suffix(".partial")
    temporary.write_text(json.dumps(curve, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def _parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = argparse.ArgumentParser(prog="python -m earlytom.testbed.train", description="Train the test model.")
    parser.add_argument("--output", type=Path, required=True, help="folder for the saved state and the checkpoint")
    parser.add_argument(
        "--architecture", choices=list(ARCHITECTURES), default=DEFAULT_ARCHITECTURE, help="what kind of model to train"
    )
    parser.add_argument("--minutes", type=float, default=102.0, help="training time of both stages together")
    parser.add_argument("--encoder-minutes", type=float, default=13.0, help="part of it for the encoder")
    parser.add_argument(
        "--start",
        type=Path,
        help="folder of a trained checkpoint to start from instead of nothing; one of another architecture gives its "
        "language model",
    )
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    parser.add_argument("--resume", action="store_true", help="go on from the state in the output folder")
    parser.add_argument("--install", action="store_true", help="also replace the checkpoint inside this package")
    return parser


if __name__ == "__main__":
    main()
