"""Objects at OpenAI in the admin: what the operator does there holds for the very next call."""

from collections.abc import Mapping
from typing import Any

from gateway.tests import console
from openai_app.tests.attacks import recorded
from openai_app.tests.deferred_work import get, post, upload
from openai_app.tests.harness import Caller, House

CONTENT = b"The lessons of the week."
OBJECTS = "/admin/openai_app/upstreamobject/"


def sent_on_to(operator_id: int, path: str, form: Mapping[str, Any]) -> str:
    """Where the admin leads an operator who has sent a form; for the console."""
    from django.test import Client

    from users.models import User

    client = Client(SERVER_NAME="127.0.0.1")
    client.force_login(User.objects.get(pk=operator_id))
    return client.post(path, form).headers.get("Location", "")


def row_of(object_id: str) -> int:
    """The number by which the admin knows an object; for the console."""
    from openai_app.models import UpstreamObject

    return UpstreamObject.objects.get(object_id=object_id).pk


def in_the_admin(gateway: House, path: str, form: Mapping[str, Any]) -> None:
    """Sends a form as the operator; who has done what it says is back at the list."""
    olga = gateway.caller(is_superuser=True)
    gateway.console.run(console.change_user, olga.id, is_staff=True)
    assert gateway.console.run(sent_on_to, olga.id, path, form) == OBJECTS


def acts(gateway: House, action: str, *object_ids: str) -> None:
    """Chooses the objects in the admin's list, and the action."""
    rows = [gateway.console.run(row_of, object_id) for object_id in object_ids]
    # Only deleting asks whether one is sure.
    in_the_admin(gateway, OBJECTS, {"action": action, "_selected_action": rows, "post": "yes"})


def hand_over(gateway: House, object_id: str, new_owner: Caller) -> None:
    path = f"{OBJECTS}{gateway.console.run(row_of, object_id)}/change/"
    in_the_admin(gateway, path, {"owner": new_owner.id})


def status_of(caller: Caller, method: str, path: str) -> int:
    return caller.call(method, f"/v1{path}").status


def listed(caller: Caller, path: str = "/files") -> list[str]:
    return [one["id"] for one in get(caller, path)["data"]]


def test_what_is_shared_can_be_read_by_all_and_changed_by_its_owner(
    gateway: House, alice: Caller, bob: Caller
) -> None:
    shared, other = upload(alice, CONTENT, "user_data"), upload(alice, CONTENT, "user_data")
    assert status_of(bob, "GET", f"/files/{shared}") == 404
    acts(gateway, "share", shared)
    assert get(bob, f"/files/{shared}")["id"] == shared
    assert bob.call("GET", f"/v1/files/{shared}/content").body == CONTENT
    assert status_of(bob, "GET", f"/files/{other}") == 404
    # It is not his: he neither finds it among his own nor deletes it.
    assert listed(bob) == []
    assert status_of(bob, "DELETE", f"/files/{shared}") == 404
    assert listed(alice) == [other, shared]


def test_what_is_no_longer_shared_is_its_owners_alone(gateway: House, alice: Caller, bob: Caller) -> None:
    first, second = upload(alice, CONTENT, "user_data"), upload(alice, CONTENT, "user_data")
    acts(gateway, "share", first, second)
    assert [status_of(bob, "GET", f"/files/{file}") for file in (first, second)] == [200, 200]
    acts(gateway, "stop_sharing", first)
    assert [status_of(bob, "GET", f"/files/{file}") for file in (first, second)] == [404, 200]
    assert status_of(bob, "GET", f"/files/{first}/content") == 404
    assert [status_of(alice, "GET", f"/files/{file}") for file in (first, second)] == [200, 200]
    assert listed(alice) == [second, first]


def test_what_is_handed_over_is_the_new_owners_alone(gateway: House, alice: Caller, bob: Caller) -> None:
    file_id = upload(alice, CONTENT, "user_data")
    store = post(alice, "/vector_stores", name="Lessons")["id"]
    for object_id in (file_id, store):
        hand_over(gateway, object_id, bob)
    for path, object_id in (("/files", file_id), ("/vector_stores", store)):
        assert (listed(bob, path), listed(alice, path)) == ([object_id], [])
        assert status_of(alice, "GET", f"{path}/{object_id}") == 404
        assert status_of(alice, "DELETE", f"{path}/{object_id}") == 404
        assert status_of(bob, "GET", f"{path}/{object_id}") == 200
        assert status_of(bob, "DELETE", f"{path}/{object_id}") == 200
    assert gateway.console.run(recorded, bob.id) == {}


def test_what_the_operator_forgets_is_nobodys_until_it_is_given_to_someone(
    gateway: House, alice: Caller, bob: Caller
) -> None:
    file_id = upload(alice, CONTENT, "user_data")
    acts(gateway, "delete_selected", file_id)
    assert status_of(alice, "GET", f"/files/{file_id}") == 404
    assert listed(alice) == []
    in_the_admin(gateway, f"{OBJECTS}add/", {"object_id": file_id, "kind": "file", "owner": bob.id})
    assert bob.call("GET", f"/v1/files/{file_id}/content").body == CONTENT
    assert listed(bob) == [file_id]
    assert status_of(alice, "GET", f"/files/{file_id}") == 404
