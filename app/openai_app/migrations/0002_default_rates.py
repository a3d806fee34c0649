"""Rates for what is not paid for by the token, so that nothing is free by oversight.

A token is one credit, whatever the model, and needs no row here. All else is converted from what OpenAI
charges in dollars: one credit is ten millionths of a dollar, 100,000 credits are a dollar. That is the price
of a token that gpt-4o writes; with it a second of whisper-1 costs as much as the ten tokens that the token
models count for a second of audio, and an image of dall-e about as much as one of gpt-image in tokens.

Sources: the list of prices of BerriAI/litellm (MIT licence), which has them from OpenAI's page; for dall-e and
the search of vector stores OpenAI's pricing page itself. A character that gpt-4o-mini-tts speaks is put at the
tokens it was measured to take, for answers in audio do not report them.

The operator may change or delete each of them; what has no rate costs its default (`balances.rates`).
"""

from decimal import Decimal

from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

CREDITS_PER_DOLLAR = 100_000

# Model, unit, dollars a unit. The longest pattern that fits a model decides.
DOLLARS = (
    ("dall-e-2*", "image", "0.020"),
    ("dall-e-2/256x256", "image", "0.016"),
    ("dall-e-2/512x512", "image", "0.018"),
    ("dall-e-3*", "image", "0.080"),
    ("dall-e-3/1024x1024*", "image", "0.040"),
    ("dall-e-3/1024x1024/hd", "image", "0.080"),
    ("dall-e-3/1024x1792/hd", "image", "0.120"),
    ("dall-e-3/1792x1024/hd", "image", "0.120"),
    ("tts-1*", "character", "0.000015"),
    ("tts-1-hd*", "character", "0.000030"),
    ("whisper-1", "second", "0.0001"),
    ("gpt-transcribe*", "second", "0.000075"),
    ("gpt-4o-transcribe*", "second", "0.0001"),
    ("gpt-4o-mini-transcribe*", "second", "0.00005"),
    ("gpt-live-transcribe*", "second", "0.0002833334"),
    ("gpt-realtime-whisper*", "second", "0.0002833334"),
    ("gpt-realtime-translate*", "second", "0.0005666667"),
    ("gpt-live-1*", "second", "0.0008333334"),
    ("sora-2*", "second", "0.10"),
    ("sora-2-pro*", "second", "0.30"),
    ("sora-2-pro/1024x1792", "second", "0.50"),
    ("sora-2-pro/1792x1024", "second", "0.50"),
    ("sora-2-pro/1080x1920", "second", "0.50"),
    ("sora-2-pro/1920x1080", "second", "0.50"),
    ("vector_store_search", "request", "0.0025"),
    ("container", "request", "0.03"),
)
# Model, unit, credits a unit, where tokens were measured.
CREDITS = (("gpt-4o-mini-tts*", "character", "3"),)


def seed(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    rate = apps.get_model("balances", "Rate")
    rows = [(model, unit, Decimal(dollars) * CREDITS_PER_DOLLAR) for model, unit, dollars in DOLLARS]
    rows += [(model, unit, Decimal(credits)) for model, unit, credits in CREDITS]
    for model, unit, credits_per_unit in rows:
        # What the operator has set already stays.
        rate.objects.get_or_create(model=model, unit=unit, defaults={"credits_per_unit": credits_per_unit})


class Migration(migrations.Migration):
    dependencies = [("balances", "0001_initial"), ("openai_app", "0001_objects")]
    operations = [migrations.RunPython(seed, migrations.RunPython.noop)]
