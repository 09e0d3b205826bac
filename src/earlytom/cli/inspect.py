"""``earlytom inspect``: what compression does to a video, as text and as a picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from earlytom.cli import choices, options
from earlytom.cli.display import cell, frame_counts, note, output, print_json, status, table
from earlytom.cli.session import Session, describe_device, open_session
from earlytom.errors import shortened

if TYPE_CHECKING:
    from rich.console import Console

    from earlytom.runtime.pipeline import Answer
    from earlytom.trace import CellRecord, Trace, VideoTrace

__all__ = ["inspect"]


def inspect(
    video: options.VideoArgument,
    question: Annotated[
        str, typer.Option("--question", help="Question in the prompt; most methods do not look at it.")
    ] = "What happens in the video?",
    picture: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Write a picture (PNG): frames with dropped tokens dimmed, segments, attention where the method "
            "looks at it.",
            show_default=False,
        ),
    ] = None,
    model: options.ModelOption = None,
    device: options.DeviceOption = "auto",
    dtype: options.DtypeOption = options.DtypeName.auto,
    attention: options.AttentionOption = None,
    method: options.MethodOption = "earlytom",
    retention: options.RetentionOption = None,
    visual_tokens: options.VisualTokensOption = None,
    preset: options.PresetOption = None,
    frames: options.FramesOption = None,
    fps: options.FpsOption = None,
    max_frames: options.MaxFramesOption = None,
    spacing: options.SpacingOption = options.SpacingName.by_index,
    near: options.NearOption = 0.0,
    decoder: options.DecoderOption = options.DecoderName.pyav,
    max_pixels: options.MaxPixelsOption = None,
    max_bytes: options.MaxBytesOption = None,
    shrink_to: options.ShrinkOption = None,
    damage_tolerance: options.DamageOption = 0.0,
    as_json: options.JsonOption = False,
) -> None:
    """Show what a method does to a VIDEO: merged frames, segments, kept tokens.

    Where the vision encoder takes a pair of frames as one temporal grid (Qwen models), it is grids that merge and that
    keep tokens; the sampled frames that they were made of are told.

    Example:

      earlytom inspect clip.mp4 --retention 0.1 --output clip.png
    """
    if picture is not None and picture.suffix.lower() != ".png":
        raise typer.BadParameter(f"must end in .png, got {shortened(picture.name)}", param_hint="'--output'")
    chosen = choices.build_method(method, retention, preset, visual_tokens)
    limits = (max_pixels, max_bytes, shrink_to)
    clip = choices.choose_clip(
        video,
        frames,
        fps,
        max_frames,
        decoder,
        *limits,
        spacing=spacing,
        damage_tolerance=damage_tolerance,
        near=near,
    )
    if picture is not None:
        from earlytom.viz.inspect import check_matplotlib, check_writable

        check_matplotlib()
        check_writable(picture)
    choice = choices.ModelChoice(path=model, device=device, dtype=dtype, attention=attention)
    session = open_session(choice, clip)
    for text in session.notes:
        note(text)
    with status("looking at the video"):
        answer = session.qa.ask(session.video, question, method=chosen, max_new_tokens=1)
    if picture is not None:
        _draw(session, answer.trace, picture)
    if as_json:
        head = {"video": str(video), "model": model or "shipped", "device": describe_device(session.qa)}
        print_json(head | answer.trace.to_dict() | _by_grid(answer) | {"picture": picture and str(picture)})
        return
    _show(output(), answer, picture)


def _draw(session: Session, trace: Trace, path: Path) -> None:
    from earlytom.viz.inspect import draw_clip, write_png

    with status("drawing"):
        title = f"{Path(session.video.source).name}   {trace.method}"
        write_png(draw_clip(session.video.frames, trace.videos[0], title=title), path)


def _show(console: Console, answer: Answer, picture: Path | None) -> None:
    trace, clip = answer.trace, answer.trace.videos[0]
    unit = "frame" if answer.temporal_grids == answer.frames else "temporal grid"
    console.print(_describe_clip(clip.source))
    console.print(f"Method: {trace.method}", soft_wrap=True)
    if clip.stepped_aside:
        console.print(f"Left uncompressed: {clip.stepped_aside}.")
    if clip.merges:
        console.print(_merge_table(clip, unit))
    if clip.cells:
        console.print(_describe_cells(clip.cells, unit))
    console.print(_grid_table(clip, answer.frames, unit))
    kept, whole = clip.tokens, clip.grid.tokens
    console.print(
        f"Kept {kept} of {whole} visual tokens ({kept / whole:.1%}), budget {clip.budget}; "
        f"{frame_counts(answer)}; "
        f"{clip.grid.rows} x {clip.grid.columns} tokens a {unit}; prefill {trace.last.prefill_tokens} tokens."
    )
    for step in trace.last.language:
        console.print(
            f"Inside the language model, before layer {step.layer}: "
            f"{sum(step.tokens_before)} -> {sum(step.tokens_after)} visual tokens, newline embeddings counted."
        )
    console.print(f"Picture: {picture}" if picture else "Picture: none; --output FILE.png draws one.", soft_wrap=True)


def _describe_cells(record: CellRecord, unit: str) -> str:
    """How many cells of each ``unit`` went on alone, in a sentence."""
    return (
        f"{record.cells_after} of the {record.cells_before} cells of each {unit} went on behind layer {record.layer} "
        "of the vision encoder."
    )


def _describe_clip(source: Mapping[str, object]) -> str:
    indices = cast("list[int]", source["frame_indices"])
    rate = source["source_fps"]
    clock = f" at {cast(float, rate):.4g} frames a second" if rate else ""
    scaled = source.get("scaled_from")
    smaller = ", scaled down from {}x{} as decoded".format(*cast("list[int]", scaled)) if scaled else ""
    tones = f", HDR ({source['hdr']}) without tone mapping" if source["hdr"] else ""
    width, height = cast("list[int]", source["pixel_aspect"])
    squeezed = f", pixels of {width}:{height} left as they are" if width != height else ""
    left = f"{smaller}{tones}{squeezed}"
    return (
        f"{source['source']}: {source['source_frames']} frames{clock}, read with {source['decoder']}{left}\n"
        f"{len(indices)} frames sampled{_describe_deviations(source)}: {', '.join(map(str, indices))}"
    )


def _describe_deviations(source: Mapping[str, object]) -> str:
    off = [abs(seconds) for seconds in cast("list[float]", source.get("frame_deviations", []))]
    return f" near those asked for, {sum(off) / len(off):.2f} s off on average, {max(off):.2f} at most" if off else ""


def _merge_table(clip: VideoTrace, unit: str) -> Any:
    columns = ["after layer", f"{unit}s", "tau_seg", f"segments (of the {unit}s before)"]
    made = table(columns, title=f"{unit.capitalize()} merging")
    for merge in clip.merges:
        threshold = merge.details.get("tau_seg")
        made.add_row(
            cell(merge.layer),
            cell(f"{merge.grids_before} -> {merge.grids_after}"),
            cell(f"{threshold:.3f}" if isinstance(threshold, float | int) else "-"),
            cell(_spans(merge.details.get("segments"))),
        )
    return made


def _spans(segments: object) -> str:
    """Segments as text, ``0-4  5  6-9``."""
    if not isinstance(segments, list | tuple) or not segments:
        return "-"
    return "  ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in segments)


def _grid_table(clip: VideoTrace, frames: int, unit: str) -> Any:
    columns = [unit, "made of (sampled frames, from 0)", "segment", "kind", "kept tokens"]
    made = table(columns, title=f"{unit.capitalize()}s that are left", right=(unit, "segment", "kept tokens"))
    segments = cast("list[tuple[int, int]]", clip.details.get("segments") or [])
    dynamic = cast("list[bool]", clip.details.get("dynamic") or [])
    kept = Counter(grid for grid, _ in clip.kept_tokens())
    last_segment = None
    for grid, sources in enumerate(clip.sampled_sources(frames)):
        segment = next((number for number, (low, high) in enumerate(segments) if low <= grid <= high), None)
        if last_segment is not None and segment != last_segment:
            made.add_section()
        last_segment = segment
        made.add_row(
            cell(grid),
            cell(", ".join(map(str, sources))),
            cell("-" if segment is None else segment),
            cell(("dynamic" if dynamic[grid] else "static") if dynamic else "-"),
            cell(kept[grid]),
        )
    return made


def _by_grid(answer: Answer) -> dict[str, list[list[int]]]:
    """For each temporal grid that is left the sampled frames it was made of, and its kept tokens in raster order."""
    clip = answer.trace.videos[0]
    kept: list[list[int]] = [[] for _ in range(clip.temporal_grids_left)]
    for grid, token in clip.kept_tokens():
        kept[grid].append(token)
    return {"sampled_sources": clip.sampled_sources(answer.frames), "kept_tokens": kept}
