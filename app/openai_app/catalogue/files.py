"""Files, and uploads in parts."""

from openai_app.catalogue.operation import BYTES, FORM, JSON, MEGABYTE, Operation
from openai_app.owned.objects import FILE, UPLOAD, UPLOAD_PART

_FILE = "/files/{file_id}"
_UPLOAD = "/uploads/{upload_id}"
# By OpenAI's reference a file has up to 512 MB and a part 64 MB; the rest is for the other fields.
_FORM_BYTES = MEGABYTE

OPERATIONS = (
    Operation(
        "createFile",
        "POST",
        "/files",
        "Files",
        "Upload a file",
        accepts=(FORM,),
        creates=FILE,
        files=("file",),
        example={"purpose": "user_data"},
        streams_body=True,
        max_body_bytes=512 * MEGABYTE + _FORM_BYTES,
    ),
    Operation(
        "listFiles",
        "GET",
        "/files",
        "Files",
        "List the files",
        query=("purpose", "limit", "order", "after"),
        lists=FILE,
    ),
    Operation("retrieveFile", "GET", _FILE, "Files", "Retrieve what is known of a file"),
    Operation("deleteFile", "DELETE", _FILE, "Files", "Delete a file", deletes=True),
    Operation(
        "downloadFile", "GET", f"{_FILE}/content", "Files", "Download a file's content", answers=(BYTES,)
    ),
    Operation(
        "createUpload",
        "POST",
        "/uploads",
        "Uploads",
        "Begin an upload in parts",
        accepts=(JSON,),
        creates=UPLOAD,
        example={
            "purpose": "fine-tune",
            "filename": "training_examples.jsonl",
            "bytes": 2147483648,
            "mime_type": "text/jsonl",
        },
    ),
    Operation(
        "addUploadPart",
        "POST",
        f"{_UPLOAD}/parts",
        "Uploads",
        "Add a part to an upload",
        accepts=(FORM,),
        creates=UPLOAD_PART,
        files=("data",),
        streams_body=True,
        max_body_bytes=64 * MEGABYTE + _FORM_BYTES,
    ),
    Operation(
        "completeUpload",
        "POST",
        f"{_UPLOAD}/complete",
        "Uploads",
        "Make a file of an upload's parts",
        accepts=(JSON,),
        example={"part_ids": ["part_abc123", "part_def456"]},
    ),
    Operation("cancelUpload", "POST", f"{_UPLOAD}/cancel", "Uploads", "Cancel an upload"),
)
