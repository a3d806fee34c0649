"""Videos and the characters in them."""

from openai_app.catalogue.operation import FORM, JSON, MEGABYTE, PAGE_FORWARD, Operation, per_call
from openai_app.metering import VIDEO_REMIXES, VIDEOS
from openai_app.owned.objects import VIDEO, VIDEO_CHARACTER

_TAG = "Videos"
_VIDEO = "/videos/{video_id}"
# What a clip of the longest duration and largest size may take.
_MOST_BYTES = 512 * MEGABYTE

OPERATIONS = (
    Operation(
        "createVideo",
        "POST",
        "/videos",
        _TAG,
        "Create a video from a prompt",
        meter=VIDEOS,
        accepts=(FORM, JSON),
        creates=VIDEO,
        example={"model": "sora-2", "prompt": "A calico cat playing a piano on stage", "seconds": "4"},
    ),
    Operation("ListVideos", "GET", "/videos", _TAG, "List the videos", query=PAGE_FORWARD, lists=VIDEO),
    Operation(
        "CreateVideoCharacter",
        "POST",
        "/videos/characters",
        _TAG,
        "Make a character from a video",
        meter=per_call("video_character"),
        accepts=(FORM,),
        creates=VIDEO_CHARACTER,
        files=("video",),
        example={"name": "Mossy"},
        max_body_bytes=_MOST_BYTES,
    ),
    Operation("GetVideoCharacter", "GET", "/videos/characters/{character_id}", _TAG, "Retrieve a character"),
    Operation(
        "CreateVideoEdit",
        "POST",
        "/videos/edits",
        _TAG,
        "Edit a video by a prompt",
        meter=VIDEO_REMIXES,
        accepts=(FORM, JSON),
        creates=VIDEO,
        max_body_bytes=_MOST_BYTES,
        files=("video",),
        example={"video": {"id": "video_abc123"}, "prompt": "Make it snow"},
    ),
    Operation(
        "CreateVideoExtend",
        "POST",
        "/videos/extensions",
        _TAG,
        "Extend a video",
        meter=VIDEO_REMIXES,
        accepts=(FORM, JSON),
        creates=VIDEO,
        max_body_bytes=_MOST_BYTES,
        files=("video",),
        example={"video": {"id": "video_abc123"}, "prompt": "The cat takes a bow", "seconds": "4"},
    ),
    Operation("GetVideo", "GET", _VIDEO, _TAG, "Retrieve what is known of a video"),
    Operation("DeleteVideo", "DELETE", _VIDEO, _TAG, "Delete a video", deletes=True),
    Operation(
        "RetrieveVideoContent",
        "GET",
        f"{_VIDEO}/content",
        _TAG,
        "Download a video, or a picture of it",
        answers=("video/mp4", "image/webp", JSON),
        query=("variant",),
    ),
    Operation(
        "CreateVideoRemix",
        "POST",
        f"{_VIDEO}/remix",
        _TAG,
        "Make a video anew by another prompt",
        meter=VIDEO_REMIXES,
        accepts=(FORM, JSON),
        creates=VIDEO,
        only_reads=True,
        example={"prompt": "The same cat, but on a drum kit"},
    ),
)
