"""Ask a question about a video: python examples/ask.py [MODEL] [VIDEO] [QUESTION]."""

import sys

import earlytom


def main(model: str = "", video: str = "", question: str = "How many objects are there?") -> None:
    qa = earlytom.VideoQA.load(model or earlytom.shipped_model())
    # Read once, ask twice: without compression and with a quarter of the visual tokens.
    clip = qa.read(video or earlytom.sample_videos()[0])
    for method in ("none", "earlytom:retention=0.25"):
        answer = qa.ask(clip, question, method=method)
        print(f"{method}: {answer.text}")
        frames = f"{answer.frames_left} of {answer.frames} frames"
        print(f"  {answer.visual_tokens} visual tokens, {frames}, {answer.ttft * 1000:.0f} ms")


if __name__ == "__main__":
    main(*sys.argv[1:])
