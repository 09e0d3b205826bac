"""What packets of H.264 tell of their pictures, against the decoder's own word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import pytest

from earlytom.video import Sampling, read_video
from earlytom.video._h264 import is_reference

from .clips import make_clip, numbers_of

REFERENCE = b"\x65\x88\x84"
OTHER = b"\x01\x9a\x12"
NO_PICTURE = b"\x06\x05\x01"
CONFIGURATION = b"\x01\x64\x00\x0a\xff"


def with_lengths(*units: bytes, width: int = 4) -> bytes:
    return b"".join(len(unit).to_bytes(width, "big") + unit for unit in units)


def with_start_codes(*units: bytes) -> bytes:
    return b"".join(b"\0\0\0\1" + unit for unit in units)


@pytest.mark.parametrize(
    ("units", "expected"),
    [
        ([OTHER], False),
        ([NO_PICTURE, OTHER, OTHER], False),
        ([REFERENCE], True),
        ([NO_PICTURE, REFERENCE], True),
        # Of two fields of a frame, one may be referred to.
        ([OTHER, b"\x21\x9a"], True),
        ([NO_PICTURE], True),
        ([], True),
    ],
)
def test_a_picture_is_left_out_only_where_all_slices_allow_it(units: list[bytes], expected: bool) -> None:
    assert is_reference(with_start_codes(*units), b"") is expected
    assert is_reference(with_start_codes(*units), b"\0\0\0\1\x67\x64") is expected
    for width in (1, 2, 4):
        configuration = CONFIGURATION[:4] + bytes([0xFC | width - 1])
        assert is_reference(with_lengths(*units, width=width), configuration) is expected


@pytest.mark.parametrize("cut", range(1, 7))
def test_lengths_that_do_not_add_up_leave_nothing_out(cut: int) -> None:
    packet = with_lengths(OTHER, OTHER)
    assert not is_reference(packet, CONFIGURATION)
    assert is_reference(packet[:-cut], CONFIGURATION)
    assert is_reference(packet + packet[:cut], CONFIGURATION)
    assert is_reference(packet + bytes(4), CONFIGURATION)


@pytest.mark.parametrize("end", [b"", b"\0\0\1", b"\0\0\0\1"])
def test_a_start_code_at_the_end(end: bytes) -> None:
    assert not is_reference(with_start_codes(OTHER) + end, b"")
    assert is_reference(end, b"")


@pytest.mark.parametrize(
    "options", ["bframes=2", "bframes=4:b-pyramid=normal", "bframes=0", "bframes=3:slices=4:aud=1"]
)
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "flv", "avi"])
def test_what_is_left_out_is_what_the_decoder_leaves_out(tmp_path: Path, suffix: str, options: str) -> None:
    path = make_clip(tmp_path / f"clip.{suffix}", options={"x264-params": f"keyint=15:scenecut=0:b-adapt=0:{options}"})
    with av.open(str(path)) as container:
        stream: Any = container.streams.video[0]
        stream.thread_count = 1
        context = stream.codec_context
        packets = [packet for packet in container.demux(stream) if packet.size]
        kept = [packet for packet in packets if is_reference(bytes(packet), context.extradata or b"")]
        context.skip_frame = "NONREF"
        given = [frame for packet in [*packets, None] for frame in context.decode(packet)]
    assert len(kept) == len(given)
    assert len(kept) == 60 if options == "bframes=0" else len(kept) <= 40
    if suffix != "avi":
        assert sorted(packet.pts for packet in kept) == [frame.pts for frame in given]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "flv"])
def test_frames_that_no_other_refers_to_are_not_decoded(tmp_path: Path, suffix: str) -> None:
    options = {"x264-params": "keyint=60:scenecut=0:bframes=3:b-pyramid=none:b-adapt=0"}
    path = make_clip(tmp_path / f"clip.{suffix}", options=options)
    video = read_video(path, Sampling(frames=2))
    assert numbers_of(video.frames) == list(video.indices)
    assert video.decoded < 25
