"""A stand-in for OpenAI: the demo's upstream without a key, the upstream of wire tests and of load.

It is an independent witness: it shares no code with the gateway, counts tokens by its own few lines, and
keeps a journal of what it really served, so that a bill can be held against the truth.

Run it with `manage.py simulate` or, without Django and from this folder's parent, `python -m simulator`:

    --host 127.0.0.1 --port 9000     port 0 takes a free one
    --journal FILE                   append each finished call to FILE, one JSON object a line
    --no-journal                     keep no journal at all (load)
    --journal-size 100000            how many calls are kept in memory
    --finish-after SECONDS           when batches, runs and other work end by themselves (see Work below)
    --quit-with-parent               stop when standard input ends, as it does when the parent dies

It prints `simulator listening on http://HOST:PORT/v1`; that address is an OPENAI_BASE_URL. Any non-empty
bearer key is accepted.

It answers all of OpenAI's API that isn't administration or the handing out of credentials, with what came
before (engines, edits, fine-tunes, version 1 of assistants); `routes` lists the families. Things that are
made live in memory until they are deleted or the process ends; files above a megabyte lie in unnamed
temporary files. Of stored responses and chat completions the last 10,000 are kept. Everybody sees everything,
as under one account.

Directives
----------
A caller asks for behaviour by writing `[[simulate: name=value name]]` anywhere in the request body, usually
in the last user message; it survives any proxy that passes the body on. Names may be spelled with - or _; the
last marker in the body counts. In a form any field may have it, in a batch each line may; within files it
means nothing else. The same names are used by faults (below), which reach calls without a body too.

What is answered:

    tokens=N         the answer is N completion tokens long (each word is one token)
    big=N            the answer is N million bytes long
    reasoning=N      N reasoning tokens come before the answer (and count as completion tokens, as at OpenAI)
    audio=N          N audio tokens are reported on top of the answer's
    cached=N         N of the prompt tokens are reported as cached
    prompt=N         the prompt is reported as N tokens, whatever it was
    tools=N          call N of the offered tools (without a value: one)
    searches=N       a response contains N web searches
    seconds=S        the sound to be transcribed lasts S seconds, whatever the file is
    finish_after=S   the work that this call begins ends after S seconds, 0 being at once
    no_usage         usage is not reported (the journal has it all the same)
    usage_with_choices   in a stream, usage comes in the chunk with the finish reason, not in one of its own

How it goes:

    wait             it waits until POST /simulator/release
    delay=S          S seconds pass before the head of the answer
    chunk_delay=S    S seconds pass before each event of a stream
    stall=S          silence for S seconds in the middle: after the head and `stall_after=N` tokens of a
                     stream (default 0), or after half the body of a JSON answer; then it goes on

What goes wrong (N in `…_after=N` counts completion tokens of a stream; a JSON answer breaks half-way, its
content-length announcing the whole):

    status=NNN       an error in OpenAI's shape and words; with 429 also `quota` (insufficient_quota) and
    retry_after=S    the Retry-After header
    html             an HTML page, as a load balancer sends it; status 502 unless `status=` says otherwise
    malformed        a JSON body that isn't JSON; in a stream, one event that isn't
    reset            the connection is reset before the head
    reset_after=N    the connection is reset in the middle
    close_after=N    the connection is closed in the middle, at the end of an event
    truncate_after=N the connection is closed in the middle of an event
    error_after=N    the stream brings `data: {"error": …}` and `[DONE]` in the middle
    no_done          the stream ends without `[DONE]`; that of a response, which has none, without its last
                     event

Work
----
Batches, background responses, runs that aren't streamed, fine-tuning, videos and eval runs go on after their
call was answered. Each look at one takes it one status further (queued, in_progress), and no look ends it:
that does POST /simulator/finish, or time, if `finish_after` or --finish-after says so. When work ends, its
usage is written into the journal in a line of its own (`kind` is the object's); the call that began it has
none. A run that calls functions (`tools=N`, or a `tool_choice` of required) stops at requires_action, with a
line for each turn. Cancelling a batch or a run leaves it `cancelling` until the next look, with half of the
work done; cancelled responses, fine-tuning and eval runs end at once. A background response or run that is
streamed to its end ends with the stream; one whose reader left goes on.

WebSockets
----------
/v1/realtime and /v1/responses, see `sockets`. A connection is a call in the journal, with WEBSOCKET as its
method; each response and each transcription has a line of its own (realtime.response, realtime.transcription,
response) with what was told until it ended.

Control endpoints
-----------------
No key is needed for them; the simulator is for loopback and test networks only.

    POST /simulator/faults       {"match": {...}, "action": "status=500 delay=1", "times": 3}
                                 `match` may name method, path (a prefix), model, contains (text in the body),
                                 except_agent (a User-Agent whose calls it is not for);
                                 {} is every call. `times` null or absent: until cleared. The first fault that
                                 matches is taken and its directives win over those in the body.
                                 → {"id": 1}
    GET, DELETE /simulator/faults

    POST /simulator/recordings   one object or a list of
                                 {"request": {...}, "status": 200, "headers": {...}, "body": "text"}
                                 The next call with that request gets that answer, byte for byte. `method`
                                 and `path` (with query) default to POST /v1/chat/completions. `request` is
                                 the JSON body; for a body that isn't JSON, `request_base64`. For bytes,
                                 `body_base64` in place of `body`; `split`: N sends the answer in pieces of N
                                 bytes. `usage` is written into the journal. Several answers to the same
                                 request form a queue. Requests are compared as JSON, without what a gateway
                                 may write in: max_tokens, max_completion_tokens, max_output_tokens,
                                 stream_options.
                                 → {"keys": [...]}
                                 A form is compared by its fields and, for files, {filename, content_type,
                                 bytes, sha256}; that is how the journal shows it, too.
    GET, DELETE /simulator/recordings   GET → {"waiting": N}

    POST /simulator/finish       {"id": "batch_…"} or {"ids": [...]}, without either all work; "status":
                                 completed (default), failed, cancelled, expired; "share": how much of it was
                                 done, from 0 to 1 (completed 1, cancelled and expired 0.5, failed 0)
                                 → {"finished": [ids that were under way]}
    POST /simulator/release      lets all calls go on that `wait`
    GET /simulator/work          → {"ids": [...]}, what is under way
    DELETE /simulator/objects    forgets all things, and the work on them without a line

    GET /simulator/journal?after=ID&limit=N      → {"calls": [...], "last": ID, "open": N}, see `journal`
    DELETE /simulator/journal
    POST /simulator/refuse       {"seconds": S}: nobody listens for so long, idle connections are closed, and
                                 new ones refused; calls under way go on
    GET /simulator/health        → {"status": "ok"}
"""
