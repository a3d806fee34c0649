"""Bodies of calls that are refused: strangers may send as many as they like, and none may stay in memory."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from openai_app.tests.harness import JSON
from openai_app.tests.sites import peak_bytes, site

BODIES = 240
AT_ONCE = 4
# Below the size from which the key is looked at before the body is read.
BODY_BYTES = 900_000
# All of them would take more than twice as much in the one worker.
MOST_GROWTH_BYTES = 90 * 1024 * 1024


def test_the_large_bodies_of_strangers_do_not_stay_in_memory(tmp_path: Path) -> None:
    with site(tmp_path) as prepared, prepared.gateway(workers=1) as opened:
        before = peak_bytes(opened)
        said = {"role": "user", "content": "hello you " * (BODY_BYTES // 10)}
        body = json.dumps({"model": "gpt-4o-mini", "messages": [said]}).encode()

        def send(_: int) -> int:
            connection = opened.connect()
            headers = {"Authorization": "Bearer sk-wrong", **JSON}
            try:
                connection.request("POST", "/v1/chat/completions", body, headers)
                return connection.getresponse().status
            finally:
                connection.close()

        with ThreadPoolExecutor(AT_ONCE) as threads:
            assert set(threads.map(send, range(BODIES))) == {401}
        assert peak_bytes(opened) - before < MOST_GROWTH_BYTES
