"""Whether a file was made by OpenAI."""

from openai_app.catalogue.operation import FORM, Operation, per_call

OPERATIONS = (
    Operation(
        "Createcontentprovenancecheck",
        "POST",
        "/content_provenance_checks",
        "Content provenance",
        "Check whether an image or recording was made by OpenAI",
        meter=per_call("content_provenance_check"),
        accepts=(FORM,),
        files=("file",),
    ),
)
