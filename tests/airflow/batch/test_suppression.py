"""A suppressed person gets no message, in whatever notation the list and the row are written."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import phonenumbers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_apptoto.client import ApptotoConfigurationError, Message
from airflow_provider_apptoto.operators.apptoto import ApptotoSendMessageBatchOperator
from airflow_provider_apptoto.outbox.suppression import Suppression
from tests.support.dags import make_dag
from tests.support.planning import ADDRESS, OTHER_PHONE, PHONE, payloads, plan_of, problems

if TYPE_CHECKING:
    from collections.abc import Iterator


def sms(to: str = PHONE, region: str | None = None) -> Message:
    return Message("sms", to=to, message="Hi", default_region=region)


def email(to: str = ADDRESS) -> Message:
    return Message("email", to=to, message="Hi")


def refusal(recipients: object, region: str | None = None) -> str:
    """Return the text of the error, after checking that it shows no recipient."""
    with pytest.raises(ApptotoConfigurationError) as raised:
        Suppression(recipients, region)
    assert raised.value.field == "suppression"
    shown = f"{raised.value} {vars(raised.value)}"
    assert "5550199" not in shown
    assert "mary" not in shown
    return raised.value.problem


# --- numbers


WRITTEN = [
    "+16505550199",
    "+1 (650) 555-0199",
    " +1.650.555.0199 ",
    "(+1) 650/555/0199",
    "\u202a+1\u2010650\u2010555\u20100199\u202c",
    "+1\u00a0650\u00a0555\u00a00199",
    "\uff0b16505550199",
    "+\u0661\u0666\u0665\u0660\u0665\u0665\u0665\u0660\u0661\u0669\u0669",
]
WRITTEN_IN_THE_US = ["6505550199", "(650) 555-0199", "650.555.0199", "1 650 555 0199", "1-650-555-0199"]


@pytest.mark.parametrize("region", [None, "US", "GB"])
@pytest.mark.parametrize("written", WRITTEN, ids=ascii)
def test_a_number_with_its_country_code_is_found_however_it_is_written(written: str, region: str | None) -> None:
    suppression = Suppression([OTHER_PHONE, written], region)
    assert suppression.holds(sms())
    assert suppression.holds(Message("call", to="+1 650-555-0199", message="Hi"))
    assert not suppression.holds(sms("+16505550197"))
    assert Suppression([PHONE], region).holds(sms(written))


@pytest.mark.parametrize("written", WRITTEN_IN_THE_US, ids=ascii)
def test_a_number_without_a_country_code_is_completed_by_the_default_region_on_both_sides(written: str) -> None:
    assert Suppression([written], "US").holds(sms())
    assert Suppression([PHONE], "US").holds(sms(written, "US"))
    assert Suppression([written], "US").holds(sms(written, "US"))


@pytest.mark.parametrize("written", WRITTEN_IN_THE_US, ids=ascii)
def test_without_a_default_region_a_number_without_a_country_code_cannot_be_compared(written: str) -> None:
    problem = refusal([PHONE, written])
    assert problem.startswith("has entries that can't be compared with a recipient: entry 1 ")
    assert "default_region" in problem


@pytest.mark.parametrize("number", ["+19995550199", "+1 999 555 0199", "+449999999999", "+1650555019"], ids=ascii)
@pytest.mark.parametrize("region", [None, "US"])
def test_a_number_out_of_use_does_not_block_the_others(number: str, region: str | None) -> None:
    suppression = Suppression([number, PHONE], region)
    assert suppression.holds(sms())
    assert not suppression.holds(sms(OTHER_PHONE))


@pytest.mark.parametrize("number", ["+19005550199", "900-555-0199", "+442079460958", "011 44 20 7946 0958"])
def test_a_number_that_gets_no_messages_does_not_block_the_others(number: str) -> None:
    suppression = Suppression([number, PHONE], "US")
    assert suppression.holds(sms())
    assert not suppression.holds(sms(OTHER_PHONE))


@pytest.mark.parametrize("region", [None, "US"])
@pytest.mark.parametrize("written", ["++16505550199", "1+6505550199", "+1 650 555 0199+", "+1+6505550199"])
def test_a_slip_of_the_pen_does_not_pass_for_a_number_out_of_use(written: str, region: str | None) -> None:
    try:
        suppression = Suppression([written], region)
    except ApptotoConfigurationError as error:
        assert "entry 0 " in error.problem  # noqa: PT017
    else:
        assert suppression.holds(sms())


def test_another_countrys_number_without_its_plus_is_not_passed_over() -> None:
    """It may be matched or refused, but its owner, in a row as +1650..., must not get a message."""
    try:
        suppression = Suppression(["16505550199"], "GB")
    except ApptotoConfigurationError as error:
        assert "entry 0 " in error.problem  # noqa: PT017
    else:
        assert suppression.holds(sms())


@pytest.mark.parametrize("region", [None, "US", "DE"])
def test_every_countrys_number_is_found_in_every_form_that_it_is_written_in(region: str | None) -> None:
    formats = phonenumbers.PhoneNumberFormat
    tried = 0
    for country in sorted(phonenumbers.SUPPORTED_REGIONS):
        example = phonenumbers.example_number(country)
        assert example is not None
        forms = [phonenumbers.format_number(example, form) for form in (formats.E164, formats.INTERNATIONAL)]
        for in_list, in_row in itertools.product(forms, forms):
            to = Message("call", to=in_row, message="Hi", default_region=region, allowed_regions=["*"])
            assert Suppression([in_list], region).holds(to), (country, in_list, in_row)
        national = phonenumbers.format_number(example, formats.NATIONAL)
        # no message can be sent to a shorter number, and a list that contains one is refused
        if sum(digit.isdigit() for digit in national) >= 7:
            tried += 1
            to = Message("call", to=forms[0], message="Hi", default_region=country)
            assert Suppression([national], country).holds(to), (country, national)
    assert tried > 200


# --- addresses


@pytest.mark.parametrize(
    ("listed", "to"),
    [
        ("mary@clinic.com", "mary@clinic.com"),
        (" MARY@Clinic.COM\n", "mary@clinic.com"),
        ("mary@clinic.com", "Mary@CLINIC.com"),
        ("mary@xn--mller-kva.de", "mary@m\u00fcller.de"),
        ("mary@M\u00dcLLER.de", "mary@xn--mller-kva.de"),
        ("JO\u0308RG@clinic.com", "j\u00f6rg@clinic.com"),
    ],
    ids=ascii,
)
def test_an_address_is_found_however_it_is_written(listed: str, to: str) -> None:
    suppression = Suppression([listed], None)
    assert suppression.holds(email(to))
    assert not suppression.holds(email("bob@clinic.com"))


def test_a_mailbox_with_a_suffix_is_another_address() -> None:
    assert not Suppression([ADDRESS], None).holds(email("mary+visit@clinic.com"))


def test_one_list_may_hold_both_kinds() -> None:
    suppression = Suppression([ADDRESS, PHONE], None)
    assert suppression.holds(sms())
    assert suppression.holds(email())
    assert not suppression.holds(sms(OTHER_PHONE))


@given(
    st.lists(st.sampled_from(["+1650555019", ADDRESS]), max_size=3),
    st.from_regex(r"[a-z]{1,9}\.[A-Z]{1,9}", fullmatch=True),
)
def test_case_never_tells_two_addresses_apart(others: list[str], mailbox: str) -> None:
    assert Suppression([*others, f"{mailbox.swapcase()}@CLINIC.com"], None).holds(email(f"{mailbox}@clinic.com"))


# --- lists


@pytest.mark.parametrize(
    "recipients",
    [
        [PHONE],
        (PHONE,),
        {PHONE},
        [None, PHONE, None],
        [[PHONE], [None]],
        [(PHONE,), (ADDRESS,)],
        {PHONE: 1}.keys(),
    ],
    ids=repr,
)
def test_lists_sets_and_rows_of_one_column_are_taken_and_none_is_nobody(recipients: object) -> None:
    assert Suppression(recipients, None).holds(sms())
    assert not Suppression(recipients, None).holds(sms(OTHER_PHONE))


def test_what_is_read_only_once_is_read_once() -> None:
    def cursor() -> Iterator[tuple[str]]:
        yield (PHONE,)

    suppression = Suppression(cursor(), None)
    assert suppression.holds(sms())
    assert suppression.holds(sms())


@pytest.mark.parametrize("recipients", [[], (), [None], [(None,)]], ids=repr)
def test_a_list_of_nobody_suppresses_nobody_and_lets_appointments_pass(recipients: object) -> None:
    suppression = Suppression(recipients, None)
    assert not suppression.holds(sms())
    assert not suppression.holds(Message("sms", event_id=1, message="Hi"))


@pytest.mark.parametrize("recipients", [PHONE, PHONE.encode(), {PHONE: True}, None, 5, True], ids=repr)
def test_what_is_no_list_is_refused_by_its_type_alone(recipients: object) -> None:
    assert f"e-mail addresses, not {type(recipients).__name__}" in refusal(recipients)


@pytest.mark.parametrize(
    "entry",
    [
        "",
        " ",
        16505550199,
        PHONE.encode(),
        [PHONE, ADDRESS],
        [],
        {"phone": PHONE},
        "+1 650 555 0199 ext 5",
        "+16505550199, +16505550198",
        "911",
        "mary",
        "Mary <mary@clinic.com>",
        "mary@clinic.com;bob@clinic.com",
        "mary@",
        "***",
        "{{ var.value.opted_out }}",
    ],
    ids=repr,
)
def test_what_cannot_be_compared_is_an_error_and_never_passed_over(entry: object) -> None:
    for region in (None, "US"):
        assert "has entries that can't be compared with a recipient: entry 1 " in refusal([OTHER_PHONE, entry], region)


def test_all_that_cannot_be_compared_is_named_up_to_a_limit() -> None:
    problem = refusal(["mary", *[PHONE] * 30, *range(25)])
    assert problem.startswith("has entries that can't be compared with a recipient: entry 0 ")
    assert "entry 31 must be a string, not int" in problem
    assert problem.count("entry ") == 20
    assert problem.endswith("; and 6 more")


# --- in a batch


@pytest.mark.contract
def test_rows_to_somebody_on_the_list_are_counted_and_make_no_message() -> None:
    rows = [{"to": PHONE}, {"to": OTHER_PHONE}, {"to": "650-555-0199"}, {"to": ADDRESS}]
    defaults = {"type": "{{ 'email' if '@' in row.to else 'sms' }}", "message": "Hi"}
    plan = plan_of(rows, defaults, suppression=["(650) 555-0199", "MARY@clinic.com"], region="US")
    assert [payload["to"] for payload in payloads(plan)] == [OTHER_PHONE]
    assert (plan.rows, plan.suppressed, plan.duplicates) == (4, 3, 0)


@pytest.mark.parametrize("target", [{"event_id": 12}, {"participant_id": 12}])
def test_appointments_are_bad_rows_where_there_is_a_list_since_nobody_knows_who_gets_the_message(
    target: dict[str, Any],
) -> None:
    plan = plan_of([target, {"to": PHONE}], {"type": "sms", "message": "Hi"}, suppression=[OTHER_PHONE])
    [(index, _, field, reason)] = problems(plan)
    assert (index, field) == (0, "to")
    assert reason.startswith("is required with suppression: only Apptoto knows who receives ")
    assert reason.endswith(" 12")
    assert [planned.index for planned in plan.messages] == [1]


def test_an_invalid_row_of_somebody_on_the_list_is_suppressed_and_fails_nobody() -> None:
    plan = plan_of([{"to": PHONE, "message": " "}], {"type": "sms"}, suppression=[PHONE])
    assert (plan.invalid, plan.suppressed) == (0, 1)


@pytest.mark.contract
@pytest.mark.parametrize("redact", [True, False])
def test_what_stands_in_the_dag_file_is_templated_as_messages_are(redact: bool) -> None:
    """Entries are rendered at the latest when the list is built."""
    dag = make_dag()
    task: Any = ApptotoSendMessageBatchOperator(
        task_id="send", messages=[], suppression=["{{ params.opted_out }}"], redact=redact
    )
    context: Any = {"dag": dag, "params": {"opted_out": PHONE}}
    task._do_render_template_fields(task, task.template_fields, context, dag.get_template_env(), set())
    assert Suppression(task._rendered.suppressed(), None).holds(sms())
