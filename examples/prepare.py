"""No magic, the inputs are shortened first: python examples/prepare.py [MODEL] [VIDEO] [QUESTION]."""

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

    # Nothing is hooked or replaced: what comes back are arguments for the model's stock generate().
    prepared = earlytom.prepare(model, inputs, earlytom.EarlyTom(retention=0.25))
    output = model.generate(**prepared.arguments, max_new_tokens=16, do_sample=False)

    print(processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
    print(f"dropped {prepared.dropped[0]} of {inputs['input_ids'].shape[1]} prompt tokens before the prefill")


if __name__ == "__main__":
    main(*sys.argv[1:])
