"""The comparison of generated and recorded video: its measures, and that it runs on a file."""

import json
from pathlib import Path

import numpy as np

from earlytom.shipped import sample_videos
from earlytom.testbed.realism import generated_clips, main, recorded_clips, sink_share, top_share


def test_a_sink_takes_attention_in_every_frame_and_an_object_that_moves_does_not() -> None:
    attention = np.full((8, 36), 0.01, dtype=np.float32)
    attention[:, 3] = 0.2
    attention[np.arange(8), 10 + np.arange(8)] = 0.5
    assert sink_share(attention) == np.float64(1 / 36)
    assert sink_share(np.ones((4, 36), dtype=np.float32)) == 0.0


def test_the_share_of_the_strongest_tenth() -> None:
    assert np.isclose(top_share(np.ones((2, 40), dtype=np.float32)), 0.1)
    one = np.zeros((2, 40), dtype=np.float32)
    one[:, 7] = 1.0
    assert np.isclose(top_share(one), 1.0)


def test_clips_know_their_cuts_and_recordings_are_taken_whole_and_in_halves() -> None:
    clips = generated_clips(2)
    assert all(clip.same_scene is not None and len(clip.same_scene) == 15 for clip in clips)
    parts = recorded_clips(sample_videos()[0])
    assert [part.frames.shape[0] for part in parts] == [16, 16, 16]
    assert np.array_equal(parts[0].frames[0], parts[1].frames[0])
    assert np.array_equal(parts[0].frames[-1], parts[2].frames[-1])


def test_it_measures_a_file_beside_generated_clips(tmp_path: Path) -> None:
    video = sample_videos()[0]
    main([str(video), "--output", str(tmp_path), "--clips", "2"])
    results = json.loads((tmp_path / "realism.json").read_text())
    assert list(results) == ["generated", video.name]
    for result in results.values():
        shares = result["share_of_frames_merged"]
        assert all(0.0 <= share < 1.0 for share in shares.values())
        assert list(shares) == ["0.3", "0.5", "0.6", "0.7", "0.8", "0.9", "no threshold", "the default"]
        # Without a bound about half of such frames merge; the default is bounded but for duplicates.
        assert shares["no threshold"] > 0.3
        assert shares["0.9"] <= shares["0.3"] + 0.05
        assert shares["the default"] <= shares["no threshold"]
        rows = [row["all"] for row in result["similarity_percentiles"].values()]
        assert len(rows) == 4
        assert all(row == sorted(row) and row[-1] <= 1.001 for row in rows)
    generated = results["generated"]["share_of_frames_merged"]
    assert generated["the default"] <= 0.45  # its bound; no frames of these clips are equal
    assert "across a cut" in results["generated"]["similarity_percentiles"]["after layer 7"]
    assert (tmp_path / "realism.png").stat().st_size > 10_000
