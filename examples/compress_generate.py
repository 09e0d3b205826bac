"""Compress a stock model's own generate(): python examples/compress_generate.py [MODEL] [VIDEO] [QUESTION]."""

import sys

from transformers import AutoModelForImageTextToText, AutoProcessor

import earlytom


def main(model_path: str = "", video_path: str = "", question: str = "How many objects are there?") -> None:
    path = model_path or earlytom.shipped_model()
    model = AutoModelForImageTextToText.from_pretrained(path, dtype="float32").eval()
    processor = AutoProcessor.from_pretrained(path)

    sampling = earlytom.Sampling(frames=processor.video_processor.num_frames or 32)
    video = earlytom.read_video(video_path or earlytom.sample_videos()[0], sampling)
    conversation = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": question}]}]
    prompt = processor.apply_chat_template(conversation, add_generation_prompt=True)
    inputs = processor(text=[prompt], videos=[video.frames], do_sample_frames=False, return_tensors="pt")

    with earlytom.compress(model, "earlytom:retention=0.25") as trace:
        output = model.generate(**inputs, max_new_tokens=16, do_sample=False)

    # The ids start with the prompt as it was written, so the usual slice works.
    print(processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
    print(f"prefill: {trace.last.prefill_tokens} of {trace.last.prompt_tokens} tokens")


if __name__ == "__main__":
    main(*sys.argv[1:])
