"""Who is told when a run fails: a webhook and a mail address out of the environment, by Prefect's automations.

The addresses hold secrets: they stand in no file of ours, and on Prefect's server in the secret part of a block.
The scheduler arranges it each time it starts.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from components.errors import ParamsError

if TYPE_CHECKING:
    from prefect.blocks.abstract import NotificationBlock
    from prefect.client.orchestration import SyncPrefectClient

WEBHOOK, EMAIL = "TIDEMILL_NOTIFY_WEBHOOK", "TIDEMILL_NOTIFY_EMAIL"
# `pipelines` fails because one of its children does: that is told already.
FLOWS = ["pipeline", "backfill"]
_PIPELINE = '{{ flow_run.parameters["name"] }}'
SUBJECT = f"Tidemill: {_PIPELINE} {{{{ flow_run.state.name | lower }}}}"
BODY = f"""{_PIPELINE}: {{{{ flow.name }}}} {{{{ flow_run.state.name | lower }}}}
{{{{ (flow_run.state.message or "no message").split("\\n")[0] | replace("Flow run encountered an exception: ", "") }}}}
Once that is mended, in {{{{ flow_run.parameters["root"] }}}}: \
{{{{ "the same tidemill backfill again" if flow.name == "backfill" else "tidemill resume" }}}}"""


@dataclass(frozen=True)
class Way:
    """One way to tell people. `name` is that of the block and the automation on the server, `slug` that of the
    block's type."""

    name: str
    variable: str
    slug: str
    block: Callable[[str], NotificationBlock]


def told() -> list[str]:
    """The variables by which people are told."""
    return [name for name in (WEBHOOK, EMAIL) if os.environ.get(name)]


def require() -> None:
    """Raise ParamsError if an address in the environment is none; it is not shown, since it holds secrets."""
    webhook, email = os.environ.get(WEBHOOK), os.environ.get(EMAIL)
    if webhook and not (urlsplit(webhook).scheme in ("http", "https") and urlsplit(webhook).hostname):
        raise ParamsError(
            "expected an address such as https://host/path", where=WEBHOOK, fix=f"mend or unset {WEBHOOK}"
        )
    if email and not _mails(email):
        raise ParamsError(
            "expected mailtos://USER:PASSWORD@HOST:587?from=ADDRESS&to=ADDRESS, or mailto:// for a server without TLS",
            where=EMAIL,
            fix=f"mend or unset {EMAIL}",
        )


def _mails(address: str) -> bool:
    from apprise import Apprise

    parts = urlsplit(address)
    return parts.scheme in ("mailto", "mailtos") and "to" in parse_qs(parts.query) and Apprise().add(address)


def arrange() -> None:
    """Bring the server's blocks and automations in step with the environment: made, changed, or taken away."""
    require()
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        for way in (
            Way("tidemill-webhook", WEBHOOK, "custom-webhook", _webhook),
            Way("tidemill-email", EMAIL, "slack-webhook", _email),
        ):
            if address := os.environ.get(way.variable):
                _put(client, way, way.block(address))
            else:
                _drop(client, way)


def _webhook(url: str) -> NotificationBlock:
    from prefect.blocks.notifications import CustomWebhookNotificationBlock
    from prefect.types import SecretDict

    said = {"text": "{{subject}}\n{{body}}", "subject": "{{subject}}", "body": "{{body}}"}
    return CustomWebhookNotificationBlock(
        name="tidemill", url="{{address}}", json_data=said, secrets=SecretDict({"address": url})
    )


def _email(url: str) -> NotificationBlock:
    from prefect.blocks.notifications import SlackWebhook
    from pydantic import SecretStr

    # Prefect has no block for mail by SMTP, and its server loads no block of ours. This one passes any address that
    # is not Slack's own on to apprise, which knows mail.
    return SlackWebhook(url=SecretStr(url))


def _put(client: SyncPrefectClient, way: Way, block: Any) -> None:
    from prefect.automations import AutomationCore, EventTrigger, Posture, SendNotification

    wanted = AutomationCore(
        name=way.name,
        description=f"Tells people of runs that failed, by {way.variable} of whoever keeps the scheduler.",
        trigger=EventTrigger(
            expect={"prefect.flow-run.Failed", "prefect.flow-run.Crashed"},
            match_related={"prefect.resource.role": "flow", "prefect.resource.name": FLOWS},
            posture=Posture.Reactive,
            threshold=1,
        ),
        actions=[SendNotification(block_document_id=block.save(way.name, overwrite=True), subject=SUBJECT, body=BODY)],
    )
    standing = client.read_automations_by_name(way.name)
    if standing:
        client.update_automation(standing[0].id, wanted)
    else:
        client.create_automation(wanted)
    for twice in standing[1:]:
        client.delete_automation(twice.id)


def _drop(client: SyncPrefectClient, way: Way) -> None:
    from prefect.exceptions import ObjectNotFound

    for standing in client.read_automations_by_name(way.name):
        client.delete_automation(standing.id)
    try:
        client.delete_block_document(client.read_block_document_by_name(way.name, way.slug).id)
    except ObjectNotFound:
        return
