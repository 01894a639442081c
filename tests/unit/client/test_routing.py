"""The delivery mode decides where a message goes, without a network."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from airflow_provider_apptoto.client import (
    ApptotoConfigurationError,
    ApptotoValidationError,
    DeliveryMode,
    Message,
    Routing,
)

PHONE, ADDRESS = "+61491570156", "tester@clinic.example"
REDIRECT = Routing(DeliveryMode.REDIRECT, redirect_phone_to=PHONE, redirect_email_to=ADDRESS)
SMS = Message("sms", to="+16505550199", message="Hi Mary")
CALL = Message("call", to="+16505550199", message="Hi Mary")
EMAIL = Message("email", to="mary@clinic.example", message="Hi Mary", subject="Visit")
EVENT = Message("sms", event_id=12, message="Hi Mary")
PARTICIPANT = Message("call", participant_id=34, message="Hi Mary")
TEMPLATE = Message("sms", to="+16505550199", template_id=45)
ALL = [SMS, CALL, EMAIL, EVENT, PARTICIPANT, TEMPLATE]


@pytest.mark.parametrize(
    ("modes", "strictest"),
    [
        ((), "live"),
        ((None, None), "live"),
        (("live",), "live"),
        ((" redirect ",), "redirect"),
        (("live", None, "redirect"), "redirect"),
        (("live", "redirect", "dry_run"), "dry_run"),
        (("dry_run", None), "dry_run"),
    ],
)
def test_the_strictest_mode_counts_in_whatever_order_they_are_set(
    modes: tuple[str | None, ...], strictest: str
) -> None:
    for order in itertools.permutations(modes):
        assert DeliveryMode.strictest(*order) is DeliveryMode(strictest)


@pytest.mark.parametrize(
    "mode", ["Live", "DRY_RUN", "dry-run", "dryrun", "dry run", "off", "none", "false", 0, False, True, 1]
)
def test_what_is_no_mode_is_an_error_and_never_means_live(mode: Any) -> None:
    for modes in ((mode,), ("dry_run", mode), (mode, "dry_run")):
        with pytest.raises(ApptotoConfigurationError, match="live, redirect, dry_run") as raised:
            DeliveryMode.strictest(*modes)
        assert raised.value.field == "delivery_mode"
        assert repr(mode) in str(raised.value)


def test_live_sends_every_message_as_it_is() -> None:
    for routing in (Routing(), Routing(redirect_phone_to=PHONE, redirect_email_to=ADDRESS)):
        assert [routing.route(message) for message in ALL] == ALL


def test_dry_run_sends_nothing_of_any_kind() -> None:
    for routing in (
        Routing(DeliveryMode.DRY_RUN),
        Routing(DeliveryMode.DRY_RUN, redirect_phone_to=PHONE, redirect_email_to=ADDRESS),
    ):
        assert [routing.route(message) for message in ALL] == [None] * len(ALL)


@pytest.mark.parametrize(
    ("message", "payload"),
    [
        (SMS, {"type": "sms", "to": PHONE, "message": "[Redirected, was for +1•••0199]\nHi Mary"}),
        (CALL, {"type": "call", "to": PHONE, "message": "[Redirected, was for +1•••0199]\nHi Mary"}),
        (
            EMAIL,
            {
                "type": "email",
                "to": ADDRESS,
                "subject": "Visit",
                "message": "[Redirected, was for m•••@•••.example]\nHi Mary",
            },
        ),
        (TEMPLATE, {"type": "sms", "to": PHONE, "template_id": "45"}),
    ],
    ids=repr,
)
def test_redirect_sends_to_the_channels_stand_in_headed_by_the_masked_recipient(
    message: Message, payload: dict[str, Any]
) -> None:
    routed = REDIRECT.route(message)
    assert routed is not None
    assert routed.payload() == payload


@pytest.mark.parametrize("regions", [{"default_region": "US"}, {"allowed_regions": ["US"]}])
def test_a_stand_in_may_be_of_any_region(regions: dict[str, Any]) -> None:
    routed = REDIRECT.route(Message("sms", to="+16505550199", message="Hi", **regions))
    assert routed is not None
    assert routed.to == PHONE


def test_a_text_as_long_as_allowed_is_redirected_though_the_heading_makes_it_longer() -> None:
    for limit, text in ((1, "a" * 160), (3, "a" * 459)):
        routed = REDIRECT.route(Message("sms", to="+16505550199", message=text, max_segments=limit))
        assert routed is not None
        assert routed.message == f"[Redirected, was for +1•••0199]\n{text}"


def test_a_stand_in_that_costs_extra_gets_nothing() -> None:
    routing = Routing(DeliveryMode.REDIRECT, redirect_phone_to="+19005550199")
    for message in (SMS, CALL):
        with pytest.raises(ApptotoValidationError, match="premium-rate"):
            routing.route(message)


def test_redirect_masks_the_recipient_for_the_stand_in_in_any_case() -> None:
    routed = REDIRECT.route(Message("email", to="mary@clinic.example", message="Hi", redact=False))
    assert routed is not None
    assert routed.message == "[Redirected, was for m•••@•••.example]\nHi"


@pytest.mark.parametrize("message", [EVENT, PARTICIPANT], ids=repr)
def test_redirect_refuses_recipients_that_only_apptoto_knows(message: Message) -> None:
    with pytest.raises(ApptotoValidationError, match=rf"redirect.*{message.target}.*dry_run"):
        REDIRECT.route(message)


@pytest.mark.parametrize(
    ("message", "setting", "routing"),
    [
        (SMS, "redirect_phone_to", Routing(DeliveryMode.REDIRECT, redirect_email_to=ADDRESS)),
        (CALL, "redirect_phone_to", Routing(DeliveryMode.REDIRECT, redirect_email_to=ADDRESS)),
        (EMAIL, "redirect_email_to", Routing(DeliveryMode.REDIRECT, redirect_phone_to=PHONE)),
    ],
)
def test_redirect_refuses_a_channel_that_has_no_stand_in_and_names_the_setting(
    message: Message, setting: str, routing: Routing
) -> None:
    with pytest.raises(ApptotoValidationError, match=f"needs {setting} .* not set"):
        routing.route(message)


def test_a_routing_does_not_show_who_stands_in() -> None:
    for private in (PHONE, ADDRESS):
        assert private not in f"{REDIRECT!r} {REDIRECT}"


def test_a_mode_given_as_text_means_what_it_says() -> None:
    dry: Any = "dry_run"
    live: Any = "live"
    assert Routing(dry, redirect_phone_to=PHONE).route(SMS) is None
    assert Routing(live).route(SMS) is SMS
    mistaken: Any = "dryrun"
    with pytest.raises(ApptotoConfigurationError):
        Routing(mistaken)
