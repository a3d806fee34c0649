"""Images."""

from openai_app.catalogue.operation import EVENTS, FORM, JSON, MEGABYTE, Operation
from openai_app.metering import IMAGE_EDITS, IMAGES

_PROMPT = {"model": "gpt-image-1", "prompt": "A cute baby sea otter", "size": "1024x1024"}

OPERATIONS = (
    Operation(
        "createImage",
        "POST",
        "/images/generations",
        "Images",
        "Create images from a prompt",
        meter=IMAGES,
        accepts=(JSON,),
        answers=(JSON, EVENTS),
        example=_PROMPT,
    ),
    Operation(
        "createImageEdit",
        "POST",
        "/images/edits",
        "Images",
        "Edit or extend images by a prompt",
        meter=IMAGE_EDITS,
        accepts=(FORM, JSON),
        answers=(JSON, EVENTS),
        # Sixteen images of at most 50 MB each.
        max_body_bytes=16 * 50 * MEGABYTE,
        files=("image",),
        example={**_PROMPT, "images": [{"image_url": "https://example.com/otter.png"}]},
    ),
    Operation(
        "createImageVariation",
        "POST",
        "/images/variations",
        "Images",
        "Create variations of an image",
        meter=IMAGES,
        accepts=(FORM,),
        files=("image",),
        example={"n": 1, "size": "1024x1024"},
    ),
)
