"""An edit with a mask by the official Python SDK: only what is transparent in the mask is changed.

Run:  pip install openai
      python edit_with_mask.py room.png mask.png "A cat on the sofa"

Gateway and model come from IMAGEGATE_URL and IMAGEGATE_MODEL. Any model will do, also one whose provider wants links
instead of files; one that takes no masks is refused with an error that says so.
"""

import os
import sys
from pathlib import Path

import openai

image, mask, prompt = sys.argv[1:4]
client = openai.OpenAI(
    base_url=os.environ.get("IMAGEGATE_URL", "http://127.0.0.1:8000") + "/v1",
    api_key=os.environ.get("IMAGEGATE_KEY", "not-needed"),  # where the gateway asks for one
)
edited = client.images.edit(
    model=os.environ.get("IMAGEGATE_MODEL", "gpt-image-2"),
    image=Path(image),
    mask=Path(mask),
    prompt=prompt,
    response_format="url",
)
print(edited.data[0].url)
