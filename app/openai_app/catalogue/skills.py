"""Skills and their versions."""

from openai_app.catalogue.operation import FORM, JSON, PAGE_FORWARD, Operation
from openai_app.owned.objects import SKILL, SKILL_VERSION

_TAG = "Skills"
_SKILL = "/skills/{skill_id}"
_VERSION = "/skills/{skill_id}/versions/{skill_version}"
_ZIP = "application/zip"
_FILES = {"files": "data:application/zip;base64,…"}

OPERATIONS = (
    Operation(
        "CreateSkill",
        "POST",
        "/skills",
        _TAG,
        "Create a skill",
        accepts=(FORM, JSON),
        creates=SKILL,
        files=("files",),
        example=_FILES,
    ),
    Operation("ListSkills", "GET", "/skills", _TAG, "List the skills", query=PAGE_FORWARD, lists=SKILL),
    Operation("GetSkill", "GET", _SKILL, _TAG, "Retrieve a skill"),
    Operation(
        "UpdateSkillDefaultVersion",
        "POST",
        _SKILL,
        _TAG,
        "Choose the default version of a skill",
        accepts=(JSON,),
        example={"default_version": "2"},
    ),
    Operation("DeleteSkill", "DELETE", _SKILL, _TAG, "Delete a skill", deletes=True),
    Operation("GetSkillContent", "GET", f"{_SKILL}/content", _TAG, "Download a skill", answers=(_ZIP, JSON)),
    Operation(
        "CreateSkillVersion",
        "POST",
        f"{_SKILL}/versions",
        _TAG,
        "Create a version of a skill",
        accepts=(FORM, JSON),
        creates=SKILL_VERSION,
        files=("files",),
        example=_FILES,
    ),
    Operation(
        "ListSkillVersions",
        "GET",
        f"{_SKILL}/versions",
        _TAG,
        "List the versions of a skill",
        query=PAGE_FORWARD,
    ),
    Operation("GetSkillVersion", "GET", _VERSION, _TAG, "Retrieve a version of a skill"),
    Operation("DeleteSkillVersion", "DELETE", _VERSION, _TAG, "Delete a version of a skill", deletes=True),
    Operation(
        "GetSkillVersionContent",
        "GET",
        f"{_VERSION}/content",
        _TAG,
        "Download a version of a skill",
        answers=(_ZIP, JSON),
    ),
)
