"""Idempotency-Key: a call that is sent again is answered with what the first one came to, and charged once.

    claim ──► under way ──► finished   its answer is kept for a day, and replayed
                        └─► released   it came to nothing: the next call with the header runs anew

The row is the claim: whoever inserts it runs the call, on whatever host. It is finished before the charge is
posted and before the last byte goes out, with what the call used noted on its hold in the same transaction:

the process dies              the first call                        the next call with the header
before the row is finished    is charged as counted, by the sweep   runs anew once it is surely dead
before the charge is posted   is charged as noted, by the sweep     is answered with the first answer
after that                    is charged                            is answered with the first answer

While the database is away at the end of a call, its answer goes out all the same and is kept later; only
where the process dies before that the next call runs anew.

Source: the header is that of the IETF's draft "The Idempotency-Key HTTP Header Field"; how it is answered
follows Stripe's API.
"""
